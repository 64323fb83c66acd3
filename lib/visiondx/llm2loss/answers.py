"""What an ensemble says of sentences: values with their spread, and comparisons of two (Fig. 3).

The members' values are taken for draws of a normal distribution: a further member's lies in the
95 % interval value ± t s √(1 + 1/E), s their standard deviation and t a quantile of Student's
distribution with E - 1 degrees of freedom. Where members resample the examples (``FitSettings``),
s is the bootstrap's standard error, so that the interval is one for what another draw of the
examples would say; of members that differ by their random starts alone it knows nothing of the
examples.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from scipy.special import stdtr, stdtrit
from torch import Tensor

from visiondx.core.files import atomic_write
from visiondx.core.stats import LEVEL, Estimate
from visiondx.core.words import plain
from visiondx.llm2loss.resampling import doubt, titled
from visiondx.show import plots
from visiondx.show.words import figure_text, lend_fonts, wrapped

MEANING = {
    "regressor": "predicted loss",
    "ranker": "rank score (larger: worse)",
    "classifier": "familiarity (log-odds)",
}
QUARTILES = (0.25, 0.5, 0.75)


def aggregated(members: Tensor, aggregation: str) -> Tensor:
    """(E, ...) -> (...): the mean or the median over members."""
    return members.mean(0) if aggregation == "mean" else members.quantile(0.5, 0)


def interval(members: Tensor, aggregation: str) -> tuple[Tensor, Tensor]:
    """(E, ...) -> the two ends (...) of the 95 % interval about the ensemble's value; E >= 2."""
    count, value = len(members), aggregated(members, aggregation)
    reach = stdtrit(count - 1, (1 + LEVEL) / 2) * (1 + 1 / count) ** 0.5 * members.std(0)
    return value - reach, value + reach


def unknown_said(unknown: Sequence[Sequence[str]]) -> list[str]:
    """A sentence on the words that the encoder cannot know; none where there are none."""
    words = list(dict.fromkeys(word for each in unknown for word in each))
    if not words:
        return []
    named = ", ".join(f"“{word}”" for word in words)
    return [f"The encoder does not know {named}: nothing can be said about such words."]


class _OfMembers:
    """What answers and comparisons read from their P columns of E members, and from the skill."""

    @property
    def spread(self) -> Tensor:
        """(P,) standard deviation over members."""
        return self.members.std(0)

    @property
    def interval(self) -> tuple[Tensor, Tensor]:
        """(P,), (P,): the ends of each column's 95 % interval."""
        return interval(self.members, self.aggregation)

    @property
    def warning(self) -> str:
        """What to know before one believes any of it; mostly nothing."""
        return doubt(self.skill)


@dataclass(frozen=True)
class Answers(_OfMembers):
    """The ensemble's values for P prompts.

    ``unknown`` are the words of each prompt that the encoder cannot know.
    """

    prompts: tuple[str, ...]
    members: Tensor  # (E, P)
    kind: str
    aggregation: str
    seed: int
    skill: Estimate  # of the loss model, see ``LossModel``
    unknown: tuple[tuple[str, ...], ...] = ()

    @property
    def value(self) -> Tensor:
        """(P,) the ensemble's answers."""
        return aggregated(self.members, self.aggregation)

    @property
    def heading(self) -> str:
        return "What it says of sentences"

    @property
    def said(self) -> list[str]:
        """The prompts with the largest and the smallest value, and whether that is clear; what is
        not known; or that nothing can be said.
        """
        if self.warning:
            return [self.warning]
        order, said = self._order, []
        if len(order) > 1:
            most, least = self.prompts[order[0]], self.prompts[order[-1]]
            near = [f"“{self.prompts[i]}”" for i in order[1:] if not self._below[i]]
            sure = f"not clearly above {', '.join(near)}" if near else "clearly above all others"
            said.append(
                f"The largest {MEANING[self.kind]} is that of “{most}”, {sure}; the smallest is "
                f"that of “{least}”."
            )
        elif order:
            value, low, high = (float(x[order[0]]) for x in (self.value, *self.interval))
            said.append(
                f"“{self.prompts[order[0]]}”: {MEANING[self.kind]} {value:.2f}, 95 % interval "
                f"{low:.2f} to {high:.2f}."
            )
        return said + unknown_said(self.unknown)

    @property
    def verdict(self) -> list[str]:
        """Of each prompt: "largest", clearly above all others; "perhaps the largest", not clearly
        below another; "not the largest"; "unknown words"; or "nothing can be said".
        """
        if self.warning:
            return ["nothing can be said"] * len(self.prompts)
        order = self._order
        near = [i for i in order if not self._below[i]]
        found = dict.fromkeys(order, "not the largest")
        found |= dict.fromkeys(near, "largest" if len(near) == 1 else "perhaps the largest")
        return [found.get(i, "unknown words") for i in range(len(self.prompts))]

    @property
    def _order(self) -> list[int]:
        """Of the prompts whose words are known, the largest value first."""
        order = self.value.argsort(descending=True, stable=True).tolist()
        return [i for i in order if not (self.unknown and self.unknown[i])]

    @property
    def _below(self) -> Tensor:
        """(P,) bool: clearly below the largest value of known words, member by member."""
        top = self._order[:1] or [0]
        return interval(self.members[:, top] - self.members, self.aggregation)[0] > 0

    def to_frame(self) -> pd.DataFrame:
        """One row a prompt, in the order in which they were asked."""
        return _frame({"prompt": self.prompts}, self).assign(verdict=self.verdict)

    def plot(self, title: str = "") -> Figure:
        """Each prompt's quartiles over members and its interval, largest value first."""
        order = self.value.argsort(descending=True, stable=True)
        names = [_with_unknown(self.prompts[i], self.unknown, i) for i in order.tolist()]
        return _quartile_bars(
            names,
            self.members[:, order],
            MEANING[self.kind],
            titled(title, self.skill),
            tuple(end[order] for end in self.interval),
        )

    def save(self, folder: str | Path) -> None:
        """Write answers.csv."""
        _save(self.to_frame(), folder, "answers")


