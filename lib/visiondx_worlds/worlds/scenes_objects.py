"""The object of a scene: which class, where, how large and of what colour."""

from __future__ import annotations

from types import SimpleNamespace

import torch
from torch import Tensor

from visiondx_worlds.worlds.base import Attributes
from visiondx_worlds.worlds.scenes_animals import ANIMALS
from visiondx_worlds.worlds.scenes_shapes import Layer, by_group
from visiondx_worlds.worlds.scenes_things import THINGS
from visiondx_worlds.worlds.sdf import pick, rgb

DRAWN = {**ANIMALS, **THINGS}
STATES = {
    "dog": "harness",
    "bird": "spread wings",
    "fish": "tank",
    "plate": "food",
    "mug": "steam",
    "umbrella": "open umbrella",
    "boat": "sails",
}
# an object's own colours: none of them one of the five that the colour shifts give
OWN = (
    (0.95, 0.94, 0.92),
    (0.62, 0.62, 0.65),
    (0.27, 0.26, 0.29),
    (0.47, 0.29, 0.17),
    (0.80, 0.68, 0.52),
    (0.93, 0.62, 0.74),
    (0.56, 0.32, 0.66),
)
GIVEN = (
    (0.14, 0.34, 0.95),
    (0.13, 0.70, 0.20),
    (0.90, 0.08, 0.10),
    (1.00, 0.90, 0.08),
    (1.00, 0.50, 0.02),
)


def body_colour(a: Attributes) -> Tensor:
    """(B, 3, 1, 1): the given colour, else the object's own."""
    given = a["colour"].long() > 0
    shade = (1 + 0.06 * a["shade"])[:, None, None, None]
    own = pick(OWN, a["own_colour"])
    colour = pick(GIVEN, (a["colour"] - 1).clamp(min=0))
    return torch.where(given[:, None, None, None], colour, own) * shade


def place(a: Attributes) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Half-width, centre and ground line of the object, each (B,), in the picture's units."""
    size = a["size"]
    cx = a["place_x"] * (1 - size) * 0.95
    # the ground line: as low as the picture allows, at least so low that the top is inside
    low = (1.92 * size - 0.92).clamp(min=0.22)
    ground = low + (0.92 - low) * a["place_y"]
    return size, cx, ground - 0.9 * size, ground


def draw_object(a: Attributes, u: Tensor, v: Tensor) -> Layer:
    """The object's layer; u, v (H, W) are the picture's coordinates."""
    size, cx, cy, _ = (t[:, None, None] for t in place(a))
    cos, sin = torch.cos(a["tilt"])[:, None, None], torch.sin(a["tilt"])[:, None, None]
    wide = size * (1 + 0.06 * a["stretch"])[:, None, None]
    tall = size * (1 - 0.06 * a["stretch"])[:, None, None]
    du, dv = u - cx, v - cy
    flip = 1 - 2 * a["mirrored"][:, None, None]
    x, y = (cos * du + sin * dv) / wide * flip, (cos * dv - sin * du) / tall
    body, pixel = body_colour(a), (2 / u.shape[-1]) / size
    classes = tuple(DRAWN)

    def draw(kind: int, rows: Tensor) -> tuple[Tensor, ...]:
        layer = Layer(x[rows], pixel[rows])
        DRAWN[classes[kind]](
            SimpleNamespace(
                layer=layer,
                x=x[rows],
                y=y[rows],
                body=body[rows],
                dark=rgb(x, 0.07, 0.06, 0.08),
                ink=0.05,
                state=a["state"][rows, None, None],
                pose=a["pose"][rows, None, None],
            )
        )
        return layer.tensors

    layer = Layer(x, pixel)
    layer.tensors = by_group(a["class"].long(), draw)
    return layer
