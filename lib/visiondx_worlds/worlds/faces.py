"""The `faces` world: people whose every attribute is known."""

from __future__ import annotations

from itertools import pairwise
from typing import ClassVar

import torch
from torch import Tensor

from visiondx_worlds.worlds.base import Attributes, World, category, pieces, presence, uniform
from visiondx_worlds.worlds.captions import AttributeGrammar
from visiondx_worlds.worlds.faces_draw import draw_face, face_keypoints

SKIN_TONES = ("pale", "light", "medium", "tan", "brown", "dark")
AGE_RANGES = ("child", "teenager", "young adult", "middle-aged", "older", "elderly")
HAIR_COLOURS = ("black", "brown", "blond", "red", "grey")
AGES = ((6.0, 10.0), (13.0, 17.0), (21.0, 30.0), (45.0, 54.0), (58.0, 66.0), (70.0, 80.0))
_YOUNG_UNTIL = 38.0


class Faces(World):
    """Faces, 64 x 64, with identity, pose, light and clutter as nuisances.

    An attribute that can be there or not is an amount in [0, 1] (`base.presence`): a gap separates
    present from absent, and it is differentiable in between.
    Attributes are independent, but for what excludes itself: a bald head has neither bangs nor
    long hair.
    """

    name = "faces"
    binary = (
        "male",
        "young",
        "smiling",
        "eyeglasses",
        "hat",
        "earrings",
        "bangs",
        "bald",
        "long_hair",
        "blond_hair",
        "black_hair",
        "bushy_eyebrows",
        "pale_skin",
        "lipstick",
        "big_lips",
        "pointy_nose",
        "moustache",
        "beard",
    )
    identity = (
        "face_width",
        "face_height",
        "jaw",
        "eye_gap",
        "eye_size",
        "eye_height",
        "eye_colour",
        "nose_length",
        "mouth_width",
        "brow_height",
        "ear_size",
        "skin_tone",
        "skin_shade",
    )
    columns: ClassVar = {
        # identity: fixed for one person
        "face_width": uniform(-1, 1),
        "face_height": uniform(-1, 1),
        "jaw": uniform(-1, 1),
        "eye_gap": uniform(-1, 1),
        "eye_size": uniform(-1, 1),
        "eye_height": uniform(-1, 1),
        "eye_colour": category((0.4, 0.3, 0.3)),
        "nose_length": uniform(-1, 1),
        "mouth_width": uniform(-1, 1),
        "brow_height": uniform(-1, 1),
        "ear_size": uniform(-1, 1),
        "skin_tone": category((0.30, 0.14, 0.14, 0.14, 0.14, 0.14)),
        "skin_shade": uniform(-1, 1),
        # what words describe
        "male": presence(0.5),
        "age": pieces((1 / 6,) * 6, AGES),
        "smiling": presence(0.5),
        "eyeglasses": presence(0.45),
        "frame_colour": category((0.2, 0.25, 0.25, 0.3)),
        "frame_size": uniform(-1, 1),
        "hat": presence(0.35),
        "hat_hue": uniform(0, 1),
        "hat_brim": uniform(-1, 1),
        "earrings": presence(0.4),
        "earring_colour": category((0.3, 0.2, 0.25, 0.25)),
        "bangs": presence(0.5),
        "bald": presence(0.22),
        "long_hair": presence(0.5),
        "hair_colour": category((0.24, 0.18, 0.26, 0.16, 0.16)),
        "hair_shade": uniform(-1, 1),
        "bushy_eyebrows": presence(0.45),
        "lipstick": presence(0.45),
        "lip_hue": uniform(-1, 1),
        "big_lips": presence(0.45),
        "pointy_nose": presence(0.45),
        "moustache": presence(0.4),
        "beard": presence(0.4),
        # pose, light, clutter
        "tilt": uniform(-0.135, 0.135),
        "yaw": uniform(-1, 1),
        "shift_x": uniform(-0.175, 0.175),
        "shift_y": uniform(-0.11, 0.15),
        "scale": uniform(0.96, 1.18),
        "light_gain": uniform(0.88, 1.06),
        "light_side": uniform(-1, 1),
        "light_warmth": uniform(-1, 1),
        "background_hue": uniform(0, 1),
        "background_value": uniform(0.45, 0.9),
        "background_fade": uniform(-1, 1),
        "clutter_x": uniform(-1, 1),
        "clutter_y": uniform(-1, 0.6),
        "clutter_size": uniform(0.12, 0.34),
        "clutter_hue": uniform(0, 1),
        "clothes_hue": uniform(0, 1),
        "clothes_value": uniform(0.25, 0.85),
    }

    def __init__(self) -> None:
        super().__init__()
        self.grammar = AttributeGrammar("faces")

    def resolve(self, attributes: Attributes) -> Attributes:
        hair = (attributes["bald"] < 0.5).to(attributes.values.dtype)
        return attributes.replace(
            bangs=attributes["bangs"] * hair, long_hair=attributes["long_hair"] * hair
        )

    def set(self, attributes: Attributes, name: str, present: bool) -> Attributes:
        match name:
            case "young":
                return attributes.replace(age=25.0 if present else 60.0)
            case "pale_skin":
                return attributes.replace(skin_tone=0.0 if present else 2.0)
            case "blond_hair" | "black_hair":
                hair, colour = attributes["hair_colour"], HAIR_COLOURS.index(name.split("_")[0])
                if present:
                    return attributes.replace(hair_colour=colour, bald=0.0)
                return attributes.replace(hair_colour=torch.where(hair == colour, 1.0, hair))
        changed = super().set(attributes, name, present)
        if present and name in ("bangs", "long_hair"):
            return changed.replace(bald=0.0)
        if present and name == "bald":
            return changed.replace(bangs=0.0, long_hair=0.0)
        return changed

    def special(self, attributes: Attributes) -> dict[str, Tensor]:
        hair = attributes["bald"] < 0.5
        return {
            "young": attributes["age"] < _YOUNG_UNTIL,
            "pale_skin": attributes["skin_tone"] == 0,
            "blond_hair": (attributes["hair_colour"] == HAIR_COLOURS.index("blond")) & hair,
            "black_hair": (attributes["hair_colour"] == HAIR_COLOURS.index("black")) & hair,
        }

    def groups(self, attributes: Attributes) -> dict[str, Tensor]:
        """Multi-way truth, each (B,) int64: skin tone (6), age range (6), hair colour (5).

        The hair colour of a bald head is not visible and is -1.
        """
        middle = [(a[1] + b[0]) / 2 for a, b in pairwise(AGES)]
        edges = torch.tensor(middle, device=attributes.values.device)
        hair = attributes["hair_colour"].long()
        return {
            "skin_tone": attributes["skin_tone"].long(),
            "age_range": torch.bucketize(attributes["age"].contiguous(), edges),
            "hair_colour": torch.where(attributes["bald"] < 0.5, hair, -1),
        }

    def draw(self, attributes: Attributes, size: int) -> Tensor:
        return draw_face(attributes, size)[0]

    def masks(self, attributes: Attributes, size: int | None = None) -> dict[str, Tensor]:
        """Visible coverage of each part, (B, size, size) in [0, 1]; hidden parts are cut away."""
        return draw_face(attributes, size or self.size, keep_parts=True)[1]

    def keypoints(self, attributes: Attributes) -> Tensor:
        """(B, 26, 2) keypoints, x and y in [0, 1] of the picture, tied to the geometry."""
        return face_keypoints(attributes)


faces = Faces()
