"""Predictions against the truth, as figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
from matplotlib.figure import Figure
from torch import Tensor

from visiondx.show import plots


def agreement(panels: Mapping[str, tuple[Tensor, Tensor, Tensor]], x: str, y: str) -> Figure:
    """Predicted over true differences, a panel each; right answers lie lower left and upper right.

    Args:
        panels: title -> true (P,), predicted (P,), and which dots are full, (P,) bool.
    """
    figure, axes = plt.subplots(
        1, len(panels), figsize=(4.4 * len(panels), 3.8), squeeze=False, layout="constrained"
    )
    for axis, (title, (true, predicted, full)) in zip(axes.flat, panels.items(), strict=True):
        axis.axhline(0, color="0.4", linewidth=1)
        axis.axvline(0, color="0.4", linewidth=1)
        axis.scatter(true[full], predicted[full], s=12, color=plots.TRUTH, linewidths=0)
        axis.scatter(true[~full], predicted[~full], s=12, facecolors="none", edgecolors="0.5")
        axis.set(title=title, xlabel=x, ylabel=y)
        axis.spines[["top", "right"]].set_visible(False)
    plt.close(figure)
    return figure


def named(
    true: Tensor, predicted: Tensor, names: Sequence[str], x: str, y: str, title: str = ""
) -> Figure:
    """A dot a name: predicted over true values, both (A,)."""
    figure, axis = plt.subplots(figsize=(6.4, 4.6), layout="constrained")
    axis.scatter(true, predicted, s=18, color=plots.TRUTH)
    for at, name in zip(zip(true.tolist(), predicted.tolist()), names, strict=True):
        axis.annotate(name, at, fontsize=7, xytext=(3, 3), textcoords="offset points")
    axis.set(xlabel=x, ylabel=y, title=title)
    axis.spines[["top", "right"]].set_visible(False)
    plt.close(figure)
    return figure
