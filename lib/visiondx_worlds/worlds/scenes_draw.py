"""One picture of the `scenes` world, put together from its layers."""

from __future__ import annotations

import torch
from torch import Tensor

from visiondx_worlds.worlds.base import Attributes
from visiondx_worlds.worlds.scenes_backdrop import draw_backdrop
from visiondx_worlds.worlds.scenes_company import draw_beside, draw_clutter, draw_occluder, shadow
from visiondx_worlds.worlds.scenes_objects import draw_object, place
from visiondx_worlds.worlds.scenes_shapes import Layer
from visiondx_worlds.worlds.scenes_style import restyle
from visiondx_worlds.worlds.scenes_weather import TINT, light_behind, weather
from visiondx_worlds.worlds.sdf import coordinates, pick, warmth


def draw_scene(a: Attributes, size: int, objects: bool = True) -> Tensor:
    """Images (B, 3, size, size) in [0, 1]; without `objects`, of what surrounds them alone."""
    u, v = coordinates(size, a.values)
    picture = draw_backdrop(a, u, v)
    if objects:
        picture = picture * (1 - shadow(a, u, v))[:, None]
    picture = draw_clutter(a, u, v).over(picture)
    side = torch.where(place(a)[1] > 0, -1.0, 1.0)[:, None, None]
    picture = light_behind(a, picture, u, v, side)
    light = pick(TINT, a["light"])
    thing = draw_object(a, u, v) if objects else Layer(u.expand(len(a), -1, -1), 2 / size)
    front, beside = draw_occluder(a, u, v), draw_beside(a, u, v)
    picture = beside.over(picture, light)
    picture = front.over(thing.over(picture, light), light)
    picture = picture * a["light_gain"][:, None, None, None] * warmth(0.03 * a["light_warmth"])
    shown = thing.cover * (1 - front.cover)
    picture = weather(a, picture, shown, u, v)
    return restyle(a, picture, torch.maximum(shown, 0.7 * beside.cover), u, v)


def scene_masks(a: Attributes, size: int) -> dict[str, Tensor]:
    """Visible coverage (B, size, size) of object, state, beside, occluder, and of the context."""
    u, v = coordinates(size, a.values)
    thing, front, beside = draw_object(a, u, v), draw_occluder(a, u, v), draw_beside(a, u, v)
    clear = 1 - front.cover
    return {
        "object": thing.main * clear,
        "state": thing.state * clear,
        "beside": beside.cover * (1 - thing.cover) * clear,
        "occluder": front.cover,
        "context": 1 - thing.main * clear,
    }
