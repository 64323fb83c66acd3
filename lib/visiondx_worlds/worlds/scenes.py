"""The `scenes` world: objects in places, with every shift of Dataset Interfaces' Table 1."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import ClassVar

import torch
from torch import Tensor

from visiondx.core.errors import InputError
from visiondx_worlds.worlds.base import Attributes, World, category, uniform
from visiondx_worlds.worlds.distributions import Distribution
from visiondx_worlds.worlds.scenes_backdrop import BACKGROUNDS
from visiondx_worlds.worlds.scenes_captions import SceneGrammar
from visiondx_worlds.worlds.scenes_company import BESIDE, HAIR, PETALS, SKIN
from visiondx_worlds.worlds.scenes_draw import draw_scene, scene_masks
from visiondx_worlds.worlds.scenes_objects import DRAWN, OWN, STATES
from visiondx_worlds.worlds.scenes_style import STYLES
from visiondx_worlds.worlds.scenes_weather import LIGHT, WEATHER

CLASSES = tuple(DRAWN)
SKETCH = STYLES.index("pencil sketch")  # shows no colour
COLOURS = ("own", "blue", "green", "red", "yellow", "orange")
SUPERCLASSES = {
    "furry animal": ("dog", "cat", "rabbit"),
    "wild animal": ("bird", "fish", "turtle"),
    "tableware": ("plate", "mug"),
    "vehicle": ("car", "boat"),
    "household thing": ("umbrella", "chair"),
}
# what a shift switches, its values, and how often each occurs in `scenes-balanced`;
# the first value is no shift
FACTORS = {
    "background": (BACKGROUNDS, (0.125,) * 8),
    "weather": (WEATHER, (0.68, 0.16, 0.16)),
    "light": (LIGHT, (0.48, 0.13, 0.13, 0.13, 0.13)),
    "colour": (COLOURS, (0.4, 0.12, 0.12, 0.12, 0.12, 0.12)),
    "beside": (BESIDE, (0.6, 0.2, 0.2)),
    "style": (STYLES, (0.61, 0.13, 0.13, 0.13)),
}
SHIFTS = {
    value: (factor, float(index))
    for factor, (values, _) in FACTORS.items()
    for index, value in enumerate(values)
    if index
}


class Scenes(World):
    """Twelve kinds of objects, six of them animals, seven with states, under 23 shifts.

    A shift is one value of one of six factors: background, weather, light, colour, beside (what
    stands beside the object) and style. Factors combine freely; the first value of each is none of
    its shifts ("base" in Table 1). A label is True where it can be seen: a pencil sketch shows no
    colour. Object, pose, size and place never depend on a factor.
    """

    name = "scenes"
    chunk = 256  # drawn in groups of one class, one background, …: each must be worth its calls
    classes = CLASSES
    states: ClassVar = STATES
    superclasses: ClassVar = SUPERCLASSES
    shifts = tuple(SHIFTS)
    binary = (*CLASSES, *STATES.values(), *SHIFTS)
    categories: ClassVar = {
        "class": CLASSES,
        "state": ("absent", "present"),
        **{factor: values for factor, (values, _) in FACTORS.items()},
    }
    shares: ClassVar = {
        "class": (1 / len(CLASSES),) * len(CLASSES),
        "state": (0.5, 0.5),
        **{factor: shares for factor, (_, shares) in FACTORS.items()},
    }
    columns: ClassVar = {
        **{name: category(share) for name, share in shares.items()},
        # the object: its own colour, pose, size and place
        "own_colour": category((1 / len(OWN),) * len(OWN)),
        "shade": uniform(-1, 1),
        "mirrored": category((0.5, 0.5)),
        "pose": uniform(-1, 1),
        "tilt": uniform(-0.18, 0.18),
        "stretch": uniform(-1, 1),
        "size": uniform(0.48, 0.70),
        "place_x": uniform(-1, 1),
        "place_y": uniform(0, 1),
        # the surroundings
        "horizon": uniform(-1, 1),
        "texture_x": uniform(0, 1),
        "texture_y": uniform(0, 1),
        "wall_hue": uniform(0, 1),
        "wall_value": uniform(0, 1),
        "floor_hue": uniform(0, 1),
        "clutter": category((0.5, 0.5)),
        "clutter_x": uniform(-0.9, 0.9),
        "clutter_y": uniform(0, 1),
        "clutter_hue": uniform(0, 1),
        "occluder": category((0.75, 0.25)),
        "occluder_x": uniform(-1, 1),
        "occluder_size": uniform(-1, 1),
        "light_gain": uniform(0.90, 1.05),
        "light_warmth": uniform(-1, 1),
        # the looks of who stands beside
        "skin": category((1 / len(SKIN),) * len(SKIN)),
        "hair": category((1 / len(HAIR),) * len(HAIR)),
        "shirt_hue": uniform(0, 1),
        "petals": category((1 / len(PETALS),) * len(PETALS)),
    }

    def __init__(self) -> None:
        super().__init__()
        self.grammar = SceneGrammar("scenes")

    def sample(
        self,
        n: int,
        seed: int,
        given: Mapping[str, bool | str | Tensor] | None = None,
        distribution: str | Distribution | None = None,
    ) -> Attributes:
        """n random scenes; the same seed gives the same scenes on every device.

        given: what to hold. A name of `binary` takes a bool or a (n,) bool tensor; a name of
            `categories` takes the name of a value or a (n,) tensor of indices.
        distribution: a name in ``data/worlds``, or a `Distribution`; without one
            ``scenes-balanced``, whose shares are those of the columns.
        """
        given = dict(given or {})
        fixed = {name: given.pop(name) for name in list(given) if name in self.categories}
        if isinstance(distribution, str):
            distribution = Distribution.load(distribution, self)
        source = super() if distribution is None else distribution
        attributes = source.sample(n, seed)
        for name, value in fixed.items():
            attributes = attributes.replace(**{name: self._index(name, value)})
        for name, value in given.items():
            attributes = self.switch(attributes, name, value)
        return attributes

    def _index(self, name: str, value: str | Tensor) -> float | Tensor:
        values = self.categories[name]
        if isinstance(value, Tensor):
            return value.float()
        if value not in values:
            raise InputError(f"Unknown {name} {value!r}: choose from {', '.join(values)}.")
        return float(values.index(value))

    def shift(self, attributes: Attributes, name: str) -> Attributes:
        """The same objects under another shift: one factor changes, nothing else does.

        name: one of `shifts`, or "base" for none of them. Raises InputError for another name.
        """
        if name == "base":
            return attributes.replace(**dict.fromkeys(FACTORS, 0.0))
        if name not in SHIFTS:
            raise InputError(f"Unknown shift {name!r}: choose from base, {', '.join(SHIFTS)}.")
        return self.set(attributes, name, True)

    def set(self, attributes: Attributes, name: str, present: bool) -> Attributes:
        if name in SHIFTS:
            factor, value = SHIFTS[name]
            changed = attributes.replace(**{factor: value if present else 0.0})
            if present and factor == "colour":
                style = changed["style"]
                return changed.replace(style=torch.where(style == SKETCH, 0.0, style))
            return changed
        if name in CLASSES:
            index = CLASSES.index(name)
            return attributes.replace(**{"class": float((index + (not present)) % len(CLASSES))})
        index = float(CLASSES.index(next(k for k, state in STATES.items() if state == name)))
        if present:
            return attributes.replace(**{"class": index, "state": 1.0})
        kept = torch.where(attributes["class"] == index, 0.0, attributes["state"])
        return attributes.replace(state=kept)

    def excluded(self, name: str, value: str, other: str, wanted: str) -> str:
        """Why no image can show both values, or "" if one can."""
        values = {name: value, other: wanted}
        kind = values.get("class")
        if "state" in values and kind is not None and kind not in STATES:
            return f"since the class {kind} has no state"
        if values.get("style") == "pencil sketch" and values.get("colour", "own") != "own":
            return "since a pencil sketch shows no colour"
        return ""

    def labels(self, attributes: Attributes) -> Tensor:
        kind, on = attributes["class"], attributes["state"] > 0.5
        sketch = attributes["style"] == SKETCH
        columns = [kind == index for index in range(len(CLASSES))]
        columns += [(kind == CLASSES.index(name)) & on for name in STATES]
        for factor, value in SHIFTS.values():
            shown = attributes[factor] == value
            columns.append(shown & ~sketch if factor == "colour" else shown)
        return torch.stack(columns, 1)

    def groups(self, attributes: Attributes) -> dict[str, Tensor]:
        """Multi-way truth, each (B,) int64; -1 where it cannot be seen.

        class (12), superclass (5), state (2; -1 for classes without), background (8), weather (3),
        light (5), colour (6; -1 in a pencil sketch), beside (3), style (4).
        """
        kind = attributes["class"].long()
        above = [next(i for i, m in enumerate(SUPERCLASSES.values()) if c in m) for c in CLASSES]
        stateful = torch.tensor([name in STATES for name in CLASSES], device=kind.device)
        truth = {
            "class": kind,
            "superclass": torch.tensor(above, device=kind.device)[kind],
            "state": torch.where(stateful[kind], attributes["state"].long(), -1),
            **{factor: attributes[factor].long() for factor in FACTORS},
        }
        truth["colour"] = torch.where(truth["style"] == SKETCH, -1, truth["colour"])
        return truth

    def draw(self, attributes: Attributes, size: int) -> Tensor:
        return draw_scene(attributes, size)

    def render_context(self, attributes: Attributes, size: int | None = None) -> Tensor:
        """The same pictures (B, 3, size, size) without their objects, states and shadows.

        All else stands where it stood: the place, its light and weather, who was beside the object
        and the box in front. The class makes no difference.
        """
        return self.in_chunks(partial(draw_scene, objects=False), attributes, size)

    def masks(self, attributes: Attributes, size: int | None = None) -> dict[str, Tensor]:
        """Visible coverage (B, size, size) in [0, 1] of each of five:

        object; state (what a state adds: food, harness, tank, steam); beside (person, flower);
        occluder (the box in front); context (all that is not object).
        """
        return scene_masks(attributes, size or self.size)


scenes = Scenes()
