"""What says an attribute in a sentence: a world, or the words of ``data/prompts/celeba.yaml``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar, Protocol

from visiondx.core.errors import InputError
from visiondx_worlds.worlds.captions import AttributeGrammar
from visiondx_worlds.worlds.grammar import Grammar


class Words(Protocol):
    """As much of ``worlds.base.World`` as sentences need."""

    binary: tuple[str, ...]
    grammar: Grammar

    def prompt(
        self, name: str, present: bool = True, seed: int | None = None, heldout: bool = False
    ) -> str:
        """See ``World.prompt``."""
        ...

    def neutral(self, seed: int | None = None, heldout: bool = False) -> str:
        """See ``World.neutral``."""
        ...


class CelebAGrammar(AttributeGrammar):
    """Sentences about CelebA's attributes; no half is held out, and ``heldout`` changes nothing."""

    @cached_property
    def heldout(self) -> dict:
        """The attributes that have words."""
        return {"phrases": self.words["attributes"]}

    def templates(self, heldout: bool, name: str = "") -> list[str]:
        return super().templates(False, name)

    def phrases(self, name: str, present: bool, heldout: bool) -> list[str]:
        return super().phrases(name, present, False)

    def sentence(self, named: Mapping[str, bool], seed: int, heldout: bool = False) -> str:
        return super().sentence(named, seed, False)

    def plain(self, name: str, present: bool) -> str:
        """The bare name, and "not" before it: the paper's prompts (section 4.2.2)."""
        return name.lower() if present else f"not {name.lower()}"


@dataclass(frozen=True)
class CelebAWords:
    """Words for the attributes of a CelebA release.

    Raises:
        InputError: an attribute for which there are no words.
    """

    binary: tuple[str, ...]  # "Wearing Hat", as ``CelebA.attributes``
    grammar: ClassVar[CelebAGrammar] = CelebAGrammar("celeba")

    def __post_init__(self) -> None:
        unknown = [name for name in self.binary if name not in self.grammar.words["attributes"]]
        if unknown:
            raise InputError(
                f"No words for CelebA's attributes {', '.join(unknown)}: add them to "
                "data/prompts/celeba.yaml."
            )

    def prompt(
        self, name: str, present: bool = True, seed: int | None = None, heldout: bool = False
    ) -> str:
        return self.grammar.prompt(name, present, seed, heldout)

    def neutral(self, seed: int | None = None, heldout: bool = False) -> str:
        return self.grammar.neutral_prompt(seed, heldout)
