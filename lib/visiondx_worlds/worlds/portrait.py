"""What drawings of one head share, a face's or an animal's: its frame, what is behind it, light.

`g` is the head's geometry, its columns and sizes as (B, 1, 1). Its frame is tilted, shifted and
scaled in the picture: x to the right, y down, one unit is half a picture at scale 1.
"""

from __future__ import annotations

from types import SimpleNamespace

import torch
from torch import Tensor

from visiondx_worlds.worlds.base import Attributes
from visiondx_worlds.worlds.sdf import Canvas, Number, circle, coordinates, hsv, warmth

Point = tuple[Number, Number]


def frame(g: SimpleNamespace, size: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Picture coordinates u, v (H, W) and the head frame's x, y (B, H, W)."""
    u, v = coordinates(size, g.tilt)
    cos, sin = torch.cos(g.tilt), torch.sin(g.tilt)
    du, dv = (u - g.shift_x) / g.scale, (v - g.shift_y) / g.scale
    return u, v, cos * du + sin * dv, cos * dv - sin * du


def in_picture(points: list[Point], g: SimpleNamespace) -> Tensor:
    """(B, K, 2) in [0, 1] of the picture, from K points of the head's frame."""
    zero = torch.zeros_like(g.tilt)
    x, y = (torch.cat([value + zero for value in values], 1)[..., 0] for values in zip(*points))
    tilt, scale, shift_x, shift_y = (t[..., 0] for t in (g.tilt, g.scale, g.shift_x, g.shift_y))
    cos, sin = torch.cos(tilt), torch.sin(tilt)
    u, v = scale * (cos * x - sin * y) + shift_x, scale * (sin * x + cos * y) + shift_y
    return torch.stack([u, v], -1) * 0.5 + 0.5


def background(
    a: Attributes,
    u: Tensor,
    v: Tensor,
    pixel: Tensor,
    keep_parts: bool,
    saturations: tuple[float, float],
    value: float,
) -> Canvas:
    """A gradient with a ball in front; `saturations` above and below, `value` below."""
    top = hsv(a["background_hue"], saturations[0], a["background_value"])
    low = hsv((a["background_hue"] + 0.10 * a["background_fade"]) % 1, saturations[1], value)
    canvas = Canvas(torch.lerp(top, low, (v * 0.5 + 0.5)[None, None]), pixel, keep_parts)
    x, y, r = (a[f"clutter_{k}"][:, None, None] for k in ("x", "y", "size"))
    canvas.paint(circle(u[None], v[None], x, y, r), hsv(a["clutter_hue"], 0.5, 0.75))
    return canvas


def lit(image: Tensor, a: Attributes, u: Tensor) -> Tensor:
    """The image in light of some strength and warmth, from one side."""
    side = 1 + 0.10 * (a["light_side"][:, None, None] * u)[:, None]
    gain = a["light_gain"][:, None, None, None]
    return (image * (gain * warmth(0.04 * a["light_warmth"]) * side)).clamp(0, 1)
