"""Soft signed distances and a canvas to composite them on.

Coordinates are a frame's own units: x to the right, y down, [-1, 1] across the picture. Grids are
(B, H, W); parameters are (B, 1, 1) or numbers. Distances are negative inside. They are exact near
the edge, which is all that coverage needs.
"""

from __future__ import annotations

from functools import reduce

import torch
from torch import Tensor

Number = float | Tensor


def _like(number: Number, grid: Tensor) -> Tensor:
    """A number as a tensor that broadcasts with a grid."""
    return number if isinstance(number, Tensor) else grid.new_full((), number)


def _from(line: Tensor, centre: Number) -> Tensor:
    """Coordinates as seen from a centre, which often is 0."""
    return line if isinstance(centre, float) and centre == 0 else line - centre


def _length(u: Tensor, v: Tensor) -> Tensor:
    """√(u² + v²), with a gradient at 0."""
    return torch.sqrt(torch.addcmul(torch.addcmul(_like(1e-12, u), u, u), v, v))


def coordinates(size: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """The picture's x and y (size, size) at the middle of each pixel."""
    line = (torch.arange(size, dtype=like.dtype, device=like.device) + 0.5) * (2 / size) - 1
    y, x = torch.meshgrid(line, line, indexing="ij")
    return x, y


def ellipse(x: Tensor, y: Tensor, cx: Number, cy: Number, rx: Number, ry: Number) -> Tensor:
    """Axis-aligned ellipse: the implicit function over the length of its gradient."""
    u, v = _from(x, cx), _from(y, cy)
    u, v = torch.addcmul(_like(1e-9, u), u, u), v * v  # few passes: most of a picture is ellipses
    p, q = _like(1 / (rx * rx), u), _like(1 / (ry * ry), u)
    squared = torch.addcmul(u * p, v, q)
    return (squared - torch.sqrt(squared)) * torch.rsqrt(torch.addcmul(u * (p * p), v, q * q))


def circle(x: Tensor, y: Tensor, cx: Number, cy: Number, r: Number) -> Tensor:
    """An ellipse with equal radii."""
    return _length(_from(x, cx), _from(y, cy)) - r


def box(x: Tensor, y: Tensor, cx: Number, cy: Number, hx: Number, hy: Number) -> Tensor:
    """Axis-aligned box of half-sizes hx, hy (corners by the larger of the two distances)."""
    return torch.maximum(_from(x, cx).abs() - hx, _from(y, cy).abs() - hy)


def segment(
    x: Tensor, y: Tensor, ax: Number, ay: Number, bx: Number, by: Number, r: Number
) -> Tensor:
    """A line from (ax, ay) to (bx, by) with round ends and radius r."""
    dx, dy = _like(bx - ax, x), _like(by - ay, x)
    px, py = _from(x, ax), _from(y, ay)
    square = dx * dx + dy * dy
    t = torch.addcmul(px * (dx / square), py, dy / square).clamp(0, 1)
    ex, ey = torch.addcmul(px, t, dx, value=-1), torch.addcmul(py, t, dy, value=-1)
    return _length(ex, ey) - r


def ring(distance: Tensor, r: Number) -> Tensor:
    """The outline, of radius r, of a shape given by its distance."""
    return distance.abs() - r


def union(*distances: Tensor) -> Tensor:
    """All of several shapes."""
    return reduce(torch.minimum, distances)


def both(*distances: Tensor) -> Tensor:
    """What several shapes have in common."""
    return reduce(torch.maximum, distances)


def without(distance: Tensor, hole: Tensor) -> Tensor:
    """A shape less another."""
    return torch.maximum(distance, -hole)


def steepness(pixel: Number) -> Number:
    """Of a sigmoid that is as steep as a box filter of one pixel, falling from inside to out."""
    return -1 / (0.36 * pixel)


def coverage(distance: Tensor, slope: Number, opacity: Number | None = None) -> Tensor:
    """Share of each pixel inside the shape, times an opacity in [0, 1] (None: 1)."""
    inside = torch.sigmoid(distance * slope)
    return inside if opacity is None else inside * opacity


class Canvas:
    """Paints coverage after coverage, later over earlier.

    image: (B, 3, H, W). Where `parts` is kept, every named part's visible coverage (B, H, W) is
    known at the end: what a later layer hides is taken away.
    """

    def __init__(self, image: Tensor, pixel: Tensor, keep_parts: bool = False) -> None:
        self.image = image
        self.steepness = steepness(pixel)
        self.parts: dict[str, Tensor] | None = {} if keep_parts else None

    def paint(
        self,
        distance: Tensor,
        colour: Tensor,
        part: str = "",
        opacity: Number | None = None,
    ) -> None:
        """Paint a shape; colour (B, 3, 1, 1), opacity in [0, 1], None: 1."""
        alpha = coverage(distance, self.steepness, opacity)
        if self.image.requires_grad or colour.requires_grad or alpha.requires_grad:
            self.image = torch.lerp(self.image, colour, alpha[:, None])
        else:  # in place: half the memory to walk through
            self.image.lerp_(colour, alpha[:, None])
        if self.parts is not None:
            for name in self.parts:
                if name != part:
                    self.parts[name] = self.parts[name] * (1 - alpha)
            if part:
                before = self.parts.get(part, torch.zeros_like(alpha))
                self.parts[part] = before + (1 - before) * alpha

    def outlined(
        self,
        distance: Tensor,
        colour: Tensor,
        part: str,
        ink: Number,
        opacity: Number | None = None,
    ) -> None:
        """A filled shape with a darker rim of width `ink` outside of it."""
        self.paint(distance - ink, colour * 0.45, part, opacity)
        self.paint(distance, colour, part, opacity)


def rgb(like: Tensor, red: float, green: float, blue: float) -> Tensor:
    """One colour (3, 1, 1) on the device and with the dtype of `like`."""
    return like.new_tensor([red, green, blue])[:, None, None]


def pick(palette: tuple, *index: Tensor) -> Tensor:
    """Colours (B, 3, 1, 1) of a palette, by one index (B,) for each level of its nesting."""
    table = torch.tensor(palette, dtype=index[0].dtype, device=index[0].device)
    return table[tuple(i.long() for i in index)][..., None, None]


def warmth(amount: Tensor) -> Tensor:
    """Factors (B, 3, 1, 1) that make light warmer by `amount` (B,), or colder where negative."""
    return torch.stack([1 + amount, torch.ones_like(amount), 1 - amount], 1)[..., None, None]


def hsv(hue: Tensor, saturation: Number, value: Number) -> Tensor:
    """Colours (B, 3, 1, 1) from hue (B,) in [0, 1], saturation and value (numbers or (B,))."""
    offset = torch.tensor([5.0, 3.0, 1.0], dtype=hue.dtype, device=hue.device)
    k = (offset + hue[:, None] * 6) % 6
    wave = torch.minimum(k, 4 - k).clamp(0, 1)
    s, v = (
        t[:, None] if isinstance(t, Tensor) else torch.full_like(hue, t)[:, None]
        for t in (saturation, value)
    )
    return (v - v * s * wave)[..., None, None]
