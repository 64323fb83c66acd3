"""What an ensemble says of sentences: values with their spread, and comparisons of two (Fig. 3)."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.special import stdtr
from torch import Tensor

from visiondx.core.files import atomic_write
from visiondx.show import plots
from visiondx.show.words import figure_text, lend_fonts

MEANING = {
    "regressor": "predicted loss",
    "ranker": "rank score (larger: worse)",
    "classifier": "familiarity (log-odds)",
}
QUARTILES = (0.25, 0.5, 0.75)


def aggregated(members: Tensor, aggregation: str) -> Tensor:
    """(E, ...) -> (...): the mean or the median over members."""
    return members.mean(0) if aggregation == "mean" else members.quantile(0.5, 0)


@dataclass(frozen=True)
class Answers:
    """The ensemble's values for P prompts."""

    prompts: tuple[str, ...]
    members: Tensor  # (E, P)
    kind: str
    aggregation: str
    seed: int

    @property
    def value(self) -> Tensor:
        """(P,) the ensemble's answers."""
        return aggregated(self.members, self.aggregation)

    @property
    def spread(self) -> Tensor:
        """(P,) standard deviation over members; 0 of a single one."""
        return self.members.std(0, correction=1 if len(self.members) > 1 else 0)

    def to_frame(self) -> pd.DataFrame:
        """One row a prompt, in the order in which they were asked."""
        return _frame({"prompt": self.prompts}, self.value, self.spread, self.members)

    def plot(self, title: str = "") -> Figure:
        """Each prompt's quartiles over members, largest value first; a dot a member."""
        order = self.value.argsort(descending=True, stable=True)
        names = [self.prompts[i] for i in order.tolist()]
        return quartile_bars(names, self.members[:, order], MEANING[self.kind], title)

    def save(self, folder: str | Path) -> None:
        """Write answers.csv."""
        _save(self.to_frame(), folder, "answers")


@dataclass(frozen=True)
class Comparisons:
    """Differences between P pairs of prompts, member by member; above 0: the black box is worse
    on a than on b (a larger loss or rank score, or less familiar).
    """

    a: tuple[str, ...]
    b: tuple[str, ...]
    members: Tensor  # (E, P)
    kind: str
    aggregation: str
    seed: int

    @property
    def difference(self) -> Tensor:
        """(P,) the ensemble's."""
        return aggregated(self.members, self.aggregation)

    @property
    def spread(self) -> Tensor:
        """(P,) standard deviation over members; 0 of a single one."""
        return self.members.std(0, correction=1 if len(self.members) > 1 else 0)

    @property
    def agree(self) -> Tensor:
        """(P,) bool: all members give the difference one sign."""
        return (self.members > 0).all(0) | (self.members < 0).all(0)

    @property
    def worse(self) -> Tensor:
        """(P,) bool: the ensemble says that the black box is worse on a."""
        return self.difference > 0

    @property
    def probability(self) -> Tensor:
        """(P,) that a is worse, as one further member would say.

        The members' differences are taken for draws of a normal distribution whose mean m and
        standard deviation s are unknown; the next draw is then above 0 with probability
        F(m / (s sqrt(1 + 1/E))), F Student's distribution with E - 1 degrees of freedom. It
        knows of the members' random starts only, not of what they all have wrong. Where they do
        not differ, or there is but one: 1, 0, or 1/2 for no difference.
        """
        count = len(self.members)
        mean, scale = self.members.double().mean(0), self.spread.double() * (1 + 1 / count) ** 0.5
        sure = (mean.sign() + 1) / 2
        z = (mean / scale.clamp_min(1e-300)).clamp(-1e15, 1e15)
        found = torch.as_tensor(stdtr(max(count - 1, 1), z.numpy()))
        return torch.where(scale > 0, found, sure).float()

    def to_frame(self) -> pd.DataFrame:
        """One row a pair: difference, spread, quartiles, probability that a is worse, agreement."""
        frame = _frame({"a": self.a, "b": self.b}, self.difference, self.spread, self.members)
        frame["probability"], frame["agree"] = self.probability.numpy(), self.agree.numpy()
        return frame

    def plot(self, title: str = "") -> Figure:
        """Fig. 3: the quartiles of each difference; right of 0 the black box is worse on a."""
        names = [f"{a}\nagainst {b}" for a, b in zip(self.a, self.b)]
        text = {
            "regressor": "predicted loss of the first − of the second",
            "ranker": "rank score of the first − of the second",
            "classifier": "familiarity of the second − of the first",
        }[self.kind]
        return quartile_bars(names, self.members, text, title, zero=True)

    def save(self, folder: str | Path) -> None:
        """Write comparisons.csv."""
        _save(self.to_frame(), folder, "comparisons")


def _frame(
    named: dict[str, Sequence[str]], value: Tensor, spread: Tensor, members: Tensor
) -> pd.DataFrame:
    """Names, then value, spread, the three quartiles over members, and each member."""
    columns: dict[str, object] = {**named, "value": value.numpy(), "spread": spread.numpy()}
    quartiles = members.quantile(torch.tensor(QUARTILES, dtype=members.dtype), 0).numpy()
    columns |= dict(zip(("q1", "median", "q3"), quartiles, strict=True))
    columns |= {f"member_{i}": row for i, row in enumerate(members.numpy())}
    return pd.DataFrame(columns)


def _save(frame: pd.DataFrame, folder: str | Path, name: str) -> None:
    with atomic_write(Path(folder) / f"{name}.csv") as path:
        frame.to_csv(path, index=False)


def quartile_bars(
    names: Sequence[str], members: Tensor, label: str, title: str = "", zero: bool = False
) -> Figure:
    """A row a name: a bar from the first to the third quartile, the median, a dot a member.

    Args:
        members: (E, len(names)). zero: draw the line at 0.
    """
    lines = sum(1 + name.count("\n") for name in names)
    figure, axis = plt.subplots(figsize=(6.4, 0.9 + 0.26 * lines), layout="constrained")
    _bars(axis, members.double().numpy())
    if zero:
        axis.axvline(0, color="0.4", linewidth=1)
    axis.set_yticks(range(len(names)), [figure_text(name) for name in names], fontsize=8)
    axis.set(xlabel=label, title=figure_text(title), ylim=(len(names) - 0.4, -0.6))
    axis.spines[["top", "right", "left"]].set_visible(False)
    plt.close(figure)
    return lend_fonts(figure)


def _bars(axis: Axes, members: np.ndarray) -> None:
    at = np.arange(members.shape[1])
    low, middle, high = np.quantile(members, QUARTILES, axis=0)
    colour = np.where(low > 0, plots.FIRST, plots.REST)
    axis.barh(at, high - low, left=low, height=0.5, color=colour, alpha=0.7)
    axis.vlines(middle, at - 0.25, at + 0.25, color=plots.TRUTH, linewidth=2)
    rows = np.broadcast_to(at, members.shape)
    axis.plot(members.ravel(), rows.ravel(), ".", color=plots.TRUTH, markersize=4, alpha=0.6)
