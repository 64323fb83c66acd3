"""What is asked of a data set: the shifts of Table 1, and any other in words.

Shift.named("in the grass").prompt      # "a photo of a <class> in the grass"
Shift.of("wearing a hat")               # the same for words of one's own
Shift.of("a watercolour of a <class>", style=True)
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass

from visiondx.core.errors import InputError
from visiondx.core.words import plain

PLACE = "<class>"  # where the name of the class, or its token, stands in a prompt
BASE = "base"


@dataclass(frozen=True)
class Shift:
    """One shift: how it is asked for, and how CLIP is asked whether it is there.

    name: its own, of the data set's shifts. prompt: with PLACE once. caption: c_shift, what shows
        the shift without the class; "" for `base`, which shifts nothing. style: of an art style,
        whose pictures are no photos any more. threshold, paper_yield: of CLIP similarity, and the
        share that both filters let pass, as Table 1 has them for the paper's own CLIP; None where
        it says nothing.

    Raises:
        InputError: no name, or a prompt without PLACE, or with two.
    """

    name: str
    prompt: str
    caption: str
    style: bool = False
    threshold: float | None = None
    paper_yield: float | None = None

    def __post_init__(self) -> None:
        if not plain(self.name):
            raise InputError("A shift needs a name: give a few words.")
        if self.prompt.count(PLACE) != 1:
            raise InputError(
                f"The prompt {self.prompt!r} must hold {PLACE} once, where the class stands."
            )

    @classmethod
    def of(cls, text: str, caption: str = "", style: bool = False) -> Shift:
        """A shift of Table 1 by its name, or one in words.

        Args:
            text: a name; words that follow the class, "wearing a hat"; or a whole prompt with
                PLACE, "a photo of a <class> and a dog".
            caption: c_shift; without it the prompt without the class, "a photo wearing a hat".
            style: an art style.

        Raises:
            InputError: no words, or a prompt with PLACE twice.
        """
        name = " ".join(text.split())
        if not plain(name):
            raise InputError(f"A shift needs words, got {text!r}: say what is to be seen.")
        if name in BY_NAME and not caption:
            return BY_NAME[name]
        prompt = name if PLACE in name else f"a photo of a {PLACE} {name}"
        return cls(name, prompt, caption or _without_class(prompt), style)

    @classmethod
    def named(cls, name: str) -> Shift:
        """A shift of Table 1. Raises InputError for another name."""
        if name not in BY_NAME:
            raise InputError(
                f"No shift {name!r} in Table 1: choose from {', '.join(BY_NAME)}, or describe one "
                "with Shift.of."
            )
        return BY_NAME[name]

    @property
    def folder(self) -> str:
        """The name of its folder, "in_the_grass"; two shifts never share one."""
        safe = re.sub(r"[^\w-]+", "_", self.name.lower()).strip("_")
        if safe.replace("_", " ") == self.name and len(safe) <= 80:
            return safe
        return f"{safe[:60]}-{hashlib.sha256(self.name.encode()).hexdigest()[:8]}".lstrip("-")

    def asks(self, name: str) -> str:
        """The prompt for a class, by its name or its token."""
        return self.prompt.replace(PLACE, name)

    def class_caption(self, name: str) -> str:
        """c_class of section 3.1: "a photo of a plate"; in an art style "a plate", its footnote."""
        return f"a {name}" if self.style else f"a photo of a {name}"


def _without_class(prompt: str) -> str:
    """c_shift of section 3.1: "a photo of a <class> in the rain" -> "a photo in the rain".

    What is beside the class, or says something of it, keeps a word for it: "a photo of a blue
    thing", "a photo of a person and something". Alone, "a photo of a person" asks for a portrait.
    """
    said = re.sub(rf"\s+of (an?|the) {PLACE}(?! and\b)", "", prompt, flags=re.IGNORECASE)
    said = re.sub(rf"\b(an?|the) {PLACE}", "something", said, flags=re.IGNORECASE)
    return " ".join(said.replace(PLACE, "thing").split())


def _photo(name: str, said: str, threshold: float, paper_yield: float, caption: str = "") -> Shift:
    prompt = f"a photo of {said}"
    return Shift(name, prompt, caption or _without_class(prompt), False, threshold, paper_yield)


def _style(name: str, said: str, threshold: float, paper_yield: float) -> Shift:
    return Shift(name, f"{said} of a {PLACE}", said, True, threshold, paper_yield)


# Prompts, thresholds (for OpenCLIP's ViT-H/14) and yields of Table 1. Captions are the "a photo
# <shift>" of section 3.1; what to say of a colour, of company and of a style it leaves open.
SHIFTS = (
    Shift(BASE, f"a photo of a {PLACE}", "", paper_yield=0.926),
    _photo("in the grass", f"a {PLACE} in the grass", 0.127, 0.803),
    _photo("in the beach", f"a {PLACE} in the beach", 0.175, 0.629),
    _photo("in the forest", f"a {PLACE} in the forest", 0.153, 0.673),
    _photo("in the water", f"a {PLACE} in the water", 0.163, 0.601),
    _photo("on the road", f"a {PLACE} in the road", 0.154, 0.645, "a photo on the road"),
    _photo("on the rocks", f"a {PLACE} in the rocks", 0.124, 0.766, "a photo on the rocks"),
    _photo("in the snow", f"a {PLACE} in the snow", 0.160, 0.732),
    _photo("in the rain", f"a {PLACE} in the rain", 0.173, 0.483),
    _photo("in the fog", f"a {PLACE} in the fog", 0.152, 0.593),
    _photo("in bright sunlight", f"a {PLACE} in bright sunlight", 0.124, 0.899),
    _photo("at dusk", f"a {PLACE} at dusk", 0.158, 0.619),
    _photo("at night", f"a {PLACE} at night", 0.147, 0.611),
    _photo("studio lighting", f"a {PLACE} in studio lighting", 0.140, 0.666),
    _photo("blue", f"a blue {PLACE}", 0.163, 0.591),
    _photo("green", f"a green {PLACE}", 0.190, 0.513),
    _photo("red", f"a red {PLACE}", 0.167, 0.596),
    _photo("yellow", f"a yellow {PLACE}", 0.212, 0.433),
    _photo("orange", f"a orange {PLACE}", 0.216, 0.410),
    _photo("person and a", f"a person and a {PLACE}", 0.181, 0.299),
    _photo("and a flower", f"a {PLACE} and a flower", 0.148, 0.619),
    _style("oil painting", "an oil painting", 0.214, 0.672),
    _style("pencil sketch", "a black and white pencil sketch", 0.223, 0.618),
    _style("embroidery", "an embroidery", 0.259, 0.330),
)
BY_NAME = {shift.name: shift for shift in SHIFTS}
