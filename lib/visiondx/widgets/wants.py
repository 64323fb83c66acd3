"""The state behind the explorer of explanations, without any widget: a target, and what it wants.

A search is made step by step, for somebody to watch; the pictures that show how far it is are
those of the answer, painted of noise that no step is made on.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from visiondx.core.errors import InputError
from visiondx.diffexplainer.explain import Search, Settings
from visiondx.diffexplainer.layers import layers
from visiondx.diffexplainer.objectives import Aim, Objectives, activation, toward
from visiondx.diffexplainer.painting import painted
from visiondx.diffexplainer.result import PICTURES, Explanation, Question
from visiondx.diffexplainer.spurious import DELTA, probabilities
from visiondx.diffexplainer.targets import open_target
from visiondx.models.painter import Painter
from visiondx.models.segmenter import Segmenter
from visiondx.models.target import Target
from visiondx.show.explanation_report import python_lines

# {parameter of `explain`: value} -> lines of Python that open the models, and the shell's command
Lines = Callable[[Mapping[str, object]], tuple[str, str]]
WITH_CLASSES = ("binary", "multiclass")


@dataclass(frozen=True)
class Wish:
    """What a person asks: a class, a channel of a layer, or both (Eqs. 3-5), and how to search.

    kind: the class's label; "" for none. layer: "" for none. word: what to look for in the
    pictures, "" for the label. template, tokens, starts: see ``Settings``.
    """

    kind: str = ""
    layer: str = ""
    channel: int = 0
    word: str = ""
    template: str = "{t}"
    tokens: int = 1
    starts: int = 2
    steps: int = 100
    seed: int = 0

    @property
    def aim(self) -> Aim:
        """Raises InputError where nothing is asked."""
        parts = [toward(self.kind)] if self.kind else []
        parts += [activation(self.layer, self.channel)] if self.layer else []
        if not parts:
            raise InputError("Nothing is asked: choose a class, or a layer and its channel.")
        return sum(parts[1:], parts[0])

    @property
    def words(self) -> dict[str, str]:
        """{class: what to look for}, where it is not the label."""
        return {self.kind: self.word} if self.kind and self.word else {}


@dataclass(frozen=True)
class Watched:
    """Where a search of S starts is: at ``step`` of T.

    path: (T + 1, S) losses, NaN where no step was made. images: (S, P, 3, H, W) of the answer's
    noise, now and then, else None; captions: a text for each of them, S lists of P.
    """

    step: int
    path: Tensor
    images: Tensor | None = None
    captions: Sequence[Sequence[str]] = ()


class WantSession:
    """A target, a painter and a segmenter; what was asked last and what came of it.

    Attributes: ``target``, ``name``; ``layers``, the target's, {name: shape}; ``wish``, what was
    asked last; ``found``, the last answer, or None.

    Args:
        segmenter: None looks for nothing. name: of the target, by which it can be opened again.
        settings: of the searches, but for what a ``Wish`` says. pictures, delta: of the answer.
        watched: pictures of each start that are painted while it is searched, at every ``every``
            steps. lines: how to open the models again, where they have names.

    Raises:
        InputError: a target that has no classes or fails on pictures of the painter's size.
    """

    def __init__(
        self,
        target: Target,
        painter: Painter,
        segmenter: Segmenter | None = None,
        *,
        name: str = "",
        settings: Settings | None = None,
        pictures: int = PICTURES,
        delta: float = DELTA,
        watched: int = 2,
        every: int = 5,
        lines: Lines | None = None,
    ) -> None:
        self.painter, self.segmenter = painter, segmenter
        # no words are tried: a search is watched from its first step on
        self.settings = replace(settings or Settings(), tried=0)
        self.pictures, self.delta = pictures, delta
        self.watched, self.every, self._lines = watched, every, lines
        self._use(target, name)

    def use(self, name: str) -> None:
        """Ask another target, by its name or file.

        Raises:
            InputError: see ``open_target`` and the class; the session is then as it was.
        """
        size, device = self.painter.size, self.painter.device
        self._use(open_target(name.strip(), size, device), name.strip())

    def _use(self, target: Target, name: str) -> None:
        if target.task not in WITH_CLASSES:
            raise InputError(
                f"A {target.task} target has no classes: give one that is binary or multiclass."
            )
        self.layers = layers(target, self.painter.size)
        self.target, self.name = target, name
        self.wish: Wish | None = None
        self.found: Explanation | None = None
        self.run: Search | None = None
        self._trace: list[Tensor] = []

    # ---------------------------------------------------------------- asked and searched

    def ask(self, wish: Wish) -> None:
        """Look at what is asked and get ready to search it.

        Raises:
            InputError: see ``Question.ask`` and ``Search``, or more starts than a batch holds; the
            session is then as it was.
        """
        settings, question = self._settings(wish), self._question(wish)
        run = Search(self.painter, question.aims, settings, question.usual_way, seed=wish.seed)
        self.wish, self.run, self.found, self._trace = wish, run, None, []
        self._asked = question

    def _question(self, wish: Wish) -> Question:
        return Question.ask(
            self.target,
            wish.aim,
            self.painter,
            self.segmenter,
            words=wish.words,
            pictures=self.pictures,
            delta=self.delta,
            seed=wish.seed,
        )

    def _settings(self, wish: Wish) -> Settings:
        given = {name: getattr(wish, name) for name in ("template", "tokens", "starts")}
        descent = replace(self.settings.descent, steps=wish.steps)
        found = replace(self.settings, **given, descent=descent)
        if found.starts * found.noises > found.batch:
            raise InputError(
                f"{found.starts} starts with {found.noises} pictures each are more than a batch of "
                f"{found.batch}, and are watched together: take fewer starts."
            )
        return found

    def steps(self) -> Iterator[Watched]:
        """Search what was asked; where it is, after every step from the start on.

        Raises:
            InputError: nothing was asked.
            FloatingPointError: see ``search``.
        """
        run = self._running()
        rows, last = run.settings.starts, run.settings.descent.steps
        for _ in run.steps():
            step = run.made // rows - 1
            if step % self.every and step != last:
                yield Watched(step, run.path[:, 0])
                continue
            tokens = run.tokens[0]
            self._trace.append(tokens)
            images = self._paint(tokens)
            captions = [self._captions(self._asked, each) for each in images]
            yield Watched(step, run.path[:, 0], images, captions)

    def answer(self) -> Explanation:
        """What is found by the steps that were made.

        Raises:
            InputError: nothing was asked.
            FloatingPointError: see ``Search.found``.
        """
        found = self._running().found()
        self.found = self._asked.answer(found, self._asked.usual_way)
        return self.found

    def _running(self) -> Search:
        if self.run is None:
            raise InputError("Nothing is asked: ask first.")
        return self.run

    def _paint(self, tokens: Tensor) -> Tensor:
        """Tokens (R, k, d) -> (R, watched, 3, H, W), of the answer's first noise."""
        noise = self.painter.noise(self._asked.seeds[: self.watched])
        return painted(self.painter, self.run.prompt, tokens, noise, self.run.settings.batch)

    def film(self, frames: int = 6) -> Tensor:
        """(frames, 3, H, W) at most: how the first picture of the kept start came to be.

        Raises:
            InputError: nothing is found yet.
        """
        if self.found is None or not self._trace:
            raise InputError("Nothing is found yet: search first.")
        kept = int(self.found.found.best[0])
        at = torch.linspace(0, len(self._trace) - 1, min(frames, len(self._trace))).round()
        return self._paint(torch.stack([self._trace[int(i)][kept] for i in at]))[:, 0]

    # ---------------------------------------------------------------- shown and told

    def paint(self, words: str, wish: Wish, count: int) -> tuple[Tensor, list[str]]:
        """Words as they look, on the noise that the answer has: images (count, 3, H, W), captions.

        Args:
            wish: what the captions tell of, and the seed.

        Raises:
            InputError: words that are empty or too many, or see ``Question.ask``.
        """
        question = self._question(wish)
        images = self.painter.generate([words.strip()], question.seeds[:count])[0]
        return images, self._captions(question, images)

    def captions(self, images: Tensor) -> list[str]:
        """Of images (B, 3, H, W): the target's probability of the class, or the activation."""
        return self._captions(self._asked, images)

    @torch.no_grad()
    def _captions(self, question: Question, images: Tensor) -> list[str]:
        (number,) = question.numbers
        if number is not None:
            values = probabilities(self.target, images)[:, number]
        else:
            values = -_losses(question.aims, images)
        return [f"{value:.2f}" for value in values.tolist()]

    def values(self) -> dict[str, object]:
        """What was asked, as the parameters of the notebook ``explain``."""
        told = ("template", "tokens", "starts", "steps", "seed")
        return {
            "target": self.name,
            "what": [str(self.wish.aim)],
            "words": self.wish.words,
            **{name: getattr(self.wish, name) for name in told},
            "eta": self.settings.descent.eta,
            "pictures": self.pictures,
            "delta": self.delta,
        }

    def lines(self) -> tuple[str, str]:
        """Python that makes the last answer, and the command; "" of what has no name.

        Raises:
            InputError: nothing is found yet.
        """
        if self.found is None:
            raise InputError("Nothing is found yet: search first.")
        opened, command = self._lines(self.values()) if self._lines and self.name else ("", "")
        return python_lines(self.found, opened), command


def _losses(aims: Objectives, images: Tensor) -> Tensor:
    """(B,) of images (B, 3, H, W) for one aim, on the CPU."""
    return aims(images[None].to(aims.target.mean.device))[0][0].float().cpu()
