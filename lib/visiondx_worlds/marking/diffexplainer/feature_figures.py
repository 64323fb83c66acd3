"""Explained features beside their truth, and how well r tells them apart (Figs. 5 and 6)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from torch import Tensor

from visiondx.core.errors import InputError
from visiondx.diffexplainer.spurious import SPURIOUS, Features
from visiondx.models.segmenter import Segmenter
from visiondx.show import plots
from visiondx.show.overlays import draw_masks
from visiondx_worlds.marking.diffexplainer.agreement import auroc, decided, roc
from visiondx_worlds.marking.diffexplainer.truth import FeatureTruth, Interventions
from visiondx_worlds.worlds.contexts import CONTEXTS


def features_beside_truth(
    found: Features,
    segmenter: Segmenter,
    which: Sequence[tuple[int, int]],
    truth: FeatureTruth | None = None,
    drawn: Interventions | None = None,
    columns: int = 4,
) -> Figure:
    """A row a feature: what the renderer says of it, its explanation, and the object in that.

    First the object in the neutral room and the context alone, titled with how much they raise the
    feature; of a class without a tie, whose context is every place, one place a row. Then pictures
    of the explanation, marked where the target takes them for another class. Then the same with the
    segmenter's mask, titled with r.

    Args:
        which: (class, feature), their places in `found`.
        truth, drawn: of the same features; without them a row begins with the explanation.

    Raises:
        InputError: nothing to show, or a feature that `truth` does not know.
    """
    if not which:
        raise InputError("There is no feature to show: name one at least.")
    columns = min(columns, found.images.shape[2])
    images: list[Tensor] = []
    titles: list[str] = []
    rows: list[str] = []
    for c, k in which:
        name, feature = found.classes[c], int(found.features[c, k])
        said = found.verdicts[c][k]
        label = f"{name}, {feature}\nverdict {said}"
        if truth is not None and drawn is not None:
            at, place = place_of(truth, name, feature)
            tie = truth.ties[at]
            context = tie.context if tie else CONTEXTS[k % len(CONTEXTS)]
            scene = k % len(drawn.rows)
            images += [drawn.object(name)[scene], drawn.context(context)[scene]]
            rises = truth.object_rise[at, place].mean(), truth.context_rise[at, place].mean()
            titles += [f"{rise:+.2f}" for rise in rises]
            label += f"\ntruth {truth.labels[at][place]}"
        shown = found.images[c, k, :columns]
        masks = torch.zeros(shown.shape[:1] + shown.shape[2:], dtype=torch.bool)
        if found.known[c]:
            masks = segmenter(shown, [found.words[c]]).masks[:, 0].cpu()
        images += [*shown, *draw_masks(shown, masks)]
        titles += ["" if taken else "not taken" for taken in found.taken[c, k, :columns]]
        titles += [
            f"r {value:.2f}" if found.known[c] else "" for value in found.r[c, k, :columns].tolist()
        ]
        rows.append(label)
    return plots.image_grid(torch.stack(images), titles, len(images) // len(which), rows)


def place_of(truth: FeatureTruth, name: str, feature: int) -> tuple[int, int]:
    """Where in the truth a class's feature is: (its class's place, its own).

    Raises:
        InputError: the truth does not know the class, or not this feature of it.
    """
    if name in truth.classes:
        at = truth.classes.index(name)
        places = (truth.features[at] == feature).nonzero().flatten().tolist()
        if places:
            return at, places[0]
    raise InputError(
        f"The truth knows no feature {feature} of {name}: rank the features on the same images."
    )


def roc_figure(tables: Mapping[str, pd.DataFrame], delta: float) -> Figure:
    """The ROC of r, a line a table, with the point of one delta on each.

    Args:
        tables: {name: `judged`}, each with truly core and truly spurious features that have a
            verdict.
    """
    figure, axis = plt.subplots(figsize=(4.4, 4), layout="constrained")
    for number, (name, table) in enumerate(tables.items()):
        curve, colour = roc(table), f"C{number}"
        axis.plot(
            curve["core"], curve["spurious"], color=colour, label=f"{name}, area {auroc(table):.2f}"
        )
        clear = decided(table).dropna(subset="r")
        called, spurious = clear["r"] < delta, clear["label"] == SPURIOUS
        axis.plot(called[~spurious].mean(), called[spurious].mean(), "o", color=colour)
    axis.plot([0, 1], [0, 1], ":", color="0.6")
    axis.set(
        xlabel=f"truly core features called {SPURIOUS}",
        ylabel=f"truly spurious features called {SPURIOUS}",
        title=f"dots: the one δ = {delta:.3f}",
    )
    axis.legend(fontsize=8, loc="lower right")
    axis.spines[["top", "right"]].set_visible(False)
    plt.close(figure)
    return figure


def r_figure(tables: Mapping[str, pd.DataFrame], delta: float) -> Figure:
    """E_z[r] of every feature with a verdict, a column a table, the lowest left; delta is dashed.

    Args:
        tables: {name: rows of `judged`}, such as those of one true label.
    """
    figure, axis = plt.subplots(figsize=(1.2 + 1.4 * len(tables), 3.4), layout="constrained")
    for number, table in enumerate(tables.values()):
        r = table["r"].dropna().sort_values()
        axis.plot(number + np.linspace(-0.35, 0.35, len(r)), r, ".", color=f"C{number}")
    axis.axhline(delta, color="0.4", linestyle="--", linewidth=1)
    names = [
        f"{name}\n{table['r'].notna().sum()} of {len(table)}" for name, table in tables.items()
    ]
    axis.set_xticks(range(len(names)), names)
    axis.set(ylabel="E[r]", ylim=(-0.02, None), xlim=(-0.5, len(names) - 0.5))
    axis.spines[["top", "right"]].set_visible(False)
    plt.close(figure)
    return figure
