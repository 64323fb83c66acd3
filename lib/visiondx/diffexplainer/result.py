"""The main job: what does a class or a neuron want to see, and is the object even there?

result = explain(target, "dog", painter, segmenter)
result.sentences()                     # the verdict
result.plot()                          # pictures, a row an aim
result.to_frame(); result.save("out")
write_explanation(result, "out", title="What it wants")    # of show.explanation_report: one page
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from safetensors.torch import save_file
from torch import Tensor

from visiondx.core.files import atomic_write
from visiondx.core.seeds import step_seed
from visiondx.core.stats import Estimate, bootstrap, proportion
from visiondx.diffexplainer.explain import Found, Settings, search
from visiondx.diffexplainer.hard_prompts import Words
from visiondx.diffexplainer.objectives import Aim, Objectives, aim, one_class
from visiondx.diffexplainer.question import check_counts
from visiondx.diffexplainer.spurious import (
    CORE,
    DELTA,
    REACHED,
    SPURIOUS,
    UNKNOWN,
    probabilities,
    words_of,
)
from visiondx.diffexplainer.ways import Free, Way
from visiondx.models.painter import Painter
from visiondx.models.segmenter import Segmenter
from visiondx.models.target import Target
from visiondx.show import plots

_SHOWN = 6  # kind of draw out of one seed
NEAREST = 5  # words that are told of a searched token
PICTURES = 32  # that a verdict stands on


@dataclass(frozen=True)
class Explanation:
    """E aims as pictures of noise that no search saw, and what target and segmenter say of them.

    names: the aims as text. classes: the one class that an aim asks for, or None. images: (E, P, 3,
    H, W). p: (E, P), the target's probability of the class; NaN without one. taken: (E, P) bool,
    whether the class is its likeliest. words: what to look for, or None without class or segmenter;
    known: whether the segmenter can. r: (E, P), fraction of the picture that it covers; NaN where
    nothing was looked for. near: of each aim, for each token, the nearest words of the vocabulary.
    masks: (E, P, H, W) bool, where the segmenter sees the word; empty where nothing was looked for.
    way: the settings of the way that the prompts were searched in.
    """

    names: tuple[str, ...]
    classes: tuple[str | None, ...]
    found: Found
    images: Tensor
    p: Tensor
    taken: Tensor
    words: tuple[str | None, ...]
    known: tuple[bool, ...]
    r: Tensor
    near: list[list[list[str]]]
    delta: float
    masks: Tensor
    way: tuple

    @property
    def heading(self) -> str:
        return "What it wants to see"

    @property
    def said(self) -> list[str]:
        """The verdict's lines."""
        return self.sentences()

    @property
    def reached(self) -> Tensor:
        """(E,): share of the pictures that the target takes for the class; NaN without one."""
        return torch.where(self.p.isnan().any(1), torch.nan, self.taken.float().mean(1))

    def sentences(self) -> list[str]:
        """The verdict, one sentence an aim."""
        return [self._sentence(row) for row in range(len(self.names))]

    def _sentence(self, row: int) -> str:
        name, kind, word = self.names[row], self.classes[row], self.words[row]
        near = ", ".join(words[0] for words in self.near[row])
        told = f"{name} (nearest words: {near}): "
        if kind is None:
            return told + "these are the pictures that the search came to."
        told += f"the target takes {self.reached[row].item():.0%} of the pictures for {kind}"
        if not self.shows(row):
            return told + ", so they do not show what it wants: search longer, or from more starts."
        if word is None:
            return told + "; whether the object is there was not looked at."
        if not self.known[row]:
            return f"{told}; the segmenter has never seen the word {word!r}, so give another."
        r = self.share_covered(row)
        there = f"there: {word} covers {r.value:.0%} [{r.low:.0%}, {r.high:.0%}] of them"
        if r.low < self.delta <= r.high:
            there += f", and the line is drawn at {self.delta:.0%}, so more pictures could turn it"
        if r.value >= self.delta:
            return f"{told}, and the object is {there}."
        return f"{told}, but the object is not {there}. It goes by something else."

    def verdict(self, row: int) -> str:
        """Of an aim: "core" or "spurious" (Eq. 6); "unknown" where ``sentences`` say why."""
        if self.classes[row] is None or not self.known[row] or not self.shows(row):
            return UNKNOWN
        return CORE if self.share_covered(row).value >= self.delta else SPURIOUS

    def shows(self, row: int) -> bool:
        """Whether an aim's pictures show what it asks for: half are taken for the class, if any."""
        return self.classes[row] is None or bool(self.reached[row] >= REACHED)

    def share_taken(self, row: int) -> Estimate | None:
        """Of an aim, the share of its pictures that the target takes for the class; None if none.

        With Wilson's interval, over pictures.
        """
        return None if self.classes[row] is None else proportion(self.taken[row].numpy())

    def share_covered(self, row: int) -> Estimate | None:
        """Of an aim, the mean of r with its interval; None where nothing was looked for."""
        return bootstrap(self.r[row].double().numpy()) if self.known[row] else None

    def metrics(self) -> dict[str, Estimate | float]:
        """Flat, for ``runs.record``: of each aim what is known of reached, r, loss and spread."""
        found: dict[str, Estimate | float] = {}
        for row, name in enumerate(self.names):
            shares = {"reached": self.share_taken(row), "r": self.share_covered(row)}
            found |= {f"{key}.{name}": e for key, e in shares.items() if e is not None}
            found[f"loss.{name}"] = float(self.found.losses[row].min())
            if self.found.losses.shape[1] > 1:
                found[f"spread.{name}"] = float(self.found.spread[row])
        return found

    def to_frame(self) -> pd.DataFrame:
        """A row an aim: reached, mean p, r with its interval, held loss, spread, nearest words."""
        rows = []
        for row, name in enumerate(self.names):
            r = self.share_covered(row)
            rows.append(
                {
                    "aim": name,
                    "class": self.classes[row],
                    "reached": float(self.reached[row]),
                    "p": float(self.p[row].mean()),
                    "r": r.value if r else np.nan,
                    "low": r.low if r else np.nan,
                    "high": r.high if r else np.nan,
                    "loss": float(self.found.losses[row].min()),
                    "spread": float(self.found.spread[row]),
                    "near": " ".join("/".join(words[:2]) for words in self.near[row]),
                }
            )
        return pd.DataFrame(rows)

    def plot(self, columns: int = 8) -> Figure:
        """The first pictures of each aim, with the target's probability where there is a class."""
        shown = self.images[:, :columns]
        titles = [
            "" if np.isnan(value) else f"{value:.2f}"
            for value in self.p[:, :columns].flatten().tolist()
        ]
        return plots.image_grid(
            shown.flatten(0, 1), titles, columns=shown.shape[1], rows=list(self.names)
        )

    def plot_search(self, row: int) -> Figure:
        """The loss of an aim over the steps, a line a start, each step on its own fresh noise."""
        best = int(self.found.best[row])
        steps = torch.arange(len(self.found.path)).tolist()
        logs = {
            f"start {start}" + (", kept" if start == best else ""): pd.DataFrame(
                {"step": steps, "loss": self.found.path[:, row, start].numpy()}
            )
            for start in range(self.found.path.shape[2])
        }
        return plots.training_curve(logs, ["loss"])

    def save(self, folder: str | Path) -> None:
        """explanation.csv, verdict.txt, pictures.png, tokens.safetensors and settings.json."""
        folder = Path(folder)
        with atomic_write(folder / "verdict.txt") as path:
            path.write_text("\n".join(self.said) + "\n", encoding="utf-8")
        with atomic_write(folder / "explanation.csv") as path:
            self.to_frame().to_csv(path, index=False)
        with atomic_write(folder / "pictures.png") as path:
            self.plot().savefig(path, dpi=150)
        with atomic_write(folder / "tokens.safetensors") as path:
            save_file({"soft": self.found.soft, "losses": self.found.losses}, path)
        about = {
            "aims": self.names,
            "template": self.found.prompt.template,
            "settings": asdict(self.found.settings),
            "seed": self.found.seed,
            "delta": self.delta,
            "way": self.way,
            "sentences": self.sentences(),
        }
        with atomic_write(folder / "settings.json") as path:
            path.write_text(json.dumps(about, indent=1))


