"""Captions and prompts: a grammar with synonyms, free order, omissions and negations."""

from __future__ import annotations

import random
from functools import cached_property
from typing import TYPE_CHECKING

import yaml

from visiondx.errors import InputError
from visiondx.files import data_dir

if TYPE_CHECKING:
    from visiondx.worlds.base import Attributes, World

_MENTION = {True: 0.45, False: 0.10}  # chance that a present / an absent attribute is named
_MOST = 6  # attributes named in one caption, so that captions fit the context
_GROUP = 0.25  # chance of a finer word (skin tone, fur colour)


def article(phrase: str) -> str:
    """`phrase` with its indefinite article."""
    return ("an " if phrase[0] in "aeiou" else "a ") + phrase


class Grammar:
    """The words of one world, from ``data/prompts/<world>.yaml`` and ``heldout.yaml``."""

    def __init__(self, world: str) -> None:
        self.world = world

    @cached_property
    def words(self) -> dict:
        """The training half."""
        return yaml.safe_load((data_dir() / "prompts" / f"{self.world}.yaml").read_text())

    @cached_property
    def heldout(self) -> dict:
        """Templates, phrases and combinations that training never shows."""
        return yaml.safe_load((data_dir() / "prompts" / "heldout.yaml").read_text())[self.world]

    @cached_property
    def _apart(self) -> set[frozenset[str]]:
        return {frozenset(pair) for pair in self.heldout["combinations"]}

    @property
    def neutral(self) -> str:
        """The prompt that names no attribute."""
        return self.words["neutral"]

    def captions(
        self, world: World, attributes: Attributes, seed: int, wrong: bool = False
    ) -> list[str]:
        """One training caption an image; the same seed gives the same captions.

        wrong: each says the opposite of the truth about one attribute.
        """
        labels = world.labels(attributes).tolist()
        spoken = self.words["groups"]  # a group without words (breeds) is never named
        groups = {k: v.tolist() for k, v in world.groups(attributes).items() if k in spoken}
        rng = random.Random(seed)
        return [
            self._caption(
                rng,
                dict(zip(world.binary, row, strict=True)),
                {name: values[i] for name, values in groups.items()},
                wrong,
            )
            for i, row in enumerate(labels)
        ]

    def _caption(
        self, rng: random.Random, truth: dict[str, bool], groups: dict[str, int], wrong: bool
    ) -> str:
        named: list[str] = []
        often = self.words.get("mention", {})
        order = rng.sample(list(truth), len(truth))
        for name in order:
            fits = len(named) < _MOST and not self._clash(name, named)
            if fits and rng.random() < often.get(name, _MENTION[truth[name]]):
                named.append(name)
        if wrong:
            named = named or order[:1]
            truth = {**truth, named[0]: not truth[named[0]]}
        noun, adjectives, withs = None, [], []
        for name in named:
            forms = self.words["attributes"][name]["present" if truth[name] else "absent"]
            kind = rng.choice([k for k in forms if k != "noun" or noun is None])
            phrase = rng.choice(forms[kind])
            if kind == "noun":
                noun = phrase
            elif kind == "adjective" and len(adjectives) < 2:
                adjectives.append(phrase)
            else:
                withs.append(rng.choice(forms["with"]))
        about, speaks = list(named), self.words["about"]
        for group, index in groups.items():
            fits = index >= 0 and len(withs) < 3 and not self._clash(speaks[group], about)
            if fits and rng.random() < _GROUP:
                withs.append(rng.choice(self.words["groups"][group][index]))
                about.append(speaks[group])
        withs = list(dict.fromkeys(withs))  # a synonym may be drawn twice
        rng.shuffle(withs)
        subject = article(" ".join([*adjectives, noun or rng.choice(self.words["nouns"])]))
        if withs:
            head = f"{', '.join(withs[:-1])} and {withs[-1]}" if len(withs) > 1 else withs[0]
            subject += f" {rng.choice(self.words['joins'])} {head}"
        return rng.choice(self.words["templates"]).format(subject)

    def _clash(self, name: str, named: list[str]) -> bool:
        """Would this caption name a held-out pair of attributes?"""
        return any(frozenset((name, other)) in self._apart for other in named)

    def phrases(self, name: str, present: bool, heldout: bool) -> list[str]:
        """Every single-attribute phrase of the chosen half, each a noun phrase."""
        side = "present" if present else "absent"
        if heldout:
            return [
                f"{self.neutral} with {phrase}" for phrase in self.heldout["phrases"][name][side]
            ]
        forms, nouns = self.words["attributes"][name][side], self.words["nouns"]
        return (
            [f"{article(noun)} with {p}" for p in forms.get("with", ()) for noun in nouns]
            + [article(f"{p} {noun}") for p in forms.get("adjective", ()) for noun in nouns]
            + [article(p) for p in forms.get("noun", ())]
        )

    def prompt(
        self, name: str, present: bool = True, seed: int | None = None, heldout: bool = False
    ) -> str:
        """One prompt that names one attribute; see a world's `prompt`, such as `Faces.prompt`."""
        if name not in self.words["attributes"]:
            known = ", ".join(self.words["attributes"])
            raise InputError(f"Unknown attribute {name!r}: choose from {known}.")
        if seed is None and not heldout:
            words = self.words["attributes"][name]
            if present:
                return words["plain"]
            return words.get("plain_absent", f"{self.neutral} with {words['absent']['with'][0]}")
        rng = random.Random(f"{seed} {name} {present}")
        phrase = rng.choice(self.phrases(name, present, heldout))
        templates = (self.heldout if heldout else self.words)["templates"]
        return rng.choice(templates).format(phrase)

    def neutral_prompt(self, seed: int | None = None, heldout: bool = False) -> str:
        """The prompt that names no attribute; see `visiondx.worlds.base.World.neutral`."""
        if seed is None and not heldout:
            return self.neutral
        rng = random.Random(f"{seed} neutral")
        phrases = [self.neutral] + [article(n) for n in self.words["nouns"] if not heldout]
        return rng.choice((self.heldout if heldout else self.words)["templates"]).format(
            rng.choice(phrases)
        )
