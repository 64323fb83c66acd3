"""Predictions against the truth, as figures."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import product

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.transforms import Bbox
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
    """A dot a name: predicted over true values, both (A,). No two names stand on each other."""
    figure, axis = plt.subplots(figsize=(6.4, 4.6), layout="constrained")
    axis.scatter(true, predicted, s=18, color=plots.TRUTH)
    axis.set(xlabel=x, ylabel=y, title=title)
    axis.spines[["top", "right"]].set_visible(False)
    figure.draw_without_rendering()  # only now a text knows how large it is
    taken: list[Bbox] = []
    for at, name in zip(zip(true.tolist(), predicted.tolist()), names, strict=True):
        taken.append(_place(axis, name, at, taken))
    plt.close(figure)
    return figure


def _place(axis: Axes, name: str, at: tuple[float, float], taken: Sequence[Bbox]) -> Bbox:
    """Write a name near its dot, where it covers no other; far off, a thin line leads to it."""
    label = axis.annotate(
        name.replace("_", " "), at, (0, 0), textcoords="offset points", fontsize=7,
        arrowprops={"arrowstyle": "-", "lw": 0.4, "color": "0.6", "shrinkA": 0, "shrinkB": 2},
    )  # fmt: skip
    label.set_in_layout(False)
    renderer = axis.figure.canvas.get_renderer()
    for away, angle in product((5, 12, 20, 30, 42, 56, 72, 90, 110), range(12)):
        right, up = away * math.cos(angle * math.pi / 6), away * math.sin(angle * math.pi / 6)
        label.set(position=(right, up), va="center", ha="left" if right > -0.1 else "right")
        label.update_positions(renderer)
        box = Text.get_window_extent(label, renderer)  # without its line
        inside = axis.bbox.contains(box.x0, box.y0) and axis.bbox.contains(box.x0, box.y1)
        if inside and box.x1 <= axis.figure.bbox.x1 and not any(map(box.overlaps, taken)):
            break
    label.arrow_patch.set_visible(away > 12)
    return box
