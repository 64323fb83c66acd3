"""What stands beside or before the object: a person, a flower, shadows, a box in front."""

from __future__ import annotations

import torch
from torch import Tensor

from visiondx_worlds.worlds.base import Attributes
from visiondx_worlds.worlds.scenes_backdrop import horizon
from visiondx_worlds.worlds.scenes_objects import place
from visiondx_worlds.worlds.scenes_shapes import Layer, by_group, rounded
from visiondx_worlds.worlds.sdf import both, box, ellipse, hsv, pick, rgb, segment, union

BESIDE = ("nothing", "person", "flower")
SKIN = ((0.98, 0.84, 0.72), (0.88, 0.68, 0.50), (0.68, 0.46, 0.32), (0.42, 0.28, 0.20))
HAIR = ((0.12, 0.09, 0.09), (0.42, 0.25, 0.12), (0.90, 0.74, 0.36), (0.66, 0.66, 0.68))
PETALS = ((0.95, 0.35, 0.62), (0.98, 0.98, 0.96), (0.70, 0.36, 0.85), (0.92, 0.16, 0.22))


def _person(layer: Layer, a: Attributes, x: Tensor, y: Tensor) -> None:
    """Standing, facing us; x, y with the feet at y = 1 and the top of the head at y = -1."""
    skin, hair = pick(SKIN, a["skin"]), pick(HAIR, a["hair"])
    shirt = hsv(a["shirt_hue"], 0.62, 0.80)
    trousers = hsv((a["shirt_hue"] + 0.45) % 1, 0.45, 0.38)
    m = x.abs()
    ink = 0.03
    layer.outlined(box(m, y, 0.10, 0.62, 0.085, 0.38), trousers, ink)
    layer.outlined(box(m, y, 0.12, 0.985, 0.11, 0.03), rgb(x, 0.15, 0.12, 0.12), 0.02)
    arms = segment(m, y, 0.25, -0.34, 0.32, 0.22, 0.065)
    layer.outlined(arms, shirt * 0.85, ink)
    layer.outlined(ellipse(m, y, 0.325, 0.27, 0.065, 0.07), skin, 0.02)
    layer.outlined(rounded(x, y, 0.0, -0.05, 0.235, 0.37, 0.12), shirt, ink)
    layer.paint(box(x, y, 0.0, -0.45, 0.07, 0.07), skin * 0.8)
    long = rounded(x, y, 0.0, -0.62, 0.235, 0.28, 0.18)
    layer.outlined(long, hair, ink, (a["hair"] % 2)[:, None, None])
    head = ellipse(x, y, 0.0, -0.70, 0.195, 0.23)
    layer.outlined(head, skin, ink)
    layer.paint(both(head - 0.02, y + 0.78 + 0.3 * m), hair)
    layer.paint(ellipse(m, y, 0.075, -0.68, 0.034, 0.040), rgb(x, 0.08, 0.06, 0.06))
    layer.paint(segment(x, y, -0.06, -0.575, 0.06, -0.575, 0.018), rgb(x, 0.70, 0.20, 0.20))


def _flower(layer: Layer, a: Attributes, x: Tensor, y: Tensor) -> None:
    """A large daisy on a leafy stem; x, y with the root at y = 1."""
    green = rgb(x, 0.14, 0.52, 0.16)
    layer.outlined(segment(x, y, 0.0, -0.2, 0.0, 1.0, 0.04), green, 0.03)
    leaves = ellipse(x.abs(), y + 0.6 * x.abs(), 0.18, 0.62, 0.17, 0.075)
    layer.outlined(leaves, green, 0.03)
    petal = pick(PETALS, a["petals"])
    angle = torch.atan2(y + 0.42, x + 1e-6)
    radius = torch.sqrt(x * x + (y + 0.42) ** 2 + 1e-9)
    bloom = radius - 0.36 - 0.10 * torch.cos(6 * angle)
    layer.outlined(bloom * 0.8, petal, 0.035, shade=0.45)
    layer.outlined(radius - 0.16, rgb(x, 0.99, 0.80, 0.16), 0.03, shade=0.6)


