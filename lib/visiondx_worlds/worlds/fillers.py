"""Captions with words that say nothing, so that a phrase is read and not known by heart.

A text tower that met each denial word for word looks an unread one up instead of composing it:
"no pair of glasses" was nearest to "a pair of glasses". Filler words ("no odd beard", "a nice hat")
make more phrases than can be looked up. Nothing held out is said, with or without filler.
"""

from __future__ import annotations

import copy
import random
from functools import cached_property

from visiondx_worlds.worlds.captions import AttributeGrammar
from visiondx_worlds.worlds.grammar import article, read_words

_FILLED = 0.35  # chance that a phrase gets a filler word
_DENIED = 0.5  # chance that an absent attribute is said as the denial of a phrase for its presence
_PLAIN = 0.4  # chance that a prompt is one of the plain grammar's
_LONGEST = 125  # characters of a caption; the context has room for no longer ones
_ARTICLES = ("a ", "an ")


def filled(phrase: str, filler: str) -> str:
    """`phrase` with the filler before its noun: "no beard", "odd" -> "no odd beard"."""
    first, _, rest = phrase.partition(" ")
    if f"{first} " in _ARTICLES:
        return article(f"{filler} {rest}")
    return f"{first} {filler} {rest}" if first in ("no", "the", "its") else f"{filler} {phrase}"


def denied(phrase: str, opening: str) -> str:
    """What says that `phrase` is not there; a bare "no" takes the place of its article."""
    if opening == "no" and phrase.startswith(_ARTICLES):
        phrase = phrase.partition(" ")[2]
    return f"{opening} {phrase}"


class FilledGrammar(AttributeGrammar):
    """An `AttributeGrammar` whose training half has filler words and more denials."""

    @cached_property
    def fillers(self) -> dict:
        return read_words("fillers.yaml")

    @cached_property
    def unfilled(self) -> AttributeGrammar:
        return AttributeGrammar(self.world)

    def _caption(self, rng: random.Random, *what: object) -> str:
        caption = super()._caption(rng, *what)
        return caption if len(caption) <= _LONGEST else self.unfilled._caption(rng, *what)

    def deniable(self, name: str) -> list[str]:
        """The phrases for presence whose denial is proper English and not held out."""
        unsaid = self.heldout["phrases"][name]["absent"]
        forms = self.words["attributes"][name]["present"].get("with", ())
        return [
            phrase
            for phrase in forms
            if not phrase.startswith(("no ", "the ", "its "))
            and " and " not in phrase  # "no collar and a tag" has a tag
            and denied(phrase, "no") not in unsaid
        ]

    def _with(self, rng: random.Random, name: str, present: bool) -> str:
        pool = () if present else self.deniable(name)
        phrase, opening = super()._with(rng, name, present), ""
        if pool and rng.random() < _DENIED:
            phrase, opening = rng.choice(pool), rng.choice(self.fillers["denials"])
        if rng.random() < _FILLED:
            phrase = filled(phrase, rng.choice(self.fillers["words"]))
        return denied(phrase, opening) if opening else phrase

    def prompt(
        self, name: str, present: bool = True, seed: int | None = None, heldout: bool = False
    ) -> str:
        rng = random.Random(f"{seed} filled {name} {present}")
        forms = self.words["attributes"].get(name, {}).get("present" if present else "absent", {})
        if heldout or seed is None or "with" not in forms or rng.random() < _PLAIN:
            return super().prompt(name, present, seed, heldout)
        subject = (
            f"{article(rng.choice(self.words['nouns']))} with {self._with(rng, name, present)}"
        )
        return rng.choice(self.templates(False)).format(subject)


def with_fillers(world: object) -> object:
    """`world` with filler words in its training captions; a world of another grammar as it is."""
    if type(getattr(world, "grammar", None)) is not AttributeGrammar:
        return world
    world = copy.copy(world)
    world.grammar = FilledGrammar(world.grammar.world)
    return world
