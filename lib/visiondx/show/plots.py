"""The figures that every notebook and the report share. Each helper returns the figure."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import ModuleType
from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from visiondx.core.errors import InputError
from visiondx.show.words import figure_text, legend, lend_fonts

if TYPE_CHECKING:
    from visiondx.core.stats import Estimate
    from visiondx.zoom.sensitivity import Sensitivity

CELL = 1.1  # inches of one image
FIRST, REST, TRUTH = "#d1495b", "#8fa6b8", "#2e4057"
DASHED = {"color": "0.6", "linestyle": "--", "linewidth": 1}


@contextmanager
def _style() -> Iterator[ModuleType]:
    import seaborn as sns  # with the first figure, for it brings scipy.stats

    look = sns.axes_style("whitegrid") | sns.plotting_context("notebook", font_scale=0.85)
    fonts = ("font.family", "font.sans-serif")  # remain a person's own
    with plt.rc_context({name: value for name, value in look.items() if name not in fonts}):
        yield sns


def _finish(figure: Figure) -> Figure:
    plt.close(figure)  # returned, not shown: a notebook shows its cell's last value
    return lend_fonts(figure)


def image_grid(
    images: Tensor,
    titles: Sequence[str] | None = None,
    columns: int = 8,
    rows: Sequence[str] | None = None,
    corners: Sequence[str] | None = None,
) -> Figure:
    """Images (B, 3, H, W) in [0, 1], left to right and down, with a title each and row names.

    ``corners`` are written into the images, at the top right.

    Raises:
        InputError: no images, or another number of titles, corners or row names than fit.
    """
    if images.ndim != 4 or not len(images) or columns < 1:
        raise InputError(f"image_grid needs images (B, 3, H, W), got {tuple(images.shape)}.")
    height = -(-len(images) // columns)
    for name, texts in (("titles", titles), ("corners", corners)):
        if texts is not None and len(texts) != len(images):
            raise InputError(f"image_grid got {len(texts)} {name} for {len(images)} images.")
    if rows is not None and len(rows) != height:
        raise InputError(f"image_grid got {len(rows)} row names for {height} rows.")
    columns = min(columns, len(images))
    lines = [len(line) for row in rows or () for line in row.splitlines()]
    margin = 0.08 * max(lines, default=0)  # inches that the row names take
    size = (CELL * columns + margin, (CELL + (0.2 if titles else 0)) * height)
    figure, axes = plt.subplots(height, columns, figsize=size, squeeze=False, layout="constrained")
    figure.get_layout_engine().set(w_pad=0.02, h_pad=0.02, wspace=0, hspace=0)
    pixels = images.detach().float().clamp(0, 1).permute(0, 2, 3, 1).cpu().numpy()
    for i, axis in enumerate(axes.flat):
        axis.set(xticks=[], yticks=[])
        axis.spines[:].set_visible(False)
        if i >= len(images):
            continue
        axis.imshow(pixels[i], interpolation="nearest")
        if titles is not None:
            axis.set_title(figure_text(titles[i]), fontsize=8, pad=2)
        if corners is not None:
            axis.annotate(
                figure_text(corners[i]), (0.97, 0.96), xycoords="axes fraction", color="white",
                fontsize=7, ha="right", va="top", bbox={"fc": "black", "alpha": 0.65, "pad": 1.2},
            )  # fmt: skip
        if rows is not None and i % columns == 0:
            axis.set_ylabel(
                figure_text(rows[i // columns]), rotation=0, ha="right", va="center", fontsize=8
            )
    return _finish(figure)


def histogram(
    sensitivity: "Sensitivity", truth: "Sensitivity | None" = None, title: str = ""
) -> Figure:
    """The sensitivity histogram (Fig. 4): h / Σh, strongest first, with intervals.

    The interval of h is divided by the same Σh. ``truth`` adds the renderer's measurement of
    the attributes that it knows, scaled to their part of Σh. At the right stands in how many of the
    pairs the edit shows; the bar of one that does not show (``Sensitivity.shown``) is hollow. Red
    is the attribute that the target may be said to hang on most (``Sensitivity.winner``).
    """
    with _style() as sns:
        height = 0.9 + 0.34 * len(sensitivity.attributes)
        figure, axis = plt.subplots(figsize=(7.2, height), layout="constrained")
        _bars(axis, sensitivity, truth, title)
        sns.despine(figure, left=True)
    return _finish(figure)


def histograms(
    panels: Sequence[tuple[str, "Sensitivity", "Sensitivity | None"]], columns: int = 2
) -> Figure:
    """Several histograms side by side, as in Fig. 4: (title, sensitivity, truth or None) each."""
    if not panels:
        raise InputError("histograms needs at least one panel.")
    rows = -(-len(panels) // columns)
    height = 0.9 + 0.3 * max(len(sensitivity.attributes) for _, sensitivity, _ in panels)
    width = 5.4 if any(sensitivity.seen is not None for _, sensitivity, _ in panels) else 4.8
    with _style() as sns:
        figure, axes = plt.subplots(
            rows, columns, figsize=(width * columns, height * rows), squeeze=False,
            layout="constrained",
        )  # fmt: skip
        for axis, (title, sensitivity, truth) in zip(axes.flat, panels):
            _bars(axis, sensitivity, truth, title)
        for axis in axes.flat[len(panels) :]:
            axis.set_axis_off()
        sns.despine(figure, left=True)
    return _finish(figure)


def _bars(axis: Axes, sensitivity: "Sensitivity", truth: "Sensitivity | None", title: str) -> None:
    order = sensitivity.rank
    share = sensitivity.to_frame().set_index("attribute").loc[list(order)]
    colours = [FIRST if name == sensitivity.winner else REST for name in order]
    total = max(float(share["h"].sum()), 1e-12)
    at = range(len(order))
    bars = share["h"] / total
    spread = [(share["h"] - share["low"]) / total, (share["high"] - share["h"]) / total]
    drawn = axis.barh(
        at,
        bars,
        xerr=spread,
        color=colours,
        edgecolor=colours,
        error_kw={"ecolor": "#444", "capsize": 2},
    )
    shown = dict(zip(sensitivity.attributes, sensitivity.shown, strict=True))
    for name, bar in zip(order, drawn, strict=True):
        if not shown[name]:
            bar.set(facecolor="none", linestyle=(0, (2, 1.5)))
    _visibility(axis, share)
    if truth is not None:
        known = truth.to_frame().set_index("attribute")["share"]
        rows = [i for i in at if order[i] in known]
        scale = float(bars.iloc[rows].sum())
        points = [known[order[i]] * scale for i in rows]
        axis.plot(points, rows, "D", color=TRUTH, label="true", clip_on=False)
        axis.legend(loc="lower right")
    axis.set_yticks(list(at), [figure_text(name) for name in order])
    axis.invert_yaxis()
    axis.set(xlabel="sensitivity h / Σh", xlim=(0, None), title=figure_text(title))
    axis.grid(axis="y", visible=False)


def _visibility(axis: Axes, frame: pd.DataFrame) -> None:
    """At the right of each bar, in how many of the pairs CLIP and the judges see the edit."""
    readers = [(k, head) for k, head in (("seen", "CLIP sees"), ("judged", "judges")) if k in frame]
    for place, (column, head) in enumerate(readers):
        words = [head, *(f"{100 * v:.0f} %" if v == v else "–" for v in frame[column])]
        for row, text in enumerate(words, start=-1):
            axis.annotate(
                text, (1, max(row, 0)), (52 + 42 * place, 12 if row < 0 else 0),
                xycoords=axis.get_yaxis_transform(), textcoords="offset points", ha="right",
                va="center", fontsize=8, color="#555", annotation_clip=False,
            )  # fmt: skip


def counterfactual_strip(
    original: Tensor, steps: Tensor, probabilities: Sequence[float], labels: Sequence[str] = ()
) -> Figure:
    """One image on its way to its counterfactual (Fig. 3).

    Args:
        original: (3, H, W). steps: (T, 3, H, W).
        probabilities: T + 1 numbers, f(x) and then f(x̂) of each step.
        labels: the target's words for 0 and 1, shown beside the probability when given.
    """
    if len(probabilities) != len(steps) + 1:
        raise InputError(f"{len(steps)} steps need {len(steps) + 1} probabilities.")
    titles = [f"{p:.2f}" + (f" {labels[round(p)]}" if labels else "") for p in probabilities]
    return image_grid(torch.cat((original[None], steps)), titles, columns=len(titles))


def matrix(
    frame: pd.DataFrame,
    title: str = "",
    xlabel: str = "",
    ylabel: str = "",
    limit: float | None = None,
) -> Figure:
    """A heat map with its numbers (Fig. 6); colours from 0, or from -limit to limit."""
    return matrices([(title, frame)], 1, xlabel, ylabel, limit)


def matrices(
    panels: Sequence[tuple[str, pd.DataFrame]],
    columns: int = 3,
    xlabel: str = "",
    ylabel: str = "",
    limit: float | None = None,
) -> Figure:
    """Heat maps side by side, (title, frame) each, all with the same colours; see ``matrix``."""
    if not panels:
        raise InputError("matrices needs at least one panel.")
    frames = [frame for _, frame in panels]
    high, wide = (max(frame.shape[i] for frame in frames) for i in (0, 1))
    rows, columns = -(-len(panels) // columns), min(columns, len(panels))
    signed = any(bool((frame.to_numpy() < 0).any()) for frame in frames)
    top = limit or max(float(frame.abs().to_numpy().max()) for frame in frames) or 1.0
    size = ((1.6 + 0.5 * wide) * columns, (1.2 + 0.36 * high) * rows)
    with _style() as sns:
        figure, axes = plt.subplots(
            rows, columns, figsize=size, squeeze=False, layout="constrained"
        )
        for axis, (title, frame) in zip(axes.flat, panels):
            sns.heatmap(
                frame.rename(index=figure_text, columns=figure_text), ax=axis, annot=True,
                fmt=".2f", annot_kws={"fontsize": 7}, cmap="vlag" if signed else "rocket_r",
                vmin=-top if signed else 0, vmax=top, cbar=False, square=True,
            )  # fmt: skip
            axis.set(title=figure_text(title), xlabel=xlabel, ylabel=ylabel)
            _slant(axis)
        for axis in axes.flat[len(panels) :]:
            axis.set_axis_off()
    return _finish(figure)


def _slant(axis: Axes) -> None:
    for label in axis.get_xticklabels():
        label.set(rotation=40, ha="right", rotation_mode="anchor")


def training_curve(
    logs: "dict[str, pd.DataFrame]", terms: Sequence[str], title: str = ""
) -> Figure:
    """Loss terms over steps, a panel each; one line a training.

    Args:
        logs: name of a training -> its log (`core.loop.read_log`). A term that a log lacks, or
            lacks for a while, leaves a gap.
    """
    with _style() as sns:
        figure, axes = plt.subplots(
            1, len(terms), figsize=(3.6 * len(terms), 2.8), squeeze=False, layout="constrained"
        )
        for axis, term in zip(axes.flat, terms, strict=True):
            for name, log in logs.items():
                if term in log:
                    axis.plot(
                        log["step"], log[term], marker=".", markersize=4, label=figure_text(name)
                    )
            axis.set(xlabel="step", title=figure_text(term))
        if len(logs) > 1:
            legend(axes.flat[-1], fontsize=8)
        figure.suptitle(figure_text(title))
        sns.despine(figure)
    return _finish(figure)


def intervals(
    table: dict[str, "dict[str, Estimate]"],
    title: str = "",
    xlabel: str = "",
    lines: Sequence[float] = (),
) -> Figure:
    """Estimates as dots with their intervals: a row an attribute, a colour a series.

    Args:
        table: series -> {attribute: Estimate}; rows keep the order of the first series.
        lines: dashed vertical lines, such as what was asked for.
    """
    names = list(dict.fromkeys(name for series in table.values() for name in series))
    shift = 0.36 / max(1, len(table) - 1)
    with _style() as sns:
        figure, axis = plt.subplots(figsize=(6.4, 0.9 + 0.3 * len(names)), layout="constrained")
        for k, (label, series) in enumerate(table.items()):
            at = [
                names.index(name) + (k * shift - 0.18 if len(table) > 1 else 0) for name in series
            ]
            value, low, high = zip(*((e.value, e.low, e.high) for e in series.values()))
            axis.hlines(at, low, high, color=f"C{k}", linewidth=2)
            axis.plot(value, at, "o", color=f"C{k}", markersize=5, label=figure_text(label))
        for line in lines:
            axis.axvline(line, color="0.4", linestyle="--", linewidth=1)
        axis.set_yticks(range(len(names)), [figure_text(name) for name in names])
        axis.set(title=figure_text(title), xlabel=xlabel, ylim=(len(names) - 0.5, -0.5))
        if len(table) > 1:
            legend(axis, fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))  # hides no row
        sns.despine(figure, left=True)
    return _finish(figure)


def curves(
    frames: dict[str, pd.DataFrame],
    x: str,
    y: str,
    title: str = "",
    ylabel: str = "",
) -> Figure:
    """A share over a number, such as the flip rate over steps; a line a frame.

    Args:
        frames: name of a line -> columns ``x``, ``y`` and, the interval shown as a band, ``low``
            and ``high``.
    """
    with _style() as sns:
        figure, axis = plt.subplots(figsize=(5.2, 3.2), layout="constrained")
        for name, frame in frames.items():
            (line,) = axis.plot(frame[x], frame[y], label=figure_text(name))
            axis.fill_between(
                frame[x], frame["low"], frame["high"], color=line.get_color(), alpha=0.2, lw=0
            )
        axis.set(title=figure_text(title), xlabel=x, ylabel=ylabel or y, ylim=(0, 1.02))
        if len(frames) > 1:
            legend(axis, fontsize=8)
        sns.despine(figure)
    return _finish(figure)


def paths(
    values: Tensor,
    panels: Sequence[str],
    lines: Sequence[str],
    ylabel: str = "",
    columns: int = 4,
) -> Figure:
    """Values (T + 1, E, S) over the steps of E searches from S starts: a panel each, S lines.

    Raises:
        InputError: another number of panels or lines than values have.
    """
    if values.ndim != 3 or values.shape[1:] != (len(panels), len(lines)):
        raise InputError(
            f"paths needs values (steps, {len(panels)}, {len(lines)}) for {len(panels)} panels of "
            f"{len(lines)} lines, got {tuple(values.shape)}."
        )
    columns = min(columns, len(panels))
    rows = -(-len(panels) // columns)
    with _style() as sns:
        figure, axes = plt.subplots(
            rows, columns, figsize=(2.6 * columns, 1.9 * rows), sharex=True, sharey=True,
            squeeze=False, layout="constrained",
        )  # fmt: skip
        for k, axis in enumerate(axes.flat):
            axis.set_visible(k < len(panels))
            if k >= len(panels):
                continue
            for s, name in enumerate(lines):
                axis.plot(values[:, k, s].tolist(), linewidth=1, label=figure_text(name))
            axis.set_title(figure_text(panels[k]), fontsize=9)
        for axis in axes[:, 0]:
            axis.set_ylabel(ylabel)
        axes.flat[0].set_ylim(bottom=min(0.0, float(values.min())))
        if len(lines) > 1:
            legend(axes.flat[0], fontsize=7)
        figure.supxlabel("step", fontsize=9)
        sns.despine(figure)
    return _finish(figure)


def fitted_lines(
    panels: dict[str, tuple[np.ndarray, np.ndarray]], xlabel: str, ylabel: str, title: str = ""
) -> Figure:
    """Dots and the best-fit line through them, a panel each (Dataset Interfaces, Fig. 8).

    Args:
        panels: title -> x and y, (M,) each, in [0, 1]. A line needs two that differ in x. Dashed:
            where y is x.

    Raises:
        InputError: no panel.
    """
    if not panels:
        raise InputError("fitted_lines needs at least one panel.")
    every = np.concatenate([np.concatenate(pair) for pair in panels.values()])
    ends = float(every.min()) - 0.03, float(every.max()) + 0.03
    with _style() as sns:
        figure, axes = plt.subplots(
            1, len(panels), figsize=(2.9 * len(panels), 3), sharex=True, sharey=True,
            squeeze=False, layout="constrained",
        )  # fmt: skip
        for axis, (name, (x, y)) in zip(axes.flat, panels.items()):
            axis.plot(ends, ends, **DASHED)
            axis.plot(x, y, "o", color=TRUTH, markersize=4, alpha=0.8)
            words = figure_text(name)
            if np.ptp(x) > 0:
                slope, start = np.polyfit(x, y, 1)
                at = np.array([x.min(), x.max()])
                axis.plot(at, start + slope * at, color=FIRST)
                words += f"\nslope {slope:.2f}"
            axis.set(title=words, xlabel=xlabel, xlim=ends, ylim=ends, aspect="equal")
        axes[0, 0].set_ylabel(ylabel)
        figure.suptitle(figure_text(title))
        sns.despine(figure)
    return _finish(figure)


def named_points(
    panels: Mapping[str, tuple[Sequence[str], np.ndarray, np.ndarray]],
    xlabel: str,
    ylabel: str,
    diagonal: bool = False,
) -> Figure:
    """Dots with their names and both intervals, panels side by side (Dataset Interfaces, Fig. 9).

    Args:
        panels: title -> S names, x and y, (S, 3) each: value, low and high; finite.
        diagonal: the dashed line is where y is x, not where x is 0.

    Raises:
        InputError: no panel.
    """
    if not panels:
        raise InputError("named_points needs at least one panel.")
    with _style() as sns:
        figure, axes = plt.subplots(
            1, len(panels), figsize=((8, 6.4)[len(panels) > 1] * len(panels), 5.6), sharex=True,
            sharey=True, squeeze=False, layout="constrained",
        )  # fmt: skip
        for axis, (title, (_, x, y)) in zip(axes.flat, panels.items()):
            axis.hlines(y[:, 0], x[:, 1], x[:, 2], color=REST, linewidth=1, alpha=0.6)
            axis.vlines(x[:, 0], y[:, 1], y[:, 2], color=REST, linewidth=1, alpha=0.6)
            axis.plot(x[:, 0], y[:, 0], "o", color=FIRST, markersize=5)
            if diagonal:
                axis.axline((0, 0), slope=1, **DASHED)
            else:
                axis.axvline(0, **DASHED)
            axis.set(xlabel=xlabel, title=figure_text(title))
        axes[0, 0].set_ylabel(ylabel)
        for axis, (names, x, y) in zip(axes.flat, panels.values()):  # all limits are known
            for name, across, up, height in zip(
                names, x[:, 0], y[:, 0], _apart(axis, x[:, 0], y[:, 0]), strict=True
            ):
                axis.annotate(
                    figure_text(name), (across, up), (6, height), textcoords="offset points",
                    fontsize=8, va="center",
                )  # fmt: skip
        sns.despine(figure)
    return _finish(figure)


def _apart(axis: Axes, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """How far above its dot each name stands, in points, so that no two near ones overlap."""
    wide, high = np.ptp(axis.get_xlim()), np.ptp(axis.get_ylim())
    place = y / high * 72 * 0.85 * axis.figure.get_figheight()  # points of the axes
    moved = place.copy()
    order = np.argsort(place, kind="stable")
    for k, one in enumerate(order):
        near = [o for o in order[:k] if abs(x[o] - x[one]) / wide < 0.16]
        if near:
            moved[one] = max(moved[one], max(moved[o] for o in near) + 10)
    return moved - place
