"""Three art styles as filters on the finished picture: oil painting, pencil sketch, embroidery."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from visiondx_worlds.worlds.base import Attributes
from visiondx_worlds.worlds.scenes_shapes import NOISE, blend, by_group, inside, texture
from visiondx_worlds.worlds.sdf import ellipse, rgb, ring

STYLES = ("photo", "oil painting", "pencil sketch", "embroidery")


def _mean(image: Tensor, window: int) -> Tensor:
    """Mean over windows of window x window pixels, (B, C, H + window, W + window)."""
    padded = F.pad(image, (window,) * 4, mode="reflect")
    return F.avg_pool2d(padded, window + 1, stride=1)


def oil_painting(p: Tensor, shown: Tensor, u: Tensor, v: Tensor, ox: Tensor, oy: Tensor) -> Tensor:
    """Kuwahara's filter (each pixel takes the calmest of four corners), richer colours, strokes.

    Kuwahara et al., 1976. The strokes are a relief of slanted dabs, lit from above.
    """
    window = max(2, 2 * p.shape[-1] // 64)
    height, width = p.shape[-2:]
    mean = _mean(p, window)
    spread = (_mean(p * p, window) - mean * mean).sum(1, keepdim=True)
    corners = [(i, j) for i in (0, window) for j in (0, window)]
    means = torch.stack([mean[..., i : i + height, j : j + width] for i, j in corners])
    spreads = torch.stack([spread[..., i : i + height, j : j + width] for i, j in corners])
    # nearly the calmest alone, but without jumps where two are equally calm
    p = (means * torch.softmax(-400 * spreads, 0)).sum(0)
    grey = p.mean(1, keepdim=True)
    p = (grey + (p - grey) * 1.35 - 0.5) * 1.12 + 0.5
    along, over = 0.8 * u + 0.6 * v, 0.8 * v - 0.6 * u
    strokes = texture(NOISE, along, over, (0.20, 0.70), (ox, oy))
    relief = (strokes - torch.roll(strokes, 1, dims=-2))[:, None]
    return p * (0.91 + 0.18 * strokes[:, None]) + 0.17 * relief


def pencil_sketch(p: Tensor, shown: Tensor, u: Tensor, v: Tensor, ox: Tensor, oy: Tensor) -> Tensor:
    """Black outlines and slanted hatching on white paper, drawn most firmly on the object."""
    grey = (p * rgb(u, 0.30, 0.59, 0.11)).sum(1, keepdim=True)
    step = max(1, p.shape[-1] // 64)
    wide = F.pad(p, (step,) * 4, mode="replicate")
    dx = (wide[..., step:-step, 2 * step :] - wide[..., step:-step, : -2 * step]).abs().amax(1)
    dy = (wide[..., 2 * step :, step:-step] - wide[..., : -2 * step, step:-step]).abs().amax(1)
    edge = (dx + dy)[:, None]
    # a draughtsman draws a dim or a foggy corner with the same pencil
    near = _mean(edge, 8 * step)[..., 4 * step : -4 * step, 4 * step : -4 * step]
    firm = 0.55 + 0.65 * shown[:, None]
    line = ((0.75 * edge / (near + 0.02) - 0.55) * firm).clamp(0, 1)
    dark = (1 - grey).clamp(0, 1)
    hatch = 0.5 + 0.5 * torch.sin((u + v) * 38)[:, None]
    cross = 0.5 + 0.5 * torch.sin((u - v) * 38)[:, None]
    tone = 0.50 * (dark - 0.25).clamp(0, 1) * hatch + 0.50 * (dark - 0.60).clamp(0, 1) * cross
    tone = tone * (1 - 0.55 * shown[:, None])
    grain = texture(NOISE, u, v, (1.0, 1.0), (ox, oy))[:, None]
    paper = 0.97 - 0.14 * dark - tone * (0.7 + 0.5 * grain)
    return (paper * (1 - 0.92 * line * (0.75 + 0.25 * grain))).expand(-1, 3, -1, -1)


def _hoop(u: Tensor, v: Tensor) -> Tensor:
    """Distance to the disc in the embroidery's hoop."""
    return ellipse(u, v, 0.0, 0.0, 1.17, 1.17)


def embroidery(p: Tensor, shown: Tensor, u: Tensor, v: Tensor, ox: Tensor, oy: Tensor) -> Tensor:
    """Short slanted stitches of one colour each, on linen in a wooden hoop."""
    step = max(1, p.shape[-1] // 32)
    cells = F.interpolate(F.avg_pool2d(p, step, ceil_mode=True), size=p.shape[-2:], mode="nearest")
    grey = p.mean(1, keepdim=True)
    p = 0.35 * cells + 0.65 * p
    p = grey + (p - grey) * 1.25
    # rows of stitches, two pixels high in a picture of 64, that slant to and fro
    row = (v + 1) * 16
    within = row - row.floor()
    slant = 1 - 2 * (row.floor() % 2)
    thread = torch.sin(((u + 1) * 10.67 + slant * within * 0.8) * 2 * torch.pi)
    gap = torch.sin(within * torch.pi)
    p = p * (0.84 + 0.17 * thread + 0.16 * gap)[:, None] + 0.05 * thread[:, None]
    weave = 0.5 + 0.5 * torch.sin(u * 50) * torch.sin(v * 50)
    linen = rgb(u, 0.90, 0.85, 0.74) * (0.86 + 0.14 * weave)[:, None]
    hoop = _hoop(u, v)
    p = blend(p, linen, inside(-hoop))
    return blend(p, rgb(u, 0.70, 0.47, 0.24), inside(ring(hoop + 0.02, 0.045)))


def restyle(a: Attributes, picture: Tensor, shown: Tensor, u: Tensor, v: Tensor) -> Tensor:
    """(B, 3, H, W) in each image's style; `shown` (B, H, W) is what a sketch dwells on."""
    filters = (None, oil_painting, pencil_sketch, embroidery)

    def draw(kind: int, rows: Tensor) -> tuple[Tensor]:
        part = picture[rows].clamp(0, 1)
        if kind == 0:
            return (part,)
        grid = u.expand(len(part), -1, -1), v.expand(len(part), -1, -1)
        ox, oy = (a[f"texture_{k}"][rows, None, None] for k in "xy")
        return (filters[kind](part, shown[rows], *grid, ox, oy).clamp(0, 1),)

    return by_group(a["style"].long(), draw)[0]


def framed(a: Attributes, u: Tensor, v: Tensor) -> Tensor:
    """(B, H, W): share of each pixel that shows the scene; a hoop's corners show bare linen."""
    hooped = (a["style"] == STYLES.index("embroidery"))[:, None, None]
    return torch.where(hooped, inside(_hoop(u, v)[None])[:, 0], 1.0)