@dataclass(frozen=True)
class Comparisons(_OfMembers):
    """Differences between P pairs of prompts, member by member; above 0: the black box is worse
    on a than on b (a larger loss or rank score, or less familiar).

    ``unknown`` are the words of each pair that the encoder cannot know.
    """

    a: tuple[str, ...]
    b: tuple[str, ...]
    members: Tensor  # (E, P)
    kind: str
    aggregation: str
    seed: int
    skill: Estimate  # of the loss model, see ``LossModel``
    unknown: tuple[tuple[str, ...], ...] = ()

    @property
    def difference(self) -> Tensor:
        """(P,) the ensemble's."""
        return aggregated(self.members, self.aggregation)

    @property
    def confident(self) -> Tensor:
        """(P,) bool: 0 lies outside the interval, the loss model knows more than chance, and the
        encoder all words.
        """
        low, high = self.interval
        known = torch.tensor([not words for words in self.unknown or [()] * len(self.a)])
        return ((low > 0) | (high < 0)) & known & (not self.warning)

    @property
    def verdict(self) -> list[str]:
        """Of each pair: "worse on the first" or "... second", "cannot tell", "the same sentence",
        "unknown words", or "nothing can be said", by a loss model that knows no more than chance.
        """
        unknown = self.unknown or [()] * len(self.a)
        rows = zip(self.a, self.b, unknown, self.confident.tolist(), self.worse.tolist())
        found = []
        for a, b, words, confident, worse in rows:
            if plain(a) == plain(b):
                found.append("the same sentence")
            elif words:
                found.append("unknown words")
            elif self.warning:
                found.append("nothing can be said")
            elif confident:
                found.append(f"worse on the {'first' if worse else 'second'}")
            else:
                found.append("cannot tell")
        return found

    @property
    def worse(self) -> Tensor:
        """(P,) bool: the ensemble says that the black box is worse on a."""
        return self.difference > 0

    @property
    def probability(self) -> Tensor:
        """(P,) that a is worse, as one further member would say.

        The members' differences are taken for draws of a normal distribution with mean m and
        standard deviation s, both unknown; the next draw is then above 0 with probability
        F(m / (s sqrt(1 + 1/E))), F Student's distribution with E - 1 degrees of freedom: above
        .975 or below .025 where 0 lies outside the interval. It knows nothing of what all members
        have wrong. Where they do not differ: 1, 0, or 1/2 for no difference.
        """
        count = len(self.members)
        value, scale = self.difference.double(), self.spread.double() * (1 + 1 / count) ** 0.5
        sure = (value.sign() + 1) / 2
        z = (value / scale.clamp_min(1e-300)).clamp(-1e15, 1e15)
        found = torch.as_tensor(stdtr(count - 1, z.numpy()))
        return torch.where(scale > 0, found, sure).float()

    @property
    def heading(self) -> str:
        return "Which of two sentences is worse"

    @property
    def said(self) -> list[str]:
        """Of each pair, its verdict; or that nothing can be said."""
        if self.warning:
            return [self.warning]
        rows = zip(self.a, self.b, self.verdict, strict=True)
        said = [f"“{a}” against “{b}”: {verdict}." for a, b, verdict in rows]
        return said + unknown_said(self.unknown)

    def to_frame(self) -> pd.DataFrame:
        """One row a pair: difference, spread, interval, quartiles, probability, verdict."""
        frame = _frame({"a": self.a, "b": self.b}, self)
        frame["probability"], frame["verdict"] = self.probability.numpy(), self.verdict
        return frame

    def plot(self, title: str = "") -> Figure:
        """Fig. 3: quartiles and interval of each difference; right of 0 it is worse on a."""
        pairs = zip(self.a, self.b)
        names = [
            _with_unknown(f"{a}\nagainst {b}", self.unknown, i) for i, (a, b) in enumerate(pairs)
        ]
        text = {
            "regressor": "predicted loss of the first − of the second",
            "ranker": "rank score of the first − of the second",
            "classifier": "familiarity of the second − of the first",
        }[self.kind]
        title = titled(title, self.skill)
        return _quartile_bars(names, self.members, text, title, self.interval, zero=True)

    def save(self, folder: str | Path) -> None:
        """Write comparisons.csv."""
        _save(self.to_frame(), folder, "comparisons")