@dataclass(frozen=True)
class Question:
    """What ``explain`` is asked: looked at, not yet searched.

    numbers: of each of E aims the one class that it asks for, or None. words: what to look for, or
    None without class or segmenter. pictures, delta, seed: see ``explain``.
    """

    target: Target
    painter: Painter
    segmenter: Segmenter | None
    aims: Objectives
    numbers: tuple[int | None, ...]
    words: tuple[str | None, ...]
    pictures: int
    delta: float
    seed: int

    @classmethod
    def ask(
        cls,
        target: Target,
        what: Aim | str | int | Sequence[Aim | str | int],
        painter: Painter,
        segmenter: Segmenter | None = None,
        *,
        words: Mapping[str | int, str] | None = None,
        pictures: int = PICTURES,
        delta: float = DELTA,
        seed: int = 0,
    ) -> Question:
        """See ``explain``.

        Raises:
            InputError: see ``Objectives``, ``words_of``; too few pictures, or an impossible delta.
        """
        asked = [what] if isinstance(what, Aim | str | int) else list(what)
        check_counts(pictures, delta)
        aims = [aim(each, target.labels) for each in asked]
        objectives = Objectives(target, aims, painter.size)
        numbers = [one_class(target, each) for each in aims]
        sought = iter(words_of(target, [n for n in numbers if n is not None], words))
        look = [None if number is None else next(sought) for number in numbers]
        if segmenter is None:
            look = [None] * len(numbers)
        given = target, painter, segmenter, objectives, tuple(numbers), tuple(look)
        return cls(*given, pictures, delta, seed)

    @property
    def usual_way(self) -> Way:
        """Free tokens; of an aim for one class the first start is at its label."""
        labels = self.target.labels
        return Free([None if number is None else labels[number] for number in self.numbers])

    @property
    def seeds(self) -> list[int]:
        """Of the pictures: noise that no search sees."""
        return [step_seed(step_seed(self.seed, _SHOWN), index) for index in range(self.pictures)]

    def answer(self, found: Found, way: Way) -> Explanation:
        """The pictures of what was found, and what target and segmenter say of them.

        Args:
            way: that it was searched in.
        """
        images = found.images(self.painter, self.seeds)
        known = [word is not None and self.segmenter.knows(word) for word in self.words]
        masks = _masks(self.segmenter, images, self.words, known)
        shares = masks.flatten(2).float().mean(2)
        shares[~torch.tensor(known)] = torch.nan
        p, taken = answers(self.target, images, self.numbers)
        vocabulary = Words.of(self.painter)
        tokens, count = found.tokens.to(self.painter.device), min(NEAREST, len(vocabulary))
        labels = self.target.labels
        return Explanation(
            self.aims.names,
            tuple(None if number is None else labels[number] for number in self.numbers),
            found,
            images,
            p,
            taken,
            self.words,
            tuple(known),
            shares,
            vocabulary.likeliest(vocabulary.similarity(tokens), count),
            self.delta,
            masks,
            way.settings,
        )


