"""Where a scene is: a plain room, or one of the seven background shifts.

Every background is opaque and fills the picture: (rows, 3, H, W), behind whatever stands in it.
`b.u`, `b.v` are the picture's coordinates (B, H, W), `b.h` the height of the horizon (B, 1, 1).
"""

from __future__ import annotations

import torch
from torch import Tensor

from visiondx_worlds.worlds.base import Attributes
from visiondx_worlds.worlds.scenes_shapes import (
    EDGE,
    FLAKES,
    NOISE,
    SHADE,
    blend,
    by_group,
    inside,
    texture,
)
from visiondx_worlds.worlds.sdf import box, ellipse, hsv, rgb, union

BACKGROUNDS = ("plain", "grass", "beach", "forest", "water", "road", "rocks", "snow")


def horizon(a: Attributes) -> Tensor:
    """(B, 1, 1): where the ground begins."""
    return (-0.16 + 0.12 * a["horizon"])[:, None, None]


class Ground:
    """The picture's coordinates and horizon, textures from a place of their own, and a sky."""

    def __init__(self, a: Attributes, u: Tensor, v: Tensor) -> None:
        self.a, self.h = a, horizon(a)
        self.u, self.v = u.expand(len(a), -1, -1), v.expand(len(a), -1, -1)
        self.ox, self.oy = a["texture_x"][:, None, None], a["texture_y"][:, None, None]
        # 0 at the horizon, 1 at the lower edge
        self.near = ((self.v - self.h) / (1 - self.h)).clamp(0, 1)

    def noise(self, fx: float, fy: float, kind: int = NOISE) -> Tensor:
        """(B, 1, H, W) texture at fx, fy times its own scale, from a place of each image."""
        return texture(kind, self.u, self.v, (fx, fy), (self.ox, self.oy))[:, None]

    def sky(self, top: Tensor, low: Tensor, clouds: float = 0.8) -> Tensor:
        """A gradient down to the horizon, with clouds."""
        fade = ((self.v + 1) / (self.h + 1)).clamp(0, 1)[:, None]
        sky = top + (low - top) * fade
        cx = 1.6 * self.ox - 0.8
        cloud = union(
            ellipse(self.u, self.v, cx, -0.72, 0.30, 0.10),
            ellipse(self.u, self.v, cx + 0.12, -0.79, 0.17, 0.11),
            ellipse(self.u, self.v, -cx * 0.7, -0.5, 0.24, 0.07),
        )
        return blend(sky, torch.ones_like(low), clouds * inside(cloud))

    def split(self, above: Tensor, below: Tensor, line: Tensor | None = None) -> Tensor:
        """One picture above the horizon, another below it."""
        return blend(above, below, inside((self.h if line is None else line) - self.v))


def plain(b: Ground) -> Tensor:
    """A wall and a floor of any dull colour, a skirting board, sometimes a striped paper."""
    wall = hsv(b.a["wall_hue"], 0.20, 0.62 + 0.30 * b.a["wall_value"])
    floor = hsv(b.a["floor_hue"], 0.22, 0.80 - 0.35 * b.a["wall_value"])
    stripes = torch.sin(b.u * 14 + 6 * b.ox)[:, None] * 0.035 * (b.ox > 0.5)[:, None]
    room = b.split(wall * (1 + stripes), floor * (0.85 + 0.15 * b.near[:, None]))
    return room * (1 - 0.35 * inside((b.v - b.h).abs() - 0.025))


def lawn_edge(b: Ground) -> Tensor:
    """(B, H, W): the ragged line where the blades begin."""
    return b.h + 0.10 * (b.noise(1.0, 0.02)[:, 0] - 0.5)


def grass(b: Ground) -> Tensor:
    """A meadow with blades, under a blue sky."""
    sky = b.sky(rgb(b.u, 0.36, 0.64, 0.95), rgb(b.u, 0.78, 0.90, 0.98))
    blades = b.noise(1.1, 0.32)
    tufts = b.noise(0.16, 0.22)
    light, dark = rgb(b.u, 0.50, 0.80, 0.22), rgb(b.u, 0.14, 0.44, 0.10)
    lawn = blend(dark, light, (0.72 * blades + 0.40 * tufts - 0.05).clamp(0, 1))
    return b.split(sky, lawn * (0.80 + 0.25 * b.near[:, None]), lawn_edge(b))


def beach(b: Ground) -> Tensor:
    """Sky, a band of sea, foam and sand, and a palm."""
    sky = b.sky(rgb(b.u, 0.42, 0.76, 0.98), rgb(b.u, 0.86, 0.95, 0.98), 0.7)
    sea = blend(
        rgb(b.u, 0.05, 0.48, 0.72), rgb(b.u, 0.22, 0.78, 0.80), (b.near * 3).clamp(0, 1)[:, None]
    )
    line = shore(b)
    sand = blend(rgb(b.u, 0.86, 0.74, 0.50), rgb(b.u, 0.99, 0.90, 0.66), b.noise(0.8, 0.8))
    picture = b.split(b.split(sky, sea), sand, line)
    foam = (b.v - line + 0.02).abs() - 0.035
    picture = blend(picture, torch.ones_like(sea), inside(foam) * 0.95)
    trunk, leaves = palm(b)
    picture = blend(picture, rgb(b.u, 0.48, 0.33, 0.18), inside(trunk))
    return blend(picture, rgb(b.u, 0.10, 0.46, 0.20), inside(leaves))


