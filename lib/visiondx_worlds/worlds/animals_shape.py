"""Shapes of the `animals` world: signed distances and keypoints in a head's own frame.

The frame has the head's centre at (0, 0.04), x to the right, y down; one unit is half a picture at
scale 1. Everything is a broadcast over (B, H, W), without a loop over images.
"""

from __future__ import annotations

from types import SimpleNamespace

import torch
from torch import Tensor

from visiondx_worlds.worlds.base import Attributes
from visiondx_worlds.worlds.portrait import Point, in_picture
from visiondx_worlds.worlds.sdf import both, circle, ellipse, segment, union

CENTRE = 0.04  # of the head
FLOP = 0.145  # half the width of a floppy ear


def geometry(a: Attributes) -> SimpleNamespace:
    """Sizes and places of the parts, each (B, 1, 1)."""
    g = SimpleNamespace(**{name: a[name][:, None, None] for name in a.names})
    g.hw = 0.51 + 0.03 * g.head_width + 0.10 * g.cat
    g.hh = 0.59 + 0.03 * g.head_height - 0.09 * g.cat
    g.gap = 0.255 + 0.018 * g.eye_gap + 0.03 * g.cat
    g.ey = -0.07 + 0.025 * g.eye_height
    g.eye = 0.150 + 0.012 * g.eye_size
    g.ny = 0.155 + 0.235 * g.long_muzzle  # middle of the nose
    g.mx = 0.25 + 0.025 * g.muzzle_width  # the muzzle's half-axes and middle
    g.mr = 0.165 + 0.165 * g.long_muzzle
    g.my = g.ny + 0.085 - 0.08 * g.long_muzzle
    g.tip = -0.77 - 0.05 * g.ear_size  # of a pointed ear
    g.hang = 0.12 + 0.05 * g.ear_size - 0.20 * g.cat  # of a floppy one
    g.turn = 0.075 * g.yaw
    return g


def outline(x: Tensor, y: Tensor, g: SimpleNamespace) -> Tensor:
    """Distance to the outline: a cat's is broad with tufted cheeks, a dog's long and jowly."""
    v = (y - CENTRE) / g.hh
    below, above = v.clamp(min=0), (-v).clamp(min=0)
    tuft = (1 - (v - 0.24).abs() / 0.24).clamp(min=0)
    tuft = torch.maximum(tuft, 1.6 * (1 - (v - 0.62).abs() / 0.26).clamp(min=0))
    dog = 1 - g.cat
    width = g.hw * (1 + 0.26 * g.cat * tuft - 0.10 * dog * above * above)
    lower = below * below
    e = v * v - 0.75 * dog * (lower - lower * lower)
    u = x / width
    return (torch.sqrt(u * u + e.clamp(min=0) + 1e-12) - 1) * g.hw


def pointed_ear(mx: Tensor, y: Tensor, g: SimpleNamespace) -> Tensor:
    """A triangle from the head's top corner up to the tip, its corners slightly round."""
    tx, bx = 0.92 * g.hw, 0.16 * g.hw  # tip, inner foot at y = -0.36; outer foot at y = 0
    inner = ((mx - bx) * (g.tip + 0.36) - (y + 0.36) * (tx - bx)) / torch.hypot(
        tx - bx, g.tip + 0.36
    )
    outer = ((mx - tx) * -g.tip - (y - g.tip) * (0.06 * g.hw)) / torch.hypot(g.tip, 0.06 * g.hw)
    return both(inner, outer, y) - 0.02


def floppy_ear(mx: Tensor, y: Tensor, g: SimpleNamespace) -> Tensor:
    """A flap from the head's top corner down to its side."""
    return segment(mx, y, 0.80 * g.hw, -0.40, g.hw + 0.05, g.hang, FLOP)


def marking(fx: Tensor, fmx: Tensor, y: Tensor, g: SimpleNamespace) -> Tensor:
    """None, a blaze down the forehead, goggles round both eyes or a cap."""
    blaze = segment(fx, y, 0.0, -0.60, 0.0, 0.10, 0.10)
    goggles = circle(fmx, y, g.gap, g.ey, g.eye + 0.085)
    cap = y + 0.27 - 0.5 * fx * fx
    distance = torch.full_like(fx, 9.0)
    for kind, shape in enumerate((blaze, goggles, cap), 1):
        distance = torch.where(g.marking == kind, shape, distance)
    return distance


def pattern(fx: Tensor, fmx: Tensor, y: Tensor, g: SimpleNamespace) -> Tensor:
    """Stripes from the rim inwards, round spots, or patches: round one eye, and the other side."""
    w = g.hw
    stripes = union(
        segment(fmx, y, 0.0, -0.58, 0.0, -0.27, 0.048),
        segment(fmx, y, 0.21, -0.56, 0.16, -0.29, 0.048),
        segment(fmx, y, w + 0.12, 0.13, w - 0.15, 0.14, 0.048),
        segment(fmx, y, w + 0.12, 0.34, w - 0.19, 0.31, 0.048),
    )
    spots = union(
        circle(fmx, y, 0.11, -0.36, 0.080),
        circle(fmx, y, 0.29, -0.33, 0.066),
        circle(fmx, y, w - 0.11, 0.16, 0.070),
        circle(fmx, y, w - 0.19, 0.34, 0.080),
    )
    flipped = fx * (2 * g.patch_side - 1)
    patches = union(
        ellipse(flipped, y, g.gap + 0.03, g.ey - 0.06, g.eye + 0.13, g.eye + 0.17),
        ellipse(flipped, y, -w, 0.42, 0.36, 0.30),
    )
    return torch.where(g.pattern == 0, stripes, torch.where(g.pattern == 3, spots, patches))


def _between(dog: float, cat: float, share: Tensor) -> Tensor:
    """A dog's size and a cat's, mixed by the share of the cat."""
    return torch.lerp(torch.full_like(share, dog), torch.full_like(share, cat), share)


def animal_keypoints(a: Attributes) -> Tensor:
    """(B, 17, 2) in [0, 1]: ear tips 2, eyes 6, nose 3, mouth 3, head's sides 2 and top."""
    g = geometry(a)
    t, p = g.turn, g.pointed_ears
    points: list[Point] = []
    for s in (-1, 1):
        tip_x = torch.lerp(g.hw + 0.05, 0.92 * g.hw, p)
        points.append((s * tip_x, torch.lerp(g.hang + FLOP, g.tip, p)))
    for s in (-1, 1):
        points += [(t + s * (g.gap + d * g.eye), g.ey) for d in (-1, 0, 1)]
    half = _between(0.145, 0.085, g.cat)
    points += [(t + d * half, g.ny) for d in (-1, 0, 1)]
    corner_x, corner_y = _between(0.195, 0.17, g.cat), g.ny + _between(0.07, 0.10, g.cat)
    points += [(t - corner_x, corner_y), (t, g.ny + 0.17), (t + corner_x, corner_y)]
    points += [(-g.hw, CENTRE), (g.hw, CENTRE), (0.0, CENTRE - g.hh)]
    return in_picture(points, g)
