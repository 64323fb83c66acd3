"""What several methods return: selection frequencies, similarities, pictures (Figs. 5, 16)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from torch import Tensor

from visiondx.core.errors import InputError
from visiondx.core.stats import Estimate
from visiondx.dataset_interfaces.shifts import BASE
from visiondx.show import plots
from visiondx_worlds.marking.dataset_interfaces.methods import seen_words


def frequency_figure(
    panels: Mapping[str, Mapping[str, Mapping[str, Estimate]]], ylabel: str = "selected"
) -> Figure:
    """Bars with their intervals, a panel below the other (Fig. 5).

    Args:
        panels: {title: {method: {what stands below the bars: its Estimate}}}; one of no images
            leaves a gap.

    Raises:
        InputError: no panel.
    """
    if not panels:
        raise InputError("frequency_figure needs one panel at least.")
    groups = list(dict.fromkeys(g for own in panels.values() for m in own.values() for g in m))
    methods = list(dict.fromkeys(m for own in panels.values() for m in own))
    figure, axes = plt.subplots(
        len(panels), 1, figsize=(1.6 + 1.15 * len(groups), 1.9 * len(panels) + 0.4),
        sharex=True, sharey=True, squeeze=False, layout="constrained",
    )  # fmt: skip
    width = 0.84 / len(methods)
    for axis, (title, own) in zip(axes[:, 0], panels.items(), strict=True):
        for k, method in enumerate(methods):
            known = {g: e for g, e in own.get(method, {}).items() if e.n and np.isfinite(e.value)}
            at = [groups.index(g) + (k + 0.5) * width - 0.42 for g in known]
            value = np.array([e.value for e in known.values()])
            ends = np.array([[e.value - e.low, e.high - e.value] for e in known.values()])
            axis.bar(at, value, 0.9 * width, color=f"C{k}", label=method)
            axis.errorbar(at, value, ends.reshape(-1, 2).T, fmt="none", ecolor="0.3", elinewidth=1)
        axis.set(title=title, ylabel=ylabel, ylim=(0, 1.02))
        axis.spines[["top", "right"]].set_visible(False)
    axes[-1, 0].set_xticks(range(len(groups)), groups)
    axes[0, 0].legend(fontsize=8, loc="upper left", bbox_to_anchor=(1, 1))
    plt.close(figure)
    return figure


def similarity_figure(
    rows: pd.DataFrame, shifts: Sequence[str], thresholds: Mapping[str, float] | None = None
) -> Figure:
    """CDFs of CLIP's similarity to c_class, above, and to c_shift, a line a method (Fig. 16a).

    Args:
        rows: of ``methods.judged``. shifts: a column each. thresholds: {shift: t_shift}, dashed.

    Raises:
        InputError: no shift, or one without rows.
    """
    missing = [name for name in shifts if name not in set(rows["shift"])]
    if missing or not shifts:
        what = f"no image is of {missing[0]!r}" if missing else "no shift was named"
        raise InputError(f"There is nothing to draw: {what}.")
    methods = list(dict.fromkeys(rows["method"]))
    figure, axes = plt.subplots(
        2, len(shifts), figsize=(2.1 * len(shifts) + 1.4, 4.2), sharey=True, squeeze=False,
        layout="constrained",
    )  # fmt: skip
    for column, name in enumerate(shifts):
        own = rows[rows["shift"] == name]
        for axis, score in zip(axes[:, column], ("class_score", "shift_score"), strict=True):
            for k, method in enumerate(methods):
                values = own.loc[own["method"] == method, score].dropna().sort_values()
                if len(values):
                    share = np.arange(1, len(values) + 1) / len(values)
                    axis.plot(values, share, color=f"C{k}", linewidth=1.2, label=method)
            axis.spines[["top", "right"]].set_visible(False)
            axis.tick_params(labelsize=7)
        if name in (thresholds or {}):
            axes[1, column].axvline(thresholds[name], color="0.4", linestyle="--", linewidth=1)
        axes[1, column].set_visible(name != BASE)
        axes[0, column].set_title(name, fontsize=9)
    axes[0, 0].set_ylabel("share below, of c_class")
    side = next((k for k, name in enumerate(shifts) if name != BASE), 0)
    axes[1, side].set_ylabel("share below, of c_shift")
    axes[0, -1].legend(fontsize=8, loc="upper left", bbox_to_anchor=(1, 1))
    plt.close(figure)
    return figure


def picked_figure(parts: Mapping[str, tuple[Tensor, pd.DataFrame]], columns: int = 6) -> Figure:
    """A row a part: some of its images, evenly spaced, with their class and what judges see.

    Args:
        parts: {name: images (N, 3, S, S) and their N rows of ``methods.judged``}; one of no images
            gets no row.

    Raises:
        InputError: no image at all, or not a row an image.
    """
    cells, titles, names = [], [], []
    for name, (images, rows) in parts.items():
        if len(images) != len(rows):
            raise InputError(f"{len(rows)} rows were given for {len(images)} images: give as many.")
        if not len(images):
            continue
        count = min(columns, len(images))
        picked = [k * len(images) // count for k in range(count)]
        some = rows.iloc[picked]
        seen = seen_words(some) if "seen_class" in some else [""] * count
        blank = columns - count
        cells.append(torch.cat([images[picked], torch.ones(blank, *images.shape[1:])]))
        titles += [f"{kind}\n{said}" for kind, said in zip(some["class"], seen)] + [""] * blank
        names.append(name)
    if not cells:
        raise InputError("There is nothing to show: no part has an image.")
    return plots.image_grid(torch.cat(cells), titles, columns, names)