def shore(b: Ground) -> Tensor:
    """(B, H, W): the line where sea ends and sand begins."""
    return b.h + 0.26 + 0.06 * torch.sin(b.u * 3.2 + 9 * b.ox) + 0.10 * b.u * (b.oy - 0.5)


def palm(b: Ground) -> tuple[Tensor, Tensor]:
    """Distances (B, H, W) to the trunk and to the leaves of the palm on the beach."""
    side = torch.where(b.ox > 0.5, 1.0, -1.0)
    x, y = b.u * side - 0.72, b.v
    trunk = box(x + 0.25 * (y + 0.25) ** 2, y, 0.05, -0.12, 0.035, 0.42)
    leaves = [
        ellipse(x - dx, y + 0.56 - 0.9 * (x - dx) * (dx * 6), 0.0, dy, 0.24, 0.05)
        for dx, dy in ((-0.17, -0.02), (0.17, -0.02), (-0.11, 0.08), (0.12, 0.08))
    ]
    return trunk, union(*leaves)


def _pines(b: Ground, count: float, base: Tensor, height: float, offset: Tensor) -> Tensor:
    """Distance to a row of firs of two tiers that stand on `base`."""
    t = b.u * count + 5 * offset
    cell = t.floor()
    x = (t - cell - 0.5) / count
    tall = height * (0.72 + 0.28 * torch.sin(cell * 2.4 + 9 * offset))
    rise = (base - b.v) / tall  # 0 at the foot, 1 at the tip
    tier = torch.where(rise > 0.5, 1.02 - rise, 0.80 - 0.75 * rise)
    return torch.maximum(x.abs() - 0.62 / count * tier, torch.maximum(b.v - base, -rise * tall))


def forest(b: Ground) -> Tensor:
    """Dark firs behind, thick trunks in front of them, a mossy floor."""
    gloom = blend(
        rgb(b.u, 0.55, 0.70, 0.50), rgb(b.u, 0.24, 0.42, 0.26), (b.v + 1)[:, None].clamp(0, 1)
    )
    far = _pines(b, 3.2, b.h + 0.04, 0.95, b.ox)
    picture = blend(gloom, rgb(b.u, 0.10, 0.32, 0.17), inside(far))
    floor = blend(rgb(b.u, 0.16, 0.22, 0.08), rgb(b.u, 0.36, 0.34, 0.16), b.noise(0.7, 0.5))
    picture = b.split(picture, floor, b.h + 0.03 * torch.sin(7 * b.u))
    t = b.u * 1.7 + 3 * b.oy
    x = (t - t.floor() - 0.5) / 1.7
    foot = b.h + 0.10 + 0.08 * torch.sin(t.floor() * 3.0)
    trunks = torch.maximum(x.abs() - 0.075 - 0.05 * (b.v - foot + 0.25).clamp(0, 0.25), b.v - foot)
    bark = rgb(b.u, 0.32, 0.20, 0.11) * (0.65 + 0.7 * b.noise(0.9, 0.10))
    picture = blend(picture, bark, inside(trunks))
    crown = b.v + 0.80 + 0.10 * torch.sin(9 * b.u + 7 * b.ox) + 0.05 * torch.sin(23 * b.u)
    leaf = rgb(b.u, 0.14, 0.40, 0.15) * (0.7 + 0.6 * b.noise(0.5, 0.5))
    return blend(picture, leaf, inside(crown))


def sea_line(b: Ground) -> Tensor:
    """(B, 1, 1): the height of the open water's horizon."""
    return b.h - 0.42


def water(b: Ground) -> Tensor:
    """Open water with waves nearly up to the top."""
    line = sea_line(b)
    sky = b.sky(rgb(b.u, 0.62, 0.80, 0.94), rgb(b.u, 0.90, 0.95, 0.97), 0.5)
    depth = (b.v - line).clamp(0, 2)
    bend = 0.10 * torch.sin(5.0 * b.u + 8 * b.ox + 3 * b.v) + 0.06 * torch.sin(11 * b.u - 5 * b.oy)
    wave = torch.sin(26 * torch.sqrt(depth + 0.05) + 9 * bend + 6 * b.oy)[:, None]
    deep, light = rgb(b.u, 0.04, 0.28, 0.56), rgb(b.u, 0.20, 0.58, 0.82)
    sea = blend(deep, light, 0.5 + 0.5 * wave)
    crest = ((wave - 0.80) * 5).clamp(0, 1) * ((b.noise(0.22, 0.5) - 0.35) * 8).clamp(0, 1)
    sea = blend(sea, torch.full_like(sea, 0.94), 0.85 * crest)
    return b.split(sky, sea, line)


