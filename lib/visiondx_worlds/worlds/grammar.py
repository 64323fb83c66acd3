"""What every world's grammar shares: its words, the half held out of training, and prompts."""

from __future__ import annotations

import copy
import random
from abc import ABC, abstractmethod
from functools import cached_property
from typing import TYPE_CHECKING

from visiondx.core.errors import InputError
from visiondx.core.files import data_dir, read_yaml, reading

if TYPE_CHECKING:
    from collections.abc import Mapping

    from visiondx_worlds.worlds.base import Attributes, World


def article(phrase: str) -> str:
    """`phrase` with its indefinite article."""
    return ("an " if phrase[0] in "aeiou" else "a ") + phrase


def read_words(file: str) -> dict:
    """A file of data/prompts. Raises InputError where it is missing or damaged."""
    return read_yaml(data_dir() / "prompts" / file)


class Grammar(ABC):
    """The words of one world, from ``data/prompts/<world>.yaml`` and ``heldout.yaml``."""

    def __init__(self, world: str) -> None:
        self.world = world

    @cached_property
    def words(self) -> dict:
        """The training half."""
        return read_words(f"{self.world}.yaml")

    @cached_property
    def heldout(self) -> dict:
        """Templates, phrases and combinations that training never shows."""
        with reading(
            data_dir() / "prompts" / "heldout.yaml", "restore it with 'git checkout data'"
        ):
            return read_words("heldout.yaml")[self.world]

    @cached_property
    def apart(self) -> set[frozenset]:
        """The pairs that no training caption names together."""
        return {frozenset(pair) for pair in self.heldout["combinations"]}

    @property
    def neutral(self) -> str:
        """The prompt that names no attribute."""
        return self.words["neutral"]

    def templates(self, heldout: bool, name: str = "") -> list[str]:
        """The sentences of the chosen half, around a phrase that names `name`."""
        return (self.heldout if heldout else self.words)["templates"]

    def prompt(
        self, name: str, present: bool = True, seed: int | None = None, heldout: bool = False
    ) -> str:
        """One prompt that names one attribute; see `visiondx_worlds.worlds.base.World.prompt`."""
        if name not in self.heldout["phrases"]:
            known = ", ".join(self.heldout["phrases"])
            raise InputError(f"Unknown attribute {name!r}: choose from {known}.")
        if seed is None and not heldout:
            return self.plain(name, present)
        rng = random.Random(f"{seed} {name} {present}")
        phrase = rng.choice(self.phrases(name, present, heldout))
        return rng.choice(self.templates(heldout, name)).format(phrase)

    def saying(self, word: str) -> Grammar:
        """The same grammar, in those of its training sentences only that say `word`.

        Raises:
            InputError: none of them does.
        """
        other = copy.copy(self)
        kept = [sentence for sentence in self.words["templates"] if word in sentence.split()]
        if not kept:
            raise InputError(f"No sentence about {self.world} says {word!r}.")
        other.words = {**self.words, "templates": kept}
        return other

    @abstractmethod
    def captions(
        self, world: World, attributes: Attributes, seed: int, wrong: bool = False
    ) -> list[str]:
        """One training caption an image; the same seed gives the same captions.

        wrong: each with one thing changed, so that it is false.
        """

    @abstractmethod
    def phrases(self, name: str, present: bool, heldout: bool) -> list[str]:
        """Every phrase of the chosen half that names one attribute, each a noun phrase."""

    @abstractmethod
    def sentence(self, named: Mapping[str, bool], seed: int, heldout: bool = False) -> str:
        """One sentence that says exactly `named`, {attribute: whether it is there}.

        heldout: in phrases and templates of the held-out half. The same seed gives the same words.

        Raises:
            InputError: the world has no sentence for them.
        """

    @abstractmethod
    def plain(self, name: str, present: bool) -> str:
        """The prompt without a seed."""

    @abstractmethod
    def neutral_prompt(self, seed: int | None = None, heldout: bool = False) -> str:
        """The prompt that names no attribute; see `visiondx_worlds.worlds.base.World.neutral`."""
