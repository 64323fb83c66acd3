"""What the drawings of the `scenes` world share: layers, more shapes, textures, work by group.

Coordinates as in `sdf`: x to the right, y down, grids (B, H, W), parameters (B, 1, 1) or numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache

import torch
from torch import Tensor
from torch.nn import functional as F

from visiondx_worlds.worlds.sdf import Number, both, box, coverage, steepness

TEXELS = 128


class Layer:
    """A transparent picture that shapes are painted on, later over earlier.

    image: (B, 3, H, W), colour times coverage. main, state: (B, H, W), the visible coverage of the
    thing itself and of what its state adds (food on a plate); together the layer's own.
    """

    def __init__(self, grid: Tensor, pixel: Number) -> None:
        self.main, self.state = torch.zeros_like(grid), torch.zeros_like(grid)
        self.image = torch.zeros_like(grid)[:, None].repeat(1, 3, 1, 1)
        self.steepness = steepness(pixel)

    @property
    def tensors(self) -> tuple[Tensor, Tensor, Tensor]:
        """image, main, state."""
        return self.image, self.main, self.state

    @tensors.setter
    def tensors(self, value: Sequence[Tensor]) -> None:
        self.image, self.main, self.state = value

    def paint(
        self, distance: Tensor, colour: Tensor, opacity: Number | None = None, state: bool = False
    ) -> None:
        """Paint a shape; colour (B, 3, 1, 1), or (3, 1, 1) for all."""
        alpha = coverage(distance, self.steepness, opacity)
        clear = 1 - alpha
        self.image = self.image * clear[:, None] + colour * alpha[:, None]
        main, state_cover = self.main * clear, self.state * clear
        self.main, self.state = (
            (main, state_cover + alpha) if state else (main + alpha, state_cover)
        )

    def outlined(
        self,
        distance: Tensor,
        colour: Tensor,
        ink: Number = 0.05,
        opacity: Number | None = None,
        state: bool = False,
        shade: float = 0.35,
    ) -> None:
        """A filled shape with a darker rim of width `ink` outside of it."""
        self.paint(distance - ink, colour * shade, opacity, state)
        self.paint(distance, colour, opacity, state)

    def over(self, behind: Tensor, tint: Tensor | float = 1.0) -> Tensor:
        """The picture (B, 3, H, W) with this layer, its colours times `tint`, in front."""
        return behind * (1 - self.cover)[:, None] + self.image * tint

    @property
    def cover(self) -> Tensor:
        """(B, H, W): share of each pixel that the layer hides."""
        return self.main + self.state


def inside(distance: Tensor) -> Tensor:
    """(B, 1, H, W): share of each pixel inside a shape of the whole picture."""
    return torch.sigmoid(-distance * (distance.shape[-1] / 0.72))[:, None]


def blend(low: Tensor, high: Number, amount: Tensor) -> Tensor:
    """`low` where `amount` is 0, `high` where it is 1."""
    return low + (high - low) * amount


def polygon(x: Tensor, y: Tensor, *corners: tuple[Number, Number]) -> Tensor:
    """A convex polygon, its corners clockwise as seen (y runs down).

    Cut by the box around it, so that the rim of a sharp corner does not run out into a spike.
    """
    xs, ys = [c[0] for c in corners], [c[1] for c in corners]
    sides = []
    if not any(isinstance(value, Tensor) for value in xs + ys):
        hx, hy = (max(xs) - min(xs)) / 2, (max(ys) - min(ys)) / 2
        sides.append(box(x, y, min(xs) + hx, min(ys) + hy, hx, hy))
    for (ax, ay), (bx, by) in zip(corners, corners[1:] + corners[:1], strict=True):
        dx, dy = bx - ax, by - ay
        length = (dx * dx + dy * dy) ** 0.5
        sides.append(((x - ax) * dy - (y - ay) * dx) / length)
    return both(*sides)


def turned(x: Tensor, y: Tensor, cx: Number, cy: Number, angle: float) -> tuple[Tensor, Tensor]:
    """The coordinates of a frame centred at (cx, cy) and turned clockwise by `angle` radians."""
    turn = torch.tensor(angle)
    cos, sin = torch.cos(turn).item(), torch.sin(turn).item()
    dx, dy = x - cx, y - cy
    return cos * dx + sin * dy, cos * dy - sin * dx


def rounded(
    x: Tensor, y: Tensor, cx: Number, cy: Number, hx: Number, hy: Number, r: float
) -> Tensor:
    """A box with round corners of radius r."""
    qx, qy = (x - cx).abs() - hx + r, (y - cy).abs() - hy + r
    outside = torch.sqrt(qx.clamp(min=0) ** 2 + qy.clamp(min=0) ** 2 + 1e-12)
    return outside + torch.maximum(qx, qy).clamp(max=0) - r


# ---------------------------------------------------------------- textures


@cache
def _textures() -> Tensor:
    """(1, 5, TEXELS, TEXELS): white noise; stones' edges and shades; rain; flakes."""
    source = torch.Generator().manual_seed(64)
    line = torch.arange(TEXELS, dtype=torch.float32)
    y, x = torch.meshgrid(line, line, indexing="ij")

    def wrapped(points: Tensor) -> tuple[Tensor, Tensor]:
        """Offsets (P, TEXELS, TEXELS) to points (P, 2) on a torus."""
        half = TEXELS / 2
        dx = (x - points[:, 0, None, None] + half) % TEXELS - half
        dy = (y - points[:, 1, None, None] + half) % TEXELS - half
        return dx, dy

    noise = torch.rand(TEXELS, TEXELS, generator=source)
    # stones: one on each square of a grid, pushed about; edges where two are equally near
    cells = 10
    step = TEXELS / cells
    grid = torch.cartesian_prod(torch.arange(cells), torch.arange(cells)).float()
    stones = (grid + 0.15 + 0.7 * torch.rand(cells * cells, 2, generator=source)) * step
    dx, dy = wrapped(stones)
    near, which = (dx * dx + dy * dy).sqrt().topk(2, dim=0, largest=False)
    edge = ((near[1] - near[0]) / step).clamp(0, 1)
    shade = torch.rand(cells * cells, generator=source)[which[0]]
    drops = torch.rand(70, 2, generator=source) * TEXELS
    dx, dy = wrapped(drops)
    slant = dx + 0.28 * dy
    rain = torch.exp(-((slant / 0.75) ** 2) - (dy / 7.0) ** 4).amax(0)
    flakes = torch.rand(110, 2, generator=source) * TEXELS
    dx, dy = wrapped(flakes)
    size = 0.8 + 0.9 * torch.rand(110, 1, 1, generator=source)
    snow = torch.sigmoid(3 * (size - (dx * dx + dy * dy + 1e-6).sqrt())).amax(0)
    return torch.stack([noise, edge, shade, rain, snow])[None]


