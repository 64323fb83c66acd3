"""Captions of the `scenes` world: what is said is planned first, then put into words.

A plan names some of the truth: {"class": "dog", "background": "snow", …}. A false caption is the
same plan, put into the same words, with one entry changed.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from visiondx.core.errors import InputError
from visiondx_worlds.worlds.grammar import Grammar, article
from visiondx_worlds.worlds.scenes_objects import STATES

if TYPE_CHECKING:
    from collections.abc import Mapping

    from visiondx_worlds.worlds.base import Attributes
    from visiondx_worlds.worlds.scenes import Scenes

_FACTORS = ("background", "weather", "light", "colour", "beside", "style")
_NONE = ("plain", "clear", "daylight", "own", "nothing", "photo")  # of each factor: no shift
_SLOTS = ("class", "state", *_FACTORS, "absent", "order")  # one random number for each
# the words of a slot, where they stand under another name
_TABLES = {"class": "classes", "superclass": "superclasses", "colour": "colours", "style": "styles"}
_ANYTHING = "something"  # the thing of a phrase, in whose place a sentence puts its subject
_KINDS = {state: kind for kind, state in STATES.items()}
_PLACES = ("background", "weather", "light", "absent")  # told after the subject, in any order
_MENTION, _MENTION_NONE = 0.55, 0.12  # chance that a shift / that none is told
_STATE, _ABOVE, _DENIED = 0.55, 0.10, 0.12
_MOST = 5  # entries beside the class, so that captions fit the context


def _choose(options: list[str], pick: float) -> str:
    return options[int(pick * len(options))]


class SceneGrammar(Grammar):
    """The words of scenes: a class, its state, and what surrounds it."""

    # ---------------------------------------------------------------- captions

    def captions(
        self, world: Scenes, attributes: Attributes, seed: int, wrong: bool = False
    ) -> list[str]:
        """As `Grammar.captions`; a wrong one changes what the same seed's true caption says."""
        values = {**world.categories, "superclass": tuple(world.superclasses)}
        groups = {
            name: [values[name][k] if k >= 0 else None for k in column.tolist()]
            for name, column in world.groups(attributes).items()
        }
        own = attributes["own_colour"].long().tolist()
        rng = random.Random(seed)
        captions = []
        for i in range(len(attributes)):
            truth = {name: column[i] for name, column in groups.items()}
            plan = self._plan(rng, truth, own[i])
            picks = {slot: rng.random() for slot in _SLOTS}
            liar = random.Random(rng.random())  # drawn always, so that both kinds agree
            if wrong:
                plan = self._change(liar, plan, truth)
            captions.append(self._say(plan, picks))
        return captions

    def _plan(self, rng: random.Random, truth: dict, own: int) -> dict:
        """What to say; "class" is always in it, or "superclass" in its place."""
        kind = truth["class"]
        plan = {"superclass": truth["superclass"]} if rng.random() < _ABOVE else {"class": kind}
        for factor in rng.sample(_FACTORS, len(_FACTORS)):
            value = truth[factor]
            chance = _MENTION_NONE if value in _NONE else _MENTION
            if factor == "colour" and value == "own":
                value, chance = ("own", own), 0.25
            said = rng.random() < chance and len(plan) <= _MOST
            if said and value is not None and not self._clash(plan, value):
                plan[factor] = value
        if truth["state"] is not None and "class" in plan and rng.random() < _STATE:
            plan["state"] = (kind, truth["state"])
        shown = set(truth.values())
        denied = rng.choice(list(self.words["absent"]))
        colour = denied in self.words["colours"]
        sure = denied not in shown and not (colour and truth["colour"] is None)
        if rng.random() < _DENIED and sure and len(plan) <= _MOST and not self._clash(plan, denied):
            plan["absent"] = denied
        return plan

    def _clash(self, plan: dict, value: object) -> bool:
        return frozenset((plan.get("class"), value)) in self.apart

    def _change(self, rng: random.Random, plan: dict, truth: dict) -> dict:
        """The plan with one entry made false, and no held-out pair in it."""
        options: dict[str, list] = {}
        for slot, value in plan.items():
            if slot == "state":
                kind, state = value
                options[slot] = [(kind, "absent" if state == "present" else "present")]
            elif slot != "absent" and not (slot == "class" and "state" in plan):
                words = self.words[_TABLES.get(slot, slot)]
                options[slot] = [other for other in words if other != truth[slot]]
        lies = [
            {**plan, slot: other}
            for slot, others in options.items()
            for other in rng.sample(others, len(others))
        ]
        lies = [lie for lie in lies if not any(self._clash(lie, v) for v in lie.values())]
        slots = sorted({slot for lie in lies for slot in lie if lie[slot] != plan[slot]})
        slot = rng.choice(slots)
        lie = next(lie for lie in lies if lie[slot] != plan[slot])
        if lie.get("absent") == lie[slot]:  # "in the snow, with no snow"
            return {k: v for k, v in lie.items() if k != "absent"}
        return lie

    def _say(self, plan: dict, picks: dict[str, float]) -> str:
        words, adjectives, after = self.words, [], ""
        if "colour" in plan:
            colour = plan["colour"]
            forms = (
                words["own_colours"][colour[1]] if colour[0] == "own" else words["colours"][colour]
            )
            adjectives.append(_choose(forms, picks["colour"]))
        if "state" in plan:
            kind, state = plan["state"]
            forms = words["states"][kind][state]
            before = forms.get("adjective", [])
            phrase = _choose(before + forms["with"], picks["state"])
            if phrase in before:
                adjectives.insert(int(picks["order"] * (len(adjectives) + 1)), phrase)
            else:
                after = f" {phrase}"
        slot = "class" if "class" in plan else "superclass"
        noun = _choose(words[_TABLES[slot]][plan[slot]], picks["class"])
        subject = article(" ".join([*adjectives, noun])) + after
        if "beside" in plan:
            subject = _choose(words["beside"][plan["beside"]], picks["beside"]).format(subject)
        told = [slot for slot in _PLACES if slot in plan]
        random.Random(picks["order"]).shuffle(told)
        for slot in told:
            subject += " " + _choose(words[slot][plan[slot]], picks[slot])
        templates = words["styles"][plan["style"]] if "style" in plan else words["templates"]
        return _choose(templates, picks["style"]).format(subject)

    # ---------------------------------------------------------------- prompts

    def phrases(self, name: str, present: bool, heldout: bool) -> list[str]:
        side = "present" if present else "absent"
        if heldout:
            return self.heldout["phrases"][name][side]
        words, things = self.words, self.words["things"]
        if name in words["classes"]:
            nouns = dict.fromkeys(words["classes"][name])
            if present:
                return [article(noun) for noun in nouns]
            return [f"{t} that is not {article(noun)}" for t in things for noun in nouns]
        if name in _KINDS:
            kind = _KINDS[name]
            forms = words["states"][kind][side]
            return [f"{article(kind)} {phrase}" for phrase in forms["with"]] + [
                article(f"{phrase} {kind}") for phrase in forms.get("adjective", ())
            ]
        if not present:
            return [f"{thing} {phrase}" for thing in things for phrase in words["absent"][name]]
        if name in words["colours"]:
            forms = words["colours"][name]
            return [article(f"{f} {n}") for f in forms for n in ("thing", "object")] + [
                f"something {form}" for form in forms
            ]
        for patterns in (words["beside"], words["styles"]):
            if name in patterns:
                return [p.format(thing) for p in patterns[name] for thing in things]
        factor = next(f for f in ("background", "weather", "light") if name in words[f])
        return [f"{thing} {phrase}" for phrase in words[factor][name] for thing in things]

    def sentence(self, named: Mapping[str, bool], seed: int, heldout: bool = False) -> str:
        rng = random.Random(f"{seed} {sorted(named.items())}")
        order = rng.sample(list(named.items()), len(named))
        subjects = [name for name, there in order if there and name in self.words["classes"]]
        subjects += [name for name in named if name in _KINDS]
        if len(subjects) > 1 or any(name in _KINDS and not there for name, there in order):
            raise InputError(
                f"{dict(named)} is no sentence: name one class, or one state as there."
            )
        # the thing comes first, and a style last: it is a picture of all the rest
        rank = {name: 2 for name in self.words["styles"]} | dict.fromkeys(subjects, 0)
        said = _ANYTHING
        for name, present in sorted(order, key=lambda item: rank.get(item[0], 1)):
            phrases = self.phrases(name, present, heldout)
            if rank.get(name, 1):
                phrases = [p.replace("a picture", f"a picture of {_ANYTHING}") for p in phrases]
                phrases = [p for p in phrases if _ANYTHING in p]
            said = rng.choice(phrases).replace(_ANYTHING, said)
        own = self.words["styles"].keys() & {name for name, present in order if present}
        return said if own else rng.choice(self.templates(heldout)).format(said)

    def plain(self, name: str, present: bool) -> str:
        return self.phrases(name, present, heldout=False)[0]

    def templates(self, heldout: bool, name: str = "") -> list[str]:
        """An oil painting is a template of its own."""
        own = not heldout and name in self.words["styles"]
        return ["{}"] if own else super().templates(heldout)

    def neutral_prompt(self, seed: int | None = None, heldout: bool = False) -> str:
        if seed is None and not heldout:
            return self.neutral
        rng = random.Random(f"{seed} neutral")
        thing = rng.choice(self.words["things"])
        return rng.choice(self.templates(heldout)).format(thing)

    def table1(self, shift: str, kind: str) -> str:
        """The prompt of Dataset Interfaces' Table 1 for a class under a shift, or under "base".

        kind: the class's name, or a learned token.
        """
        table = self.words["table1"]
        if shift not in table:
            raise InputError(f"Unknown shift {shift!r}: choose from {', '.join(table)}.")
        return table[shift].format(kind)
