"""What counterfactual training gives: the robust target, and its rounds as curves and pictures."""

from collections.abc import Mapping
from dataclasses import dataclass

import pandas as pd
import torch
from matplotlib.figure import Figure

from visiondx.core.stats import bootstrap
from visiondx.models.target import Target
from visiondx.show import plots
from visiondx.zoom.counterfactual_training.bank import Round


@dataclass(frozen=True)
class CounterfactualTraining:
    """The robust target, and all rounds: 0 met the regular target, the last the finished one."""

    target: Target
    rounds: tuple[Round, ...]

    def to_frame(self) -> pd.DataFrame:
        """One row a round: the flip resistance and accuracy that it met, with intervals."""
        rows = []
        for part in self.rounds:
            row: dict = {"round": part.number}
            for name, hits in (("flip_resistance", part.withstood), ("accuracy", part.right)):
                found = bootstrap(hits.double().numpy())
                row |= {name: found.value, f"{name}_low": found.low, f"{name}_high": found.high}
            rows.append(row | {"images": len(part.p), "renders": len(part.right)})
        return pd.DataFrame(rows)

    def plot(self, title: str = "") -> Figure:
        """Flip resistance and accuracy over the rounds."""
        return plot_rounds({"": self.to_frame()}, title)

    def plot_bank(self, pairs: int = 5) -> Figure:
        """A row a round: original, counterfactual, ..., with f(x) and f(x̂) as they then were."""
        pairs = min(pairs, len(self.rounds[0].p))
        images, titles = [], []
        for part in self.rounds:
            images.append(part.views[:pairs, :2].flatten(0, 1))
            for before, after in zip(part.p_original[:pairs], part.p[:pairs], strict=True):
                titles += [f"{before:.2f}", f"→ {after:.2f}"]
        rows = [f"after {part.number} rounds" for part in self.rounds]
        return plots.image_grid(torch.cat(images) / 255, titles, 2 * pairs, rows)


def plot_rounds(frames: Mapping[str, pd.DataFrame], title: str = "") -> Figure:
    """Flip resistance and accuracy over the rounds of several trainings: name -> ``to_frame()``."""
    lines = {}
    for training, frame in frames.items():
        for name in ("flip_resistance", "accuracy"):
            columns = {name: "share", f"{name}_low": "low", f"{name}_high": "high"}
            words = " ".join([training, *name.split("_")]).strip()
            lines[words] = frame[["round", *columns]].rename(columns=columns)
    figure = plots.curves(lines, "round", "share", title)
    figure.axes[0].locator_params(axis="x", integer=True)
    return figure
