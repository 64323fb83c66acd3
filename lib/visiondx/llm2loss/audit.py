"""The RMM table: on which attribute does the black box treat two groups most differently?

LLM2Loss, section 4.2.2: the predicted Rawlsian max-min of an attribute is
|score("<attribute>") - score("Not <attribute>")|.
"""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure
from torch import Tensor

from visiondx.core.files import atomic_write
from visiondx.core.stats import Estimate
from visiondx.llm2loss.answers import aggregated, interval, unknown_said
from visiondx.llm2loss.resampling import doubt, titled
from visiondx.show import plots


@dataclass(frozen=True)
class Audit:
    """Scores of A attributes and of their absence, member by member.

    ``unknown`` are the words of each attribute that the encoder cannot know.
    """

    attributes: tuple[str, ...]
    present: Tensor  # (E, A)
    absent: Tensor  # (E, A)
    sign: int  # 1 where a larger score is worse, -1 where it is better
    aggregation: str
    seed: int
    skill: Estimate  # of the loss model, see ``LossModel``
    unknown: tuple[tuple[str, ...], ...] = ()

    @property
    def warning(self) -> str:
        """What to know before one believes any of it; mostly nothing."""
        return doubt(self.skill)

    @property
    def gaps(self) -> Tensor:
        """(E, A) each member's; above 0: the black box is worse where the attribute is present."""
        return self.sign * (self.present - self.absent)

    @property
    def signed(self) -> Tensor:
        """(A,) the ensemble's."""
        return aggregated(self.gaps, self.aggregation)

    @property
    def interval(self) -> tuple[Tensor, Tensor]:
        """(A,), (A,): the ends of the signed gaps' 95 % intervals, see ``answers``."""
        return interval(self.gaps, self.aggregation)

    @property
    def rmm(self) -> Tensor:
        """(A,) |score of the attribute - score of its absence|."""
        return self.signed.abs()

    @property
    def verdict(self) -> list[str]:
        """Of each attribute: "worse with it" or "better with it", "cannot tell", "unknown words",
        or "nothing can be said", by a loss model that knows no more than chance.
        """
        if self.warning:
            return ["nothing can be said"] * len(self.attributes)
        ends = zip(*(end.tolist() for end in self.interval), strict=True)
        found = [
            "worse with it" if low > 0 else "better with it" if high < 0 else "cannot tell"
            for low, high in ends
        ]
        unknown = self.unknown or [()] * len(found)
        return ["unknown words" if words else said for words, said in zip(unknown, found)]

    @cached_property
    def estimates(self) -> dict[str, Estimate]:
        """RMM by attribute, largest first.

        The interval is that of the signed gap without its sign: from 0, where that holds 0.
        """
        low, high = self.interval
        least = (low.clamp_min(0) - high.clamp_max(0)).tolist()
        most = low.abs().maximum(high.abs()).tolist()
        value, members = self.rmm.tolist(), len(self.gaps)
        return {
            self.attributes[i]: Estimate(value[i], least[i], most[i], members)
            for i in self.rmm.argsort(descending=True, stable=True).tolist()
        }

    @property
    def heading(self) -> str:
        return "On which attribute it treats two groups most differently"

    @property
    def said(self) -> list[str]:
        """The attributes about which something can be said; or that there is none."""
        if self.warning:
            return [self.warning]
        found = dict(zip(self.attributes, self.verdict, strict=True))
        told = [name for name in self.estimates if found[name].endswith("with it")]
        said = [f"“{name}”: the model is {found[name]}." for name in told] or [
            "Of none of these attributes it can be told on which side the model is worse."
        ]
        return said + unknown_said(self.unknown)

    def to_frame(self) -> pd.DataFrame:
        """One row an attribute, the largest RMM first."""
        index = {name: i for i, name in enumerate(self.attributes)}
        scores = [aggregated(part, self.aggregation) for part in (self.present, self.absent)]
        rows = []
        for name, estimate in self.estimates.items():
            i = index[name]
            row = {"attribute": name, "present": float(scores[0][i]), "absent": float(scores[1][i])}
            row |= {"rmm": estimate.value, "low": estimate.low, "high": estimate.high}
            row |= {"signed": float(self.signed[i]), "verdict": self.verdict[i]}
            rows.append(row | {"members": estimate.n})
        return pd.DataFrame(rows)

    def plot(self, title: str = "") -> Figure:
        """The RMM of every attribute with its interval, largest first."""
        title = titled(title, self.skill)
        return plots.intervals({"predicted": self.estimates}, title, "predicted RMM")

    def save(self, folder: str | Path) -> None:
        """Write audit.csv."""
        with atomic_write(Path(folder) / "audit.csv") as path:
            self.to_frame().to_csv(path, index=False)
