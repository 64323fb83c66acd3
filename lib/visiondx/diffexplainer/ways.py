"""What is searched in a prompt's places: free embeddings, or words of the vocabulary.

A way turns a variable of R rows, one a search, into the tokens that the painter is given:

    Free                  any embedding (Eqs. 2-5)
    Drawn(words)          logits over words, straight-through Gumbel-softmax (section 4.4)
    Nearest(words)        a free embedding, read as the nearest word's (PEZ, Wen et al. 2023)
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from visiondx.core.errors import InputError
from visiondx.core.seeds import step_seed
from visiondx.diffexplainer.hard_prompts import Words, annealed, gumbel
from visiondx.diffexplainer.prompts import SoftPrompt
from visiondx.models.painter import Painter


class Way(ABC):
    """How a variable (R, k, ...) is read as tokens (R, k, d)."""

    @property
    @abstractmethod
    def settings(self) -> tuple:
        """What tells it from other ways, as JSON values."""

    @abstractmethod
    def start(
        self, painter: Painter, prompt: SoftPrompt, explanations: int, starts: int, seed: int
    ) -> Tensor:
        """(E, S, k, ...) where the searches of E explanations begin, S of each."""

    @abstractmethod
    def tokens(self, variable: Tensor, step: int, steps: int, seeds: list[int]) -> Tensor:
        """(R, k, d) at a step of the search, differentiable.

        Args:
            steps: in all. seeds: of each row's own draw at this step.
        """

    @abstractmethod
    def final(self, variable: Tensor) -> Tensor:
        """(R, k, d) that the search has come to."""

    @abstractmethod
    def scores(self, variable: Tensor) -> Tensor | None:
        """(R, k, W), how much speaks for each word; the largest is chosen. None without words."""

    @abstractmethod
    def read(self, variable: Tensor) -> list[list[str]] | None:
        """The words that were chosen, k a row; None of free embeddings."""


def _several(word: str | Sequence[str] | None) -> tuple[str, ...]:
    if word is None:
        return ()
    return (word,) if isinstance(word, str) else tuple(word)


class Free(Way):
    """Any embedding; begins at words, the first at those that are given, the others at drawn ones.

    Args:
        word: one for all explanations, or a list with one for each, such as the classes' labels;
            None in it for an explanation that has no word, a list for one that has several.
    """

    def __init__(self, word: str | Sequence[str | Sequence[str] | None] | None = None) -> None:
        if word is not None and not isinstance(word, str):
            word = tuple(w if w is None or isinstance(w, str) else tuple(w) for w in word)
        self.word = word

    @property
    def settings(self) -> tuple:
        return "free", self.word

    def start(
        self, painter: Painter, prompt: SoftPrompt, explanations: int, starts: int, seed: int
    ) -> Tensor:
        """See ``Way``.

        Raises:
            InputError: another number of words than explanations, or a word without tokens.
        """
        drawn = prompt.start(painter, starts, seed).repeat(explanations, 1, 1, 1)
        each = self.given(explanations)
        if len(each) != explanations:
            raise InputError(
                f"{len(each)} words were given to begin at for {explanations} explanations: "
                "give one for each, or one for all."
            )
        for row, words in enumerate(each):
            for start, word in enumerate(words[:starts]):
                drawn[row, start] = prompt.word(painter, word)
        return drawn

    def given(self, explanations: int) -> list[tuple[str, ...]]:
        """Of each explanation the words to begin at."""
        if self.word is None or isinstance(self.word, str):
            return [_several(self.word)] * explanations
        return [_several(word) for word in self.word]

    def begun_at(self, words: Sequence[Sequence[str]]) -> Free:
        """With more words for each explanation to begin at, after those that are given."""
        own = self.given(len(words))
        return Free([[*first, *then] for first, then in zip(own, words, strict=True)])

    def tokens(self, variable: Tensor, step: int, steps: int, seeds: list[int]) -> Tensor:
        return variable

    def final(self, variable: Tensor) -> Tensor:
        return variable

    def scores(self, variable: Tensor) -> None:
        return None

    def read(self, variable: Tensor) -> None:
        return None


@dataclass(frozen=True)
class Drawn(Way):
    """Words drawn from logits, ever more surely: the temperature falls from first to last."""

    words: Words
    first: float = 1.0
    last: float = 0.1

    @property
    def settings(self) -> tuple:
        return "drawn", self.words.texts, self.first, self.last

    def start(
        self, painter: Painter, prompt: SoftPrompt, explanations: int, starts: int, seed: int
    ) -> Tensor:
        shape = explanations, starts, len(prompt.places), len(self.words)
        return torch.zeros(shape, device=painter.device)

    def tokens(self, variable: Tensor, step: int, steps: int, seeds: list[int]) -> Tensor:
        temperature = annealed(min(step, steps - 1), steps, self.first, self.last)
        return self.words.draw(variable, gumbel(seeds, variable.shape[1:]), temperature)

    def final(self, variable: Tensor) -> Tensor:
        return self.words.chosen(variable)

    def scores(self, variable: Tensor) -> Tensor:
        """The probabilities of being drawn, without the temperature."""
        return variable.softmax(-1)

    def read(self, variable: Tensor) -> list[list[str]]:
        return self.words.read(variable)


@dataclass(frozen=True)
class Nearest(Way):
    """A free embedding whose place the nearest word takes."""

    words: Words

    @property
    def settings(self) -> tuple:
        return "nearest", self.words.texts

    def start(
        self, painter: Painter, prompt: SoftPrompt, explanations: int, starts: int, seed: int
    ) -> Tensor:
        drawn = self.words.start(starts, len(prompt.places), step_seed(seed, 0))
        return drawn.repeat(explanations, 1, 1, 1)

    def tokens(self, variable: Tensor, step: int, steps: int, seeds: list[int]) -> Tensor:
        return self.words.project(variable)

    def final(self, variable: Tensor) -> Tensor:
        return self.words.chosen(self.words.similarity(variable))

    def scores(self, variable: Tensor) -> Tensor:
        """Cosines."""
        return self.words.similarity(variable)

    def read(self, variable: Tensor) -> list[list[str]]:
        return self.words.read(self.words.similarity(variable))