def lane(b: Ground) -> tuple[Tensor, Tensor]:
    """Across the road, -1 and 1 at its edges, and half its width, both (B, H, W)."""
    vanish = 0.5 * b.ox - 0.25
    wide = 0.10 + 1.02 * b.near
    return (b.u - vanish * (1 - b.near)) / wide, wide


def road(b: Ground) -> Tensor:
    """Asphalt in perspective with edge lines and a dashed middle, between dry verges."""
    sky = b.sky(rgb(b.u, 0.55, 0.70, 0.86), rgb(b.u, 0.88, 0.91, 0.93), 0.6)
    verge = rgb(b.u, 0.70, 0.62, 0.44) * (0.85 + 0.25 * b.noise(0.6, 0.4))
    picture = b.split(sky, verge)
    across, wide = lane(b)
    below = b.h - b.v
    asphalt = rgb(b.u, 0.33, 0.34, 0.37) * (0.9 + 0.2 * b.noise(1.0, 1.0))
    picture = blend(picture, asphalt, inside(torch.maximum((across.abs() - 1) * wide, below)))
    white = rgb(b.u, 0.97, 0.97, 0.93)
    edges = ((across.abs() - 0.86).abs() - 0.055) * wide
    picture = blend(picture, white, inside(torch.maximum(edges, below)))
    dash = torch.sin(9.0 / (b.near + 0.28) + 6 * b.oy)
    middle = torch.maximum((across.abs() - 0.055) * wide, -0.12 * dash)
    return blend(picture, white, inside(torch.maximum(middle, below)))


def peaks(b: Ground) -> Tensor:
    """(B, H, W): distance to the two peaks behind the stones."""
    two = union(
        (b.u - 1.4 * b.ox + 0.4).abs() * 0.75 - (b.v + 0.80),
        (b.u + 1.2 * b.oy - 0.2).abs() * 0.6 - (b.v + 0.62),
    )
    return two * 0.8


def heap(b: Ground) -> Tensor:
    """(B, H, W): the line where the stones begin."""
    return b.h + 0.07 * torch.sin(8 * b.u + 5 * b.ox)


def rocks(b: Ground) -> Tensor:
    """Heaped stones below grey peaks."""
    sky = b.sky(rgb(b.u, 0.60, 0.72, 0.84), rgb(b.u, 0.86, 0.88, 0.90), 0.5)
    picture = blend(sky, rgb(b.u, 0.52, 0.52, 0.56), inside(peaks(b)))
    edge, shade = b.noise(0.62, 0.90, EDGE), b.noise(0.62, 0.90, SHADE)
    warm = blend(rgb(b.u, 0.42, 0.40, 0.40), rgb(b.u, 0.74, 0.70, 0.66), shade)
    stones = warm * (0.22 + 0.95 * (edge * 2.6).clamp(0, 1) ** 0.6)
    return b.split(picture, stones, heap(b))


def firs(b: Ground) -> Tensor:
    """(B, H, W): distance to the firs in the snow."""
    return _pines(b, 1.9, b.h + 0.06, 0.72, b.ox)


def drifts(b: Ground) -> Tensor:
    """(B, H, W): the line where the snow on the ground begins."""
    return b.h + 0.05 * torch.sin(4 * b.u + 7 * b.ox)


def snow(b: Ground) -> Tensor:
    """White drifts, firs under snow, flakes in the air."""
    sky = b.sky(rgb(b.u, 0.56, 0.66, 0.80), rgb(b.u, 0.80, 0.86, 0.93), 0.3)
    trees = firs(b)
    picture = blend(sky, rgb(b.u, 0.16, 0.34, 0.32), inside(trees))
    caps = torch.maximum(trees + 0.02, 0.10 - (b.noise(0.5, 0.5)[:, 0] - 0.42))
    picture = blend(picture, torch.ones_like(picture), inside(caps))
    drift = torch.sin(3.0 * b.u + 5 * b.v + 8 * b.oy)[:, None]
    ground = blend(rgb(b.u, 0.80, 0.87, 0.97), rgb(b.u, 1.0, 1.0, 1.0), 0.6 + 0.4 * drift)
    picture = b.split(picture, ground, drifts(b))
    return blend(picture, torch.ones_like(picture), b.noise(0.75, 0.75, FLAKES))


_DRAWN = (plain, grass, beach, forest, water, road, rocks, snow)


def draw_backdrop(a: Attributes, u: Tensor, v: Tensor) -> Tensor:
    """(B, 3, H, W): each image's background."""

    def draw(kind: int, rows: Tensor) -> tuple[Tensor]:
        ground = Ground(a[rows], u, v)
        return (_DRAWN[kind](ground).expand(-1, 3, -1, -1),)

    return by_group(a["background"].long(), draw)[0]
