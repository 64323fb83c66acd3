"""The RMM table: on which attribute does the black box treat two groups most differently?

LLM2Loss, section 4.2.2: the predicted Rawlsian max-min of an attribute is
|score("<attribute>") - score("Not <attribute>")|.
"""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from torch import Tensor

from visiondx.core.files import atomic_write
from visiondx.core.stats import Estimate, bootstrap
from visiondx.llm2loss.answers import aggregated
from visiondx.show import plots


@dataclass(frozen=True)
class Audit:
    """Scores of A attributes and of their absence, member by member."""

    attributes: tuple[str, ...]
    present: Tensor  # (E, A)
    absent: Tensor  # (E, A)
    sign: int  # 1 where a larger score is worse, -1 where it is better
    aggregation: str
    seed: int

    @property
    def signed(self) -> Tensor:
        """(A,) above 0: the black box is worse where the attribute is present."""
        return aggregated(self.sign * (self.present - self.absent), self.aggregation)

    @property
    def rmm(self) -> Tensor:
        """(A,) |score of the attribute - score of its absence|."""
        return self.signed.abs()

    @cached_property
    def estimates(self) -> dict[str, Estimate]:
        """RMM by attribute, largest first; the intervals resample the members."""
        statistic = _mean_gap if self.aggregation == "mean" else _median_gap
        gaps = (self.present - self.absent).double().numpy()
        return {
            self.attributes[i]: bootstrap(gaps[:, i], statistic, seed=self.seed)
            for i in self.rmm.argsort(descending=True, stable=True).tolist()
        }

    def to_frame(self) -> pd.DataFrame:
        """One row an attribute, the largest RMM first."""
        index = {name: i for i, name in enumerate(self.attributes)}
        scores = [aggregated(part, self.aggregation) for part in (self.present, self.absent)]
        rows = []
        for name, estimate in self.estimates.items():
            i = index[name]
            row = {"attribute": name, "present": float(scores[0][i]), "absent": float(scores[1][i])}
            row |= {"rmm": estimate.value, "low": estimate.low, "high": estimate.high}
            rows.append(row | {"signed": float(self.signed[i]), "members": estimate.n})
        return pd.DataFrame(rows)

    def plot(self, title: str = "") -> Figure:
        """The RMM of every attribute with its interval, largest first."""
        return plots.intervals({"predicted": self.estimates}, title, "predicted RMM")

    def save(self, folder: str | Path) -> None:
        """Write audit.csv."""
        with atomic_write(Path(folder) / "audit.csv") as path:
            self.to_frame().to_csv(path, index=False)


def _mean_gap(gaps: np.ndarray) -> float:
    return abs(float(np.mean(gaps)))


def _median_gap(gaps: np.ndarray) -> float:
    return abs(float(np.median(gaps)))