def _with_unknown(name: str, unknown: Sequence[Sequence[str]], row: int) -> str:
    words = unknown[row] if unknown else ()
    return f"{name}\n(unknown: {', '.join(words)})" if words else name


def _frame(named: dict[str, Sequence[str]], found: "Answers | Comparisons") -> pd.DataFrame:
    """Names, then value, spread, interval, the three quartiles over members, and each member."""
    members = found.members
    columns: dict[str, object] = {
        **named,
        "value": aggregated(members, found.aggregation).numpy(),
        "spread": found.spread.numpy(),
        "low": found.interval[0].numpy(),
        "high": found.interval[1].numpy(),
    }
    quartiles = members.quantile(torch.tensor(QUARTILES, dtype=members.dtype), 0).numpy()
    columns |= dict(zip(("q1", "median", "q3"), quartiles, strict=True))
    columns |= {f"member_{i}": row for i, row in enumerate(members.numpy())}
    return pd.DataFrame(columns)


def _save(frame: pd.DataFrame, folder: str | Path, name: str) -> None:
    with atomic_write(Path(folder) / f"{name}.csv") as path:
        frame.to_csv(path, index=False)


def _quartile_bars(
    names: Sequence[str],
    members: Tensor,
    label: str,
    title: str,
    ends: tuple[Tensor, Tensor],
    zero: bool = False,
) -> Figure:
    """A row a name: a bar from the first to the third quartile, the median, a dot a member.

    Args:
        members: (E, len(names)). ends: of the intervals, which are drawn as thin lines.
        zero: draw the line at 0.
    """
    names = [wrapped(name) for name in names]
    lines = sum(1 + name.count("\n") for name in names)
    height = 0.9 + 0.26 * lines + 0.2 * title.count("\n")
    figure, axis = plt.subplots(figsize=(6.4, height), layout="constrained")
    at, values = np.arange(len(names)), members.double().numpy()
    low, middle, high = np.quantile(values, QUARTILES, axis=0)
    colour = np.where(ends[0].numpy() > 0, plots.FIRST, plots.REST)
    axis.hlines(at, ends[0].numpy(), ends[1].numpy(), color=colour, linewidth=1.5)
    axis.barh(at, high - low, left=low, height=0.5, color=colour, alpha=0.7)
    axis.vlines(middle, at - 0.25, at + 0.25, color=plots.TRUTH, linewidth=2)
    rows = np.broadcast_to(at, values.shape)
    axis.plot(values.ravel(), rows.ravel(), ".", color=plots.TRUTH, markersize=3, alpha=0.5)
    if zero:
        axis.axvline(0, color="0.4", linewidth=1)
    axis.set_yticks(range(len(names)), [figure_text(name) for name in names], fontsize=8)
    axis.set(xlabel=label, ylim=(len(names) - 0.4, -0.6))
    axis.set_title(figure_text(title), fontsize=9)
    axis.spines[["top", "right", "left"]].set_visible(False)
    plt.close(figure)
    return lend_fonts(figure)
