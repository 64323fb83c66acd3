"""Captions of the `faces` and `animals` worlds: synonyms, free order, omissions, negations."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from visiondx_worlds.worlds.grammar import Grammar, article

if TYPE_CHECKING:
    from collections.abc import Mapping

    from visiondx_worlds.worlds.base import Attributes, World

_MENTION = {True: 0.45, False: 0.10}  # chance that a present / an absent attribute is named
_MOST = 6  # attributes named in one caption, so that captions fit the context
_GROUP = 0.25  # chance of a finer word (skin tone, fur colour)


def _listed(phrases: list[str]) -> str:
    return f"{', '.join(phrases[:-1])} and {phrases[-1]}" if len(phrases) > 1 else phrases[0]


class AttributeGrammar(Grammar):
    """Captions that name a few binary attributes, and sometimes a finer word of a group."""

    def captions(
        self, world: World, attributes: Attributes, seed: int, wrong: bool = False
    ) -> list[str]:
        """As `Grammar.captions`; a wrong one says the opposite of the truth about one attribute."""
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
        noun, adjectives, withs = self._spoken(rng, {name: truth[name] for name in named})
        about, speaks = list(named), self.words["about"]
        for group, index in groups.items():
            fits = index >= 0 and len(withs) < 3 and not self._clash(speaks[group], about)
            if fits and rng.random() < _GROUP:
                withs.append(rng.choice(self.words["groups"][group][index]))
                about.append(speaks[group])
        return self._assembled(rng, noun, adjectives, withs)

    def _spoken(
        self, rng: random.Random, named: dict[str, bool]
    ) -> tuple[str | None, list[str], list[str]]:
        """A noun, adjectives and what follows "with", of the training half, that say `named`."""
        noun, adjectives, withs = None, [], []
        for name, present in named.items():
            forms = self.words["attributes"][name]["present" if present else "absent"]
            kind = rng.choice([k for k in forms if k != "noun" or noun is None])
            phrase = rng.choice(forms[kind])
            if kind == "noun":
                noun = phrase
            elif kind == "adjective" and len(adjectives) < 2:
                adjectives.append(phrase)
            else:
                withs.append(self._with(rng, name, present))
        return noun, adjectives, withs

    def _with(self, rng: random.Random, name: str, present: bool) -> str:
        """What follows "with" and says whether `name` is there."""
        return rng.choice(
            self.words["attributes"][name]["present" if present else "absent"]["with"]
        )

    def _assembled(
        self, rng: random.Random, noun: str | None, adjectives: list[str], withs: list[str]
    ) -> str:
        withs = list(dict.fromkeys(withs))  # a synonym may be drawn twice
        rng.shuffle(withs)
        subject = article(" ".join([*adjectives, noun or rng.choice(self.words["nouns"])]))
        if withs:
            subject += f" {rng.choice(self.words['joins'])} {_listed(withs)}"
        return rng.choice(self.words["templates"]).format(subject)

    def sentence(self, named: Mapping[str, bool], seed: int, heldout: bool = False) -> str:
        rng = random.Random(f"{seed} {sorted(named.items())}")
        order = dict(rng.sample(list(named.items()), len(named)))
        if not heldout:
            return self._assembled(rng, *self._spoken(rng, order))
        withs = [
            rng.choice(self.heldout["phrases"][name]["present" if present else "absent"])
            for name, present in order.items()
        ]
        subject = f"{self.neutral} with {_listed(withs)}" if withs else self.neutral
        return rng.choice(self.templates(heldout)).format(subject)

    def _clash(self, name: str, named: list[str]) -> bool:
        """Would this caption name a held-out pair of attributes?"""
        return any(frozenset((name, other)) in self.apart for other in named)

    def phrases(self, name: str, present: bool, heldout: bool) -> list[str]:
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

    def plain(self, name: str, present: bool) -> str:
        words = self.words["attributes"][name]
        if present:
            return words["plain"]
        return words.get("plain_absent", f"{self.neutral} with {words['absent']['with'][0]}")

    def neutral_prompt(self, seed: int | None = None, heldout: bool = False) -> str:
        if seed is None and not heldout:
            return self.neutral
        rng = random.Random(f"{seed} neutral")
        phrases = [self.neutral] + [article(n) for n in self.words["nouns"] if not heldout]
        return rng.choice(self.templates(heldout)).format(rng.choice(phrases))
