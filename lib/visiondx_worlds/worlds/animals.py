"""The `animals` world: cats and dogs whose every attribute is known."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from visiondx_worlds.worlds.animals_draw import draw_animal
from visiondx_worlds.worlds.animals_shape import animal_keypoints
from visiondx_worlds.worlds.base import Attributes, World, category, presence, uniform
from visiondx_worlds.worlds.captions import AttributeGrammar

FUR_COLOURS = ("white", "orange", "brown", "grey", "black")
PATTERNS = ("striped", "plain", "patched", "spotted")
EYE_COLOURS = ("green", "amber", "blue", "brown")
MARKINGS = ("none", "blaze", "goggles", "cap")

# What a breed fixes: its fur and how its head is built. Five a species, each fur colour once, the
# same patterns on both sides, so that neither colour nor pattern tells the species by itself.
LOOK = (
    *("fur_colour", "pattern", "mark_choice", "muzzle_choice", "marking", "ear_choice"),
    *("fur_shade", "head_width", "head_height", "eye_gap", "eye_size", "ear_size", "muzzle_width"),
)
BREEDS = {
    # cats
    "siamese": (0, 1, 0, 0, 2, 1, -0.8, -0.9, 0.6, -0.3, 0.4, 0.9, -0.8),
    "bengal": (1, 3, 1, 0, 0, 0, 0.2, -0.4, 0.0, 0.3, -0.5, -0.6, 0.2),
    "maine coon": (2, 0, 1, 0, 1, 0, 0.0, 0.9, 0.7, 0.6, -0.2, 1.0, 0.8),
    "chartreux": (3, 1, 0, 1, 3, 1, -0.5, 1.0, -0.8, 0.8, 0.8, -0.9, 0.5),
    "tuxedo": (4, 2, 0, 0, 1, 0, -0.3, 0.1, -0.4, 0.0, 0.2, 0.0, -0.1),
    # dogs
    "dalmatian": (0, 3, 0, 0, 0, 1, 0.6, -0.2, 0.3, 0.2, -0.4, 0.2, 0.3),
    "shiba": (1, 1, 0, 0, 2, 0, 0.0, 0.9, -0.8, 0.5, -0.7, -0.7, -0.3),
    "beagle": (2, 2, 0, 0, 1, 0, 0.4, 0.1, -0.1, -0.4, 0.6, 1.0, 0.4),
    "greyhound": (3, 0, 1, 1, 0, 1, -0.2, -1.0, 1.0, -0.8, 0.0, -0.4, -0.9),
    "rottweiler": (4, 1, 1, 1, 3, 0, -0.6, 1.0, 0.1, 0.8, -0.6, -0.9, 1.0),
}
_EACH = len(BREEDS) // 2

# P(present | cat), P(present | dog), in the world as it is.
FOLLOWS = {
    "slit_pupils": (0.78, 0.22),
    "pink_nose": (0.58, 0.42),
    "pointed_ears": (0.76, 0.28),
    "long_muzzle": (0.26, 0.72),
    "whiskers": (0.78, 0.36),
    "tongue": (0.36, 0.60),
}
# Colour of the eyes and pattern: cats are moved down and dogs up the order of the categories.
MOVES = {"eye_colour": 0.55, "pattern": 0.35}
_MOVED = {
    **{name: torch.special.ndtri(torch.tensor(p)).tolist() for name, p in FOLLOWS.items()},
    **{name: (-move, move) for name, move in MOVES.items()},
}


def _value(column: str, names: tuple[str, ...], present: str, absent: str) -> tuple[str, int, int]:
    return column, names.index(present), names.index(absent)


# Binary attributes that are one value of a column; where absent, another value takes its place.
_VALUES = {
    "green_eyes": _value("eye_colour", EYE_COLOURS, "green", "brown"),
    "striped_fur": _value("pattern", PATTERNS, "striped", "plain"),
    "spotted_fur": _value("pattern", PATTERNS, "spotted", "plain"),
    "patched_fur": _value("pattern", PATTERNS, "patched", "plain"),
    "white_fur": _value("fur_colour", FUR_COLOURS, "white", "brown"),
    "black_fur": _value("fur_colour", FUR_COLOURS, "black", "brown"),
}


class Animals(World):
    """Heads of cats and dogs, 64 x 64, with pose, light and clutter as nuisances.

    What makes a cat is drawn for itself: a broad head with tufted cheeks, a small nose in a wedge
    and a mouth like a ω; a dog's head is long and jowly, its nose a bulb over a wide mouth. Pupils,
    ears, muzzle, whiskers, nose colour, tongue, eye colour and pattern merely *follow* the species,
    with overlap (`FOLLOWS`, `MOVES`), so that a classifier can lean on the wrong one.

    An attribute that can be there or not is an amount in [0, 1] (`base.presence`). Half of the
    animals are of a breed, which fixes the columns `LOOK`; the others are mixed (breed 0).

    Args:
        balanced: nothing follows the species: every attribute of `FOLLOWS` has share one half.
            The world is otherwise the same (columns, pictures, words). `sample(given={"cat": …})`
            on the world as it is also parts species and attributes, row by row.
    """

    name = "animals"
    binary = (
        "cat",
        "slit_pupils",
        "green_eyes",
        "pink_nose",
        "pointed_ears",
        "long_muzzle",
        "striped_fur",
        "spotted_fur",
        "patched_fur",
        "white_fur",
        "black_fur",
        "whiskers",
        "tongue",
        "collar",
    )
    columns: ClassVar = {
        # how the head is built and what colours it has: a breed fixes them
        "head_width": uniform(-1, 1),
        "head_height": uniform(-1, 1),
        "eye_gap": uniform(-1, 1),
        "eye_size": uniform(-1, 1),
        "ear_size": uniform(-1, 1),
        "muzzle_width": uniform(-1, 1),
        "fur_colour": category((0.23, 0.22, 0.16, 0.16, 0.23)),
        "fur_shade": uniform(-1, 1),
        "pattern": category((0.27, 0.19, 0.27, 0.27)),
        "mark_choice": category((0.5, 0.5)),
        "muzzle_choice": category((0.5, 0.5)),
        "marking": category((0.52, 0.16, 0.16, 0.16)),
        "ear_choice": category((0.6, 0.4)),
        # what words describe
        "cat": presence(),
        "breed": category((0.5,) + (0.5 / _EACH,) * _EACH),
        "slit_pupils": presence(),
        "eye_colour": category((0.34, 0.22, 0.22, 0.22)),
        "pink_nose": presence(),
        "nose_shade": category((0.4, 0.25, 0.35)),
        "pointed_ears": presence(),
        "long_muzzle": presence(),
        "whiskers": presence(),
        "tongue": presence(),
        "tongue_shade": category((0.4, 0.3, 0.3)),
        "collar": presence(),
        "collar_hue": uniform(0, 1),
        "collar_shade": category((0.5, 0.5)),
        # pose, light, clutter, and the side of a patch
        "eye_height": uniform(-1, 1),
        "patch_side": category((0.5, 0.5)),
        "tilt": uniform(-0.17, 0.17),
        "yaw": uniform(-1, 1),
        "shift_x": uniform(-0.17, 0.17),
        "shift_y": uniform(-0.13, 0.12),
        "scale": uniform(0.84, 1.10),
        "light_gain": uniform(0.88, 1.06),
        "light_side": uniform(-1, 1),
        "light_warmth": uniform(-1, 1),
        "background_hue": uniform(0, 1),
        "background_value": uniform(0.25, 0.95),
        "background_fade": uniform(-1, 1),
        "clutter_x": uniform(-1, 1),
        "clutter_y": uniform(-1, 0.8),
        "clutter_size": uniform(0.12, 0.36),
        "clutter_hue": uniform(0, 1),
    }

    def __init__(self, balanced: bool = False) -> None:
        super().__init__()
        self.balanced = balanced
        self.grammar = AttributeGrammar("animals")

    def from_normal(self, u: Tensor) -> Attributes:
        """As `World.from_normal`, after each column that follows the species is moved by it."""
        if not self.balanced and u.ndim == 2 and u.shape[1] == self.latent_dim:
            u = u.clone()
            cat = u[:, self.names.index("cat")] > 0
            for name, (of_cat, of_dog) in _MOVED.items():
                u[:, self.names.index(name)] += torch.where(cat, of_cat, of_dog).to(u)
        return super().from_normal(u)

    def resolve(self, attributes: Attributes) -> Attributes:
        kind = self._breed(attributes)
        looks = attributes.values.new_tensor([(0.0,) * len(LOOK), *BREEDS.values()])[kind]
        of_breed = kind > 0
        return attributes.replace(
            **{
                name: torch.where(of_breed, looks[:, i], attributes[name])
                for i, name in enumerate(LOOK)
            }
        )

    @staticmethod
    def _breed(attributes: Attributes) -> Tensor:
        """(B,) int64: 0 mixed, then the index in `BREEDS` plus one."""
        within = attributes["breed"].long()
        dog = (attributes["cat"] < 0.5) & (within > 0)
        return within + _EACH * dog.long()

    def set(self, attributes: Attributes, name: str, present: bool) -> Attributes:
        """All rows with one binary attribute set.

        An animal whose species, fur colour or pattern is changed keeps the rest of its look, but
        is of no breed any more.
        """
        if name in _VALUES:
            column, value, other = _VALUES[name]
            now = attributes[column]
            absent = torch.where(now == value, other, now)
            changed = attributes.replace(**{column: value if present else absent})
        else:
            column, changed = name, super().set(attributes, name, present)
        return changed.replace(breed=0.0) if column in ("cat", *LOOK) else changed

    def special(self, attributes: Attributes) -> dict[str, Tensor]:
        return {name: attributes[column] == value for name, (column, value, _) in _VALUES.items()}

    def groups(self, attributes: Attributes) -> dict[str, Tensor]:
        """Multi-way truth, each (B,) int64: breed (0 mixed, then `BREEDS`), fur colour (5),
        pattern (4) and eye colour (4)."""
        return {
            "breed": self._breed(attributes),
            "fur_colour": attributes["fur_colour"].long(),
            "pattern": attributes["pattern"].long(),
            "eye_colour": attributes["eye_colour"].long(),
        }

    def draw(self, attributes: Attributes, size: int) -> Tensor:
        return draw_animal(attributes, size)[0]

    def masks(self, attributes: Attributes, size: int | None = None) -> dict[str, Tensor]:
        """Visible coverage of each part, (B, size, size) in [0, 1]; hidden parts are cut away."""
        return draw_animal(attributes, size or self.size, keep_parts=True)[1]

    def keypoints(self, attributes: Attributes) -> Tensor:
        """(B, 17, 2) keypoints, x and y in [0, 1] of the picture, tied to the geometry."""
        return animal_keypoints(attributes)


animals = Animals()
animals_balanced = Animals(balanced=True)
