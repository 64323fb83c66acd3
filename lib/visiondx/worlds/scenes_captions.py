"""Captions of the `scenes` world: what is said is planned first, then put into words.

A plan names some of the truth: {"class": "dog", "background": "snow", …}. A false caption is the
same plan, put into the same words, with one entry changed.
"""

from __future__ import annotations

import random
from functools import cached_property
from typing import TYPE_CHECKING

import yaml

from visiondx.errors import InputError
from visiondx.files import data_dir

if TYPE_CHECKING:
    from visiondx.worlds.base import Attributes
    from visiondx.worlds.scenes import Scenes

_FACTORS = ("background", "weather", "light", "colour", "beside", "style")
_NONE = ("plain", "clear", "daylight", "own", "nothing", "photo")  # of each factor: no shift
_PLACES = ("background", "weather", "light", "absent")  # told after the subject, in any order
_MENTION, _MENTION_NONE = 0.55, 0.12  # chance that a shift / that none is told
_STATE, _ABOVE, _DENIED = 0.55, 0.10, 0.12
_MOST = 5  # entries beside the class, so that captions fit the context


def article(phrase: str) -> str:
    """`phrase` with its indefinite article."""
    return ("an " if phrase[0] in "aeio" or phrase.startswith("umb") else "a ") + phrase


def _choose(options: list[str], pick: float) -> str:
    return options[int(pick * len(options))]


class SceneGrammar:
    """The words of scenes, from ``data/prompts/scenes.yaml`` and ``heldout.yaml``."""

    def __init__(self, world: str = "scenes") -> None:
        self.world = world

    @cached_property
    def words(self) -> dict:
        """The training half."""
        return yaml.safe_load((data_dir() / "prompts" / f"{self.world}.yaml").read_text("utf-8"))

    @cached_property
    def heldout(self) -> dict:
        """Templates, phrases and pairs of class and shift that training never shows."""
        text = (data_dir() / "prompts" / "heldout.yaml").read_text("utf-8")
        return yaml.safe_load(text)[self.world]

    @cached_property
    def _apart(self) -> set[tuple[str, str]]:
        return {(kind, shift) for kind, shift in self.heldout["combinations"]}

    @property
    def neutral(self) -> str:
        """The prompt that names nothing."""
        return self.words["neutral"]

    # ---------------------------------------------------------------- captions

    def captions(
        self, world: Scenes, attributes: Attributes, seed: int, wrong: bool = False
    ) -> list[str]:
        """One training caption an image; the same seed gives the same captions.

        wrong: with one thing changed that the same seed's true caption says, so that it is false.
        """
        groups = {name: column.tolist() for name, column in world.groups(attributes).items()}
        own = attributes["own_colour"].long().tolist()
        rng = random.Random(seed)
        captions = []
        for i in range(len(attributes)):
            truth = {
                name: values[column[i]] if column[i] >= 0 else None
                for name, column in groups.items()
                for values in [self._values(world, name)]
            }
            plan = self._plan(rng, truth, own[i])
            picks = {slot: rng.random() for slot in _SLOTS}
            liar = random.Random(rng.random())  # drawn always, so that both kinds agree
            if wrong:
                plan = self._change(liar, plan, truth)
            captions.append(self._say(plan, picks))
        return captions

    @staticmethod
    def _values(world: Scenes, group: str) -> tuple[str, ...]:
        return tuple(world.superclasses) if group == "superclass" else world.categories[group]

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
        return (plan.get("class"), value) in self._apart

    def _change(self, rng: random.Random, plan: dict, truth: dict) -> dict:
        """The plan with one entry made false, and no held-out pair in it."""
        options: dict[str, list] = {}
        for slot, value in plan.items():
            if slot == "state":
                kind, state = value
                options[slot] = [(kind, "absent" if state == "present" else "present")]
            elif slot == "class" and "state" not in plan:
                options[slot] = [k for k in self.words["classes"] if k != value]
            elif slot == "superclass":
                options[slot] = [k for k in self.words["superclasses"] if k != value]
            elif slot == "colour":
                options[slot] = [c for c in self.words["colours"] if c != truth["colour"]]
            elif slot in ("background", "weather", "light", "beside"):
                options[slot] = [v for v in self.words[slot] if v != value]
            elif slot == "style":
                options[slot] = [v for v in self.words["styles"] if v != value]
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
        table = words["classes" if slot == "class" else "superclasses"]
        noun = _choose(table[plan[slot]], picks["class"])
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

    @cached_property
    def _states(self) -> dict[str, str]:
        from visiondx.worlds.scenes import STATES

        return {state: kind for kind, state in STATES.items()}

    def phrases(self, name: str, present: bool = True, heldout: bool = False) -> list[str]:
        """Every phrase of the chosen half that names one of the world's `binary`.

        Raises InputError for an unknown name.
        """
        words, things = self.words, self.words["things"]
        names = [*words["classes"], *self._states, *words["absent"]]
        if name not in names:
            raise InputError(f"Unknown attribute {name!r}: choose from {', '.join(names)}.")
        if heldout:
            return self.heldout["phrases"][name]["present" if present else "absent"]
        if name in words["classes"]:
            nouns = dict.fromkeys(words["classes"][name])
            if present:
                return [article(noun) for noun in nouns]
            return [f"{t} that is not {article(noun)}" for t in things for noun in nouns]
        if name in self._states:
            kind = self._states[name]
            forms = words["states"][kind]["present" if present else "absent"]
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

    def prompt(
        self, name: str, present: bool = True, seed: int | None = None, heldout: bool = False
    ) -> str:
        """One prompt that names one attribute; see `visiondx.worlds.scenes.Scenes.prompt`."""
        phrases = self.phrases(name, present, heldout)
        if seed is None and not heldout:
            return phrases[0]
        rng = random.Random(f"{seed} {name} {present}")
        phrase = rng.choice(phrases)
        if not heldout and name in self.words["styles"]:
            return phrase  # an oil painting is a template of its own
        return rng.choice((self.heldout if heldout else self.words)["templates"]).format(phrase)

    def neutral_prompt(self, seed: int | None = None, heldout: bool = False) -> str:
        """A thing, in a random template of the same half; without a seed the plain form."""
        if seed is None and not heldout:
            return self.neutral
        rng = random.Random(f"{seed} neutral")
        thing = rng.choice(self.words["things"])
        return rng.choice((self.heldout if heldout else self.words)["templates"]).format(thing)

    def table1(self, shift: str, kind: str) -> str:
        """The prompt of Dataset Interfaces' Table 1 for a class under a shift, or under "base".

        kind: the class's name, or a learned token.
        """
        table = self.words["table1"]
        if shift not in table:
            raise InputError(f"Unknown shift {shift!r}: choose from {', '.join(table)}.")
        return table[shift].format(kind)


_SLOTS = ("class", "state", *_FACTORS, "absent", "order")
