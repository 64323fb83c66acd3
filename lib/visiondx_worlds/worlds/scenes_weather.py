"""Weather and light: what they put into the picture, and what they do to its colours.

Light colours the surroundings strongly and the object mildly, as a lamp or a low sun on it would,
so that the object can still be told.
"""

from __future__ import annotations

import torch
from torch import Tensor

from visiondx_worlds.worlds.base import Attributes
from visiondx_worlds.worlds.scenes_backdrop import horizon
from visiondx_worlds.worlds.scenes_shapes import (
    RAIN,
    blend,
    by_group,
    inside,
    polygon,
    texture,
    turned,
)
from visiondx_worlds.worlds.sdf import box, ellipse, rgb, union

WEATHER = ("clear", "rain", "fog")
LIGHT = ("daylight", "bright sunlight", "dusk", "night", "studio lighting")
# what the light makes of the object, of whoever stands beside it and of what lies in front
TINT = (
    (1.0, 1.0, 1.0),
    (1.12, 1.08, 0.98),
    (0.92, 0.70, 0.68),
    (0.52, 0.57, 0.74),
    (1.10, 1.10, 1.10),
)


def _sunny(p: Tensor, u: Tensor, v: Tensor, h: Tensor, side: Tensor) -> Tensor:
    """A sun with rays in an upper corner, and a warm glare from it."""
    x, y = u - 0.66 * side, v + 0.68
    radius = torch.sqrt(x * x + y * y + 1e-9)
    angle = torch.atan2(y, x + 1e-6)
    p = p * rgb(u, 1.18, 1.13, 0.98)
    glow = torch.exp(-((radius / 0.75) ** 2))[:, None]
    p = p + (rgb(u, 1.0, 0.96, 0.62) - p) * glow * 0.75
    rays = torch.maximum(0.085 * radius - 0.09 * radius * torch.cos(9 * angle), radius - 0.52)
    p = blend(p, rgb(u, 1.0, 0.98, 0.70), inside(torch.maximum(rays, 0.26 - radius)))
    p = blend(p, rgb(u, 1.0, 0.80, 0.10), inside(radius - 0.225))
    return blend(p, rgb(u, 1.0, 0.97, 0.66), inside(radius - 0.17))


def _dusk(p: Tensor, u: Tensor, v: Tensor, h: Tensor, side: Tensor) -> Tensor:
    """A violet sky that burns orange towards the horizon, where half a red sun is left."""
    above = ((h - v) / (h + 1)).clamp(0, 1)[:, None]
    below = ((v - h) / (1 - h)).clamp(0, 1)[:, None]
    tone = rgb(u, 1.10, 0.52, 0.26) * (1 - above) + rgb(u, 0.44, 0.28, 0.56) * above
    sky = tone * (0.55 + 0.45 * p)
    sun = ellipse(u, v, 0.62 * side, h, 0.24, 0.24)
    sky = blend(sky, rgb(u, 1.0, 0.86, 0.42), inside(sun))
    ground = p * (rgb(u, 0.80, 0.46, 0.38) * (1 - below) + rgb(u, 0.50, 0.32, 0.40) * below)
    return blend(ground, sky, inside(v - h))


def _night(p: Tensor, u: Tensor, v: Tensor, h: Tensor, side: Tensor) -> Tensor:
    """Dark and blue, with a crescent moon and stars."""
    p = p * rgb(u, 0.34, 0.38, 0.56)
    deep = rgb(u, 0.03, 0.05, 0.16)
    p = p + (deep - p) * 0.45 * inside(v - h)
    moon = torch.maximum(
        ellipse(u, v, 0.64 * side, -0.66, 0.22, 0.22),
        -ellipse(u, v, 0.64 * side - 0.12, -0.71, 0.18, 0.18),
    )
    p = blend(p, rgb(u, 1.0, 0.97, 0.78), inside(moon))
    stars = union(*(ellipse(u, v, x * side, y, r, r) for x, y, r in STARS))
    return blend(p, rgb(u, 1.0, 1.0, 0.92), inside(stars))


STARS = (
    (-0.80, -0.84, 0.035), (-0.42, -0.64, 0.028), (-0.10, -0.88, 0.035), (0.22, -0.62, 0.028),
    (-0.66, -0.40, 0.028), (0.34, -0.90, 0.024), (-0.24, -0.42, 0.024), (0.90, -0.36, 0.028),
)  # fmt: skip


def _studio(p: Tensor, u: Tensor, v: Tensor, h: Tensor, side: Tensor) -> Tensor:
    """Two soft boxes above a pool of light; all around it falls off into the dark."""
    pool = torch.exp(-(u * u) / 0.70 - (v - 0.25) ** 2 / 0.90)[:, None]
    faded = p.mean(1, keepdim=True) * 0.35 + p * 0.65
    p = (faded * 0.80 + 0.18) * (0.26 + 0.79 * pool)
    m = u.abs()
    beam = polygon(m, v, (0.56, -0.78), (0.86, -0.60), (0.62, 0.95), (-0.35, 0.95))
    p = p + (1 - p) * 0.16 * torch.sigmoid(-beam * 14)[:, None]
    x, y = turned(m, v, 0.74, -0.72, 0.62)
    stand = box(m, v, 0.90, 0.10, 0.025, 0.85)
    p = blend(p, 0.03, inside(torch.minimum(stand, box(x, y, 0.0, -0.02, 0.31, 0.21))))
    return blend(p, 1.0, inside(box(x, y, 0.0, 0.02, 0.25, 0.145)))


def light_behind(a: Attributes, picture: Tensor, u: Tensor, v: Tensor, side: Tensor) -> Tensor:
    """The surroundings (B, 3, H, W) under the light; `side` (B, 1, 1) is where the sun stands."""
    effects = (None, _sunny, _dusk, _night, _studio)
    h = horizon(a)

    def draw(kind: int, rows: Tensor) -> tuple[Tensor]:
        part = picture[rows]
        if kind == 0:
            return (part,)
        grid = u.expand(len(part), -1, -1), v.expand(len(part), -1, -1)
        return (effects[kind](part, *grid, h[rows], side[rows]).clamp(0, 1),)

    return by_group(a["light"].long(), draw)[0]


def weather(a: Attributes, picture: Tensor, shown: Tensor, u: Tensor, v: Tensor) -> Tensor:
    """Rain or fog over the whole picture, thinner before the object, `shown` (B, H, W)."""

    def draw(kind: int, rows: Tensor) -> tuple[Tensor]:
        part = picture[rows]
        x, y = u.expand(len(part), -1, -1), v.expand(len(part), -1, -1)
        ox, oy = (a[f"texture_{k}"][rows, None, None] for k in "xy")
        if kind == 1:
            streaks = texture(RAIN, x, y, (0.9, 0.9), (ox, oy))[:, None]
            part = part * rgb(u, 0.62, 0.66, 0.74) + rgb(u, 0.05, 0.06, 0.08)
            thick = 0.88 - 0.4 * shown[rows, None]
            part = part + (rgb(u, 0.84, 0.92, 1.0) - part) * streaks * thick
        if kind == 2:
            thick = 0.62 + 0.07 * torch.sin(2.5 * x + 6 * ox + 2 * y) - 0.24 * shown[rows]
            part = blend(part, rgb(u, 0.80, 0.82, 0.84), thick[:, None])
        return (part,)

    return by_group(a["weather"].long(), draw)[0]