def draw_beside(a: Attributes, u: Tensor, v: Tensor) -> Layer:
    """A person or a flower on the side where the object leaves more room; empty for nothing."""
    _, cx, _, ground = (t[:, None, None] for t in place(a))
    side = torch.where(cx > 0, -1.0, 1.0)
    grid = u.expand(len(a), -1, -1)

    def draw(kind: int, rows: Tensor) -> tuple[Tensor, ...]:
        part, s = a[rows], side[rows]
        tall, base = (0.65, 0.72 + 0.2 * ground[rows]) if kind == 1 else (0.52, 0.92)
        x, y = (grid[rows] - 0.74 * s) / tall, (v - base) / tall + 1
        layer = Layer(x, 2 / u.shape[-1] / tall)
        if kind:
            (_person if kind == 1 else _flower)(layer, part, x, y)
        return layer.tensors

    layer = Layer(grid, 2 / u.shape[-1])
    layer.tensors = by_group(a["beside"].long(), draw)
    return layer


def draw_clutter(a: Attributes, u: Tensor, v: Tensor) -> Layer:
    """What lies about behind the object: a ball, and a picture on the wall or a cloud-like blob."""
    grid, line = u.expand(len(a), -1, -1), v.expand(len(a), -1, -1)
    layer = Layer(grid, 2 / u.shape[-1])
    x, y, hue = a["clutter_x"][:, None, None], a["clutter_y"], a["clutter_hue"]
    at = horizon(a) + 0.18 + 0.45 * y[:, None, None]
    on = a["clutter"][:, None, None]
    r = 0.11 + 0.07 * y[:, None, None]
    ball = ellipse(grid, line, x, at, r, r)
    colour = hsv(hue, 0.45, 0.72)
    layer.outlined(ball, colour, 0.02, on, shade=0.5)
    shine = ellipse(grid, line, x - 0.3 * r, at - 0.3 * r, 0.4 * r, 0.4 * r)
    layer.paint(shine, colour * 0.5 + 0.5, on)
    return layer


def draw_occluder(a: Attributes, u: Tensor, v: Tensor) -> Layer:
    """A wooden box in front, before one lower corner of the object."""
    size, cx, _, ground = (t[:, None, None] for t in place(a))
    grid, line = u.expand(len(a), -1, -1), v.expand(len(a), -1, -1)
    layer = Layer(grid, 2 / u.shape[-1])
    half = 0.20 + 0.05 * a["occluder_size"][:, None, None]
    x, y = grid - cx - 0.85 * size * a["occluder_x"][:, None, None], line - ground + 0.02
    wood = hsv(0.06 + 0.03 * a["occluder_size"], 0.40, 0.66)
    on = a["occluder"][:, None, None]
    crate = rounded(x, y, 0.0, 0.0, half, half * 0.8, 0.02)
    layer.outlined(crate, wood, 0.025, on)
    planks = union((x.abs() - half * 0.45).abs() - 0.012, (y.abs() - half * 0.55).abs() - 0.012)
    layer.paint(both(planks, crate), wood * 0.6, on)
    return layer


def shadow(a: Attributes, u: Tensor, v: Tensor) -> Tensor:
    """(B, H, W) darkness of the object's shadow on the ground, longer in bright sunlight."""
    size, cx, _, ground = (t[:, None, None] for t in place(a))
    sun = (a["light"] == 1).to(u.dtype)[:, None, None]
    side = torch.where(cx > 0, 1.0, -1.0)  # the sun stands on the other side
    reach = 0.55 * size * sun
    d = ellipse(u, v, cx + side * reach, ground + 0.01, size * 0.80 + reach, 0.055 + 0.05 * sun)
    return torch.sigmoid(-d / 0.03) * (0.38 + 0.22 * sun)
