"""Accuracy of models under shifts, as ``measure.measure`` finds it.

Tables, figures (Figs. 8 and 9) and sentences: what each shift costs, and whether better models lose
less.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from visiondx.core.errors import InputError
from visiondx.core.files import atomic_write
from visiondx.core.stats import Estimate, proportion

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from matplotlib.figure import Figure

LEAST = 5  # images that a class must have left (appendix A.5)
FEWEST = 3  # models that a slope is drawn through
ENDS = ("", "_low", "_high")


@dataclass(frozen=True)
class Robustness:
    """M models under S shifts. Of arrays that end in 3: value, low and high; NaN where none is.

    Attributes:
        shifts: S, without the base. classes: C.
        accuracy, base, drop: (M, S, 3), under the shift, of the base over the same classes, and
            base - accuracy.
        impact: (S, 3), the drop's mean over models. slope: (S, 3), NaN of fewer than three models.
        own: (M, 3), of the base over all classes that have enough images.
        counted: (S, C) bool, the classes that a shift's figures are of.
        images, drawn: (1 + S, C) images that were answered, and that there were before filtering.
        least, draws, seed: of a class's images, and of the intervals.
    """

    models: tuple[str, ...]
    shifts: tuple[str, ...]
    classes: tuple[str, ...]
    accuracy: np.ndarray
    base: np.ndarray
    drop: np.ndarray
    impact: np.ndarray
    slope: np.ndarray
    own: np.ndarray
    counted: np.ndarray
    images: np.ndarray
    drawn: np.ndarray
    least: int = LEAST
    draws: int = 1000
    seed: int = 0

    @property
    def heading(self) -> str:
        return "Accuracy under each shift"

    @property
    def said(self) -> list[str]:
        """The largest impact, the slopes, and what nothing can be said of."""
        order = self._ranked()
        lines = []
        if order:
            worst = order[0]
            value, low, high = self.impact[worst]
            many = "" if len(self.models) == 1 else f", on average over {len(self.models)} models"
            lines.append(
                f"“{said(self.shifts[worst])}” costs most: {100 * value:.0f} points of accuracy "
                f"({100 * low:.0f} to {100 * high:.0f}){many}, against the base images of the same "
                "classes."
            )
            clear = [s for s in order if self.impact[s, 1] > 0]
            lines.append(
                f"{len(clear)} of {len(order)} shifts surely cost accuracy (the 95 % interval "
                "lies above 0)."
            )
        sloped = [s for s in order if np.isfinite(self.slope[s]).all()]
        if len(sloped) > 1:
            low, high = (f(sloped, key=lambda s: self.slope[s, 0]) for f in (min, max))
            lines.append(
                "What a point of base accuracy is worth under the shift, the ID/OOD slope, goes "
                f"from {self.slope[low, 0]:.2f} (“{said(self.shifts[low])}”) to "
                f"{self.slope[high, 0]:.2f} (“{said(self.shifts[high])}”)."
            )
        left = [said(self.shifts[s]) for s in range(len(self.shifts)) if s not in order]
        if left:
            named = ", ".join(f"“{name}”" for name in left)
            lines.append(
                f"Nothing can be said of {named}: no class has {self.least} images left, there "
                "and in the base."
            )
        return lines

    def to_frame(self) -> pd.DataFrame:
        """A row a model and shift: model, shift, accuracy, base and drop, each with _low and _high
        beside it, classes, images.
        """
        rows = []
        for m, model in enumerate(self.models):
            for s, shift in enumerate(self.shifts):
                row = {"model": model, "shift": shift}
                for name in ("accuracy", "base", "drop"):
                    row |= _fields(name, getattr(self, name)[m, s])
                rows.append(row | self._counts(s))
        return pd.DataFrame(rows)

    def shift_frame(self) -> pd.DataFrame:
        """A row a shift, the largest impact first: shift, impact and slope, each with _low and
        _high, classes, images, yield (the share of images that passed the filter).
        """
        rest = [s for s in range(len(self.shifts)) if s not in self._ranked()]
        rows = []
        for s in [*self._ranked(), *rest]:
            row = {"shift": self.shifts[s]} | _fields("impact", self.impact[s])
            row |= _fields("slope", self.slope[s]) | self._counts(s)
            rows.append(row | {"yield": self.images[1 + s].sum() / self.drawn[1 + s].sum()})
        return pd.DataFrame(rows)

    def model_frame(self) -> pd.DataFrame:
        """A row a model, the best on the base first: model, base with _low and _high, drop (the
        mean over shifts), worst (the shift of the largest drop), worst_drop.
        """
        order, rows = self._ranked(), []
        for m, model in enumerate(self.models):
            row = {"model": model} | _fields("base", self.own[m])
            if order:
                worst = max(order, key=lambda s: self.drop[m, s, 0])
                row |= {"drop": self.drop[m, order, 0].mean(), "worst": self.shifts[worst]}
                row["worst_drop"] = self.drop[m, worst, 0]
            rows.append(row)
        return pd.DataFrame(rows).sort_values("base", ascending=False, ignore_index=True)

    def metrics(self) -> dict[str, Estimate]:
        """For ``record``: impact.<shift>, slope.<shift> and base.<model>; yield.<shift> and .base
        where images were left out.
        """
        found = {}
        for s, shift in enumerate(self.shifts):
            n = self._counts(s)["images"]
            kinds = (("impact", self.impact[s], n), ("slope", self.slope[s], len(self.models)))
            for name, values, count in kinds:
                if np.isfinite(values).all():
                    found[f"{name}.{shift}"] = Estimate(*map(float, values), count)
        filtered = (self.images != self.drawn).any()
        for row, shift in enumerate(("base", *self.shifts) if filtered else ()):
            passed, drawn = int(self.images[row].sum()), int(self.drawn[row].sum())
            found[f"yield.{shift}"] = proportion(np.arange(drawn) < passed)
        n = int(self.images[0].sum())
        for model, values in zip(self.models, self.own, strict=True):
            found[f"base.{model}"] = Estimate(*map(float, values), n)
        return found

    def plot(self, title: str = "") -> Figure:
        """A heat map of what each shift costs each model, the largest impact at the left."""
        from visiondx.show import plots

        order = self._ranked()
        best = np.argsort(-self.own[:, 0], kind="stable")
        frame = pd.DataFrame(
            self.drop[np.ix_(best, order, [0])][:, :, 0],
            index=[_brief(self.models[m]) for m in best],
            columns=[said(self.shifts[s]) for s in order],
        )
        return plots.matrix(frame, title or "base accuracy - accuracy under the shift")

    def plot_lines(self, shifts: Sequence[str] = (), title: str = "") -> Figure:
        """Fig. 8: accuracy under a shift over that of the base, a dot a model, a panel a shift.

        shifts: these; none given, the four with the largest and smallest slopes.
        """
        from visiondx.show import plots

        return plots.fitted_lines(self._points(shifts), "base accuracy", "under the shift", title)

    def plot_plane(self, title: str = "", beside: Mapping[str, Robustness] | None = None) -> Figure:
        """Fig. 9: each shift's ID/OOD slope over its absolute impact, with both intervals.

        beside: others by their titles, such as the truth, each a panel on the same axes.
        """
        from visiondx.show import plots

        every = {title: self, **(beside or {})}
        panels = {name: each._plane() for name, each in every.items()}
        return plots.named_points(panels, "absolute impact", "ID/OOD slope")

    def _plane(self) -> tuple[list[str], np.ndarray, np.ndarray]:
        """Names, impacts and slopes (S, 3) of the shifts that have both."""
        shown = [s for s in self._ranked() if np.isfinite(self.slope[s]).all()]
        if not shown:
            raise InputError(f"No shift has a slope: that takes {FEWEST} models that differ.")
        return [said(self.shifts[s]) for s in shown], self.impact[shown], self.slope[shown]

    def save(self, folder: str | Path) -> None:
        """Write robustness.csv, shifts.csv, models.csv and verdict.txt."""
        frames = {
            "robustness": self.to_frame(),
            "shifts": self.shift_frame(),
            "models": self.model_frame(),
        }
        for name, frame in frames.items():
            with atomic_write(Path(folder) / f"{name}.csv") as path:
                frame.to_csv(path, index=False)
        with atomic_write(Path(folder) / "verdict.txt") as path:
            path.write_text("\n".join(self.said) + "\n", encoding="utf-8")

    def _points(self, shifts: Sequence[str]) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        order = self._ranked()
        for name in shifts:
            if name not in self.shifts or self.shifts.index(name) not in order:
                some = ", ".join(self.shifts[s] for s in order)
                raise InputError(f"There is no shift {name!r} to show: choose from {some}.")
        chosen = [self.shifts.index(name) for name in shifts]
        if not chosen:
            by_slope = sorted(order, key=lambda s: np.nan_to_num(self.slope[s, 0]))
            chosen = list(dict.fromkeys([*by_slope[:2], *by_slope[-2:]]))
        return {said(self.shifts[s]): (self.base[:, s, 0], self.accuracy[:, s, 0]) for s in chosen}

    def _ranked(self) -> list[int]:
        """Shifts that anything can be said of, the largest impact first."""
        value = self.impact[:, 0]
        order = np.argsort(-np.nan_to_num(value, nan=-np.inf), kind="stable")
        return [int(s) for s in order if np.isfinite(value[s])]

    def _counts(self, shift: int) -> dict[str, int]:
        own = self.counted[shift]
        return {"classes": int(own.sum()), "images": int(self.images[1 + shift, own].sum())}


def _brief(name: str) -> str:
    """A model's name as a figure has room for it."""
    return name if len(name) <= 40 else f"…{name[-39:]}"


def said(name: str) -> str:
    """A shift's folder as a person says it: "in_the_grass" -> "in the grass"."""
    return name.replace("_", " ")


def _fields(name: str, values: np.ndarray) -> dict[str, float]:
    return {f"{name}{end}": float(value) for end, value in zip(ENDS, values, strict=True)}
