"""Scenes whose classes are tied to places, each as strictly as is wanted: how a bias is planted.

A class tied to a context with strength s stands there in a share s of its pictures; in the others
it stands where `PLACES` says. A class of strength 0 stands everywhere as often as the tied classes
together, so that the place says nothing of it. At strength 1 a class is seen in its context alone.
All else - state, weather, light, colour, company, style - is independent of class and place.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from visiondx.core.errors import InputError
from visiondx_worlds.worlds.distributions import Distribution, Table
from visiondx_worlds.worlds.scenes import CLASSES, FACTORS, scenes
from visiondx_worlds.worlds.scenes_backdrop import BACKGROUNDS

NEUTRAL = BACKGROUNDS[0]  # "plain": nothing is tied to it
CONTEXTS = BACKGROUNDS[1:]
ANIMATE = CLASSES[:6]
# close together where they are strong: below, a network still learns the object itself
STRENGTHS = (0.0, 0.3, 0.6, 0.8, 0.95, 1.0)
# where a tied class stands when it is not in its context: mostly where the truth is measured
PLACES = dict.fromkeys(BACKGROUNDS, 0.06) | {NEUTRAL: 0.58}
# mostly photos in daylight, with few shifts
SHARES = {
    "weather": (0.94, 0.03, 0.03),
    "light": (0.84, 0.07, 0.04, 0.03, 0.02),
    "colour": (0.75, 0.05, 0.05, 0.05, 0.05, 0.05),
    "beside": (0.90, 0.05, 0.05),
    "style": (0.97, 0.01, 0.01, 0.01),
}


@dataclass(frozen=True)
class Tie:
    """A class stands in `context`, one of CONTEXTS, in a share `strength` of its pictures.

    Raises:
        InputError: no such context, or a strength outside (0, 1].
    """

    context: str
    strength: float

    def __post_init__(self) -> None:
        if self.context not in CONTEXTS:
            raise InputError(
                f"No class can be tied to {self.context!r}: choose from {', '.join(CONTEXTS)}."
            )
        if not 0 < self.strength <= 1:
            raise InputError(
                f"A tie's strength is above 0 and at most 1, got {self.strength}: leave the class "
                "out where it has none."
            )


# each has two classes a strength, an animate and an inanimate one; of seven contexts the strongest
# have their own, and the others share. In the second every class has another strength.
FIRST = {
    "dog": Tie("beach", 0.3),
    "boat": Tie("snow", 0.3),
    "turtle": Tie("rocks", 0.6),
    "plate": Tie("rocks", 0.6),
    "rabbit": Tie("snow", 0.8),
    "umbrella": Tie("beach", 0.8),
    "fish": Tie("water", 0.95),
    "car": Tie("road", 0.95),
    "bird": Tie("forest", 1.0),
    "chair": Tie("grass", 1.0),
}
SECOND = {
    "fish": Tie("forest", 0.3),
    "car": Tie("road", 0.3),
    "bird": Tie("rocks", 0.6),
    "chair": Tie("rocks", 0.6),
    "cat": Tie("road", 0.8),
    "mug": Tie("forest", 0.8),
    "dog": Tie("snow", 0.95),
    "boat": Tie("water", 0.95),
    "turtle": Tie("beach", 1.0),
    "plate": Tie("grass", 1.0),
}
# half of the classes, in which both assignments have one of every strength: to choose settings on
VALIDATION = ("cat", "turtle", "fish", "boat", "umbrella", "chair")


def tied(ties: Mapping[str, Tie], kinds: Sequence[str] = CLASSES) -> Distribution:
    """Scenes of some classes, each equally often, in the places that their ties say.

    Raises:
        InputError: a tie of a class that the world has not, no kinds, or unknown ones.
    """
    _check(ties, kinds)
    together = _together(ties)
    places = [_places(ties[name]) if name in ties else together for name in CLASSES]
    return _distribution("tied", places, kinds)


def untied(ties: Mapping[str, Tie], kinds: Sequence[str] = CLASSES) -> Distribution:
    """The control of `tied`: every place as common as there, and independent of the class."""
    _check(ties, kinds)
    return _distribution("untied", [_together(ties)] * len(CLASSES), kinds)


def _check(ties: Mapping[str, Tie], kinds: Sequence[str]) -> None:
    unknown = [name for name in (*ties, *kinds) if name not in CLASSES]
    if unknown or not kinds:
        raise InputError(
            f"There is no class {unknown[0]!r}: choose from {', '.join(CLASSES)}."
            if unknown
            else "Name one class at least."
        )


def _places(tie: Tie) -> tuple[float, ...]:
    """P(background | class) of a tied class."""
    s = tie.strength
    return tuple((1 - s) * share + s * (b == tie.context) for b, share in PLACES.items())


def _together(ties: Mapping[str, Tie]) -> tuple[float, ...]:
    """P(background) of all tied classes together; `PLACES` of none."""
    rows = [_places(tie) for tie in ties.values()] or [tuple(PLACES.values())]
    return tuple(sum(column) / len(rows) for column in zip(*rows, strict=True))


def _distribution(
    name: str, places: Sequence[tuple[float, ...]], kinds: Sequence[str]
) -> Distribution:
    share = tuple(kinds.count(kind) / len(kinds) for kind in CLASSES)
    tables = [Table("class", None, (share,)), Table("background", "class", tuple(places))]
    tables += [Table(factor, None, (SHARES[factor],)) for factor in FACTORS if factor in SHARES]
    return Distribution(scenes, name, tuple(tables))