def explain(
    target: Target,
    what: Aim | str | int | Sequence[Aim | str | int],
    painter: Painter,
    segmenter: Segmenter | None = None,
    *,
    words: Mapping[str | int, str] | None = None,
    settings: Settings | None = None,
    way: Way | None = None,
    pictures: int = PICTURES,
    delta: float = DELTA,
    seed: int = 0,
    kept: str | Path | None = None,
) -> Explanation:
    """What classes, channels or neurons want to see (DiffExplainer, Eqs. 3-5).

    Args:
        what: an aim or a list of them, see ``diffexplainer.objectives``: "dog", 3, "layer4:17",
            "dog + fc.input:8".
        segmenter: looks for the object of each aim that asks for one class.
        words: {class, by label or number: what to look for}, where it is not the label.
        settings, way: of the searches; without a way free tokens, whose first start is at the
            class's label, the others at the words that please most.
        pictures: that the verdict stands on. delta: of Eq. 6, what the object must cover.
        kept: a folder that keeps the searches.

    Raises:
        InputError: see ``Objectives``, ``SoftPrompt.parse``, ``search``.
    """
    question = Question.ask(
        target, what, painter, segmenter, words=words, pictures=pictures, delta=delta, seed=seed
    )
    way = way or question.usual_way
    found = search(painter, question.aims, settings, way, seed=seed, kept=kept)
    return question.answer(found, way)


def _masks(
    segmenter: Segmenter | None,
    images: Tensor,
    words: Sequence[str | None],
    known: Sequence[bool],
) -> Tensor:
    """(E, P, H, W) bool: where the segmenter sees each row's word; empty where it has none."""
    found = torch.zeros(images.shape[:2] + images.shape[3:], dtype=torch.bool)
    for row, word in enumerate(words):
        if known[row]:
            found[row] = segmenter(images[row], [word]).masks[:, 0].cpu()
    return found


def answers(target: Target, images: Tensor, numbers: Sequence[int | None]) -> tuple[Tensor, Tensor]:
    """(E, P): the probability of each row's class, NaN without one, and whether it is likeliest."""
    p = torch.full(images.shape[:2], torch.nan)
    taken = torch.zeros(images.shape[:2], dtype=torch.bool)
    for row, number in enumerate(numbers):
        if number is not None:
            every = probabilities(target, images[row])
            p[row], taken[row] = every[:, number], every.argmax(1) == number
    return p, taken