NOISE, EDGE, SHADE, RAIN, FLAKES = range(5)


def texture(
    kind: int, x: Tensor, y: Tensor, scale: tuple[float, float], at: tuple[Tensor, Tensor]
) -> Tensor:
    """(B, H, W) values in [0, 1] of one texture.

    x, y: coordinates (B, H, W) about 0. scale: how many texels a pixel of 1/32 steps over, in x and
    y, at most 1.2. at: (B, 1, 1) numbers in [0, 1] that choose the piece of the texture.
    """
    table = _textures()[:, kind : kind + 1].to(x).expand(len(x), -1, -1, -1)
    half = TEXELS / 64  # of the texture's width, in units of the picture
    axes = [
        (value * f + (2 * o - 1) * max(half - 1.2 * f, 0.0)) / half
        for value, f, o in zip((x, y), scale, at, strict=True)
    ]
    grid = torch.stack(axes, -1)
    return F.grid_sample(table, grid, padding_mode="reflection", align_corners=False)[:, 0]


# ---------------------------------------------------------------- work by group


def by_group(index: Tensor, draw: Callable[[int, Tensor], tuple[Tensor, ...]]) -> list[Tensor]:
    """Rows of draw(k, rows) for the rows of each value k of `index` (B,), in their old order.

    Every kind of object, background or filter is drawn for its own images and for no others.
    """
    order = index.argsort(stable=True)
    kinds, counts = index.unique(return_counts=True)
    parts = [
        draw(int(kind), rows)
        for kind, rows in zip(kinds.tolist(), order.split(counts.tolist()), strict=True)
    ]
    back = order.argsort()
    return [torch.cat(tensors)[back] for tensors in zip(*parts, strict=True)]
