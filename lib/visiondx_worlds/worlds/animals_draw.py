"""Drawing of the `animals` world: colours and layers, over the shapes of `animals_shape`."""

from __future__ import annotations

from types import SimpleNamespace

import torch
from torch import Tensor

from visiondx_worlds.worlds.animals_shape import (
    floppy_ear,
    geometry,
    marking,
    outline,
    pattern,
    pointed_ear,
)
from visiondx_worlds.worlds.base import Attributes
from visiondx_worlds.worlds.portrait import background, frame, lit
from visiondx_worlds.worlds.sdf import (
    Canvas,
    both,
    circle,
    ellipse,
    hsv,
    pick,
    rgb,
    ring,
    segment,
    union,
)

FUR = (
    (0.96, 0.94, 0.91),
    (0.95, 0.57, 0.20),
    (0.54, 0.34, 0.20),
    (0.58, 0.60, 0.67),
    (0.14, 0.13, 0.16),
)
# two second colours for each fur, a light and a dark one where there is room for both: no linear
# reading of pixels can then know a stripe or a muzzle by its sign
SECOND = (
    ((0.20, 0.18, 0.20), (0.76, 0.46, 0.22)),
    ((1.00, 0.93, 0.80), (0.42, 0.18, 0.07)),
    ((0.94, 0.82, 0.63), (0.15, 0.10, 0.08)),
    ((0.97, 0.97, 0.99), (0.19, 0.20, 0.25)),
    ((0.96, 0.94, 0.91), (0.70, 0.50, 0.32)),
)
IRIS = ((0.22, 0.80, 0.26), (1.00, 0.74, 0.08), (0.22, 0.58, 1.00), (0.66, 0.36, 0.13))
PLAIN_NOSE = ((0.08, 0.07, 0.08), (0.34, 0.17, 0.10), (0.60, 0.69, 0.82))
TONGUE = ((1.00, 0.60, 0.66), (0.88, 0.20, 0.30), (0.44, 0.36, 0.78))
PINK = (1.00, 0.55, 0.64)
INK = (0.07, 0.05, 0.06)


def draw_animal(
    a: Attributes, size: int, keep_parts: bool = False
) -> tuple[Tensor, dict[str, Tensor]]:
    """Images (B, 3, size, size) in [0, 1], and the visible coverage of each part where kept."""
    g = geometry(a)
    u, v, x, y = frame(g, size)
    canvas = background(a, u, v, 2 / size / g.scale, keep_parts, (0.40, 0.34), 0.68)
    fur = pick(FUR, a["fur_colour"]) * (1 + 0.05 * g.fur_shade[:, None])
    mark = pick(SECOND, a["fur_colour"], a["mark_choice"])
    pale = pick(SECOND, a["fur_colour"], a["muzzle_choice"])  # of muzzle and markings
    muzzle = torch.lerp(fur, pale, 0.72)
    black = (a["fur_colour"] == len(FUR) - 1)[:, None, None, None]
    line = torch.where(black, fur * 0.6 + 0.32, fur * 0.42)
    contrast = (a["ear_choice"] > 0.5)[:, None, None, None]
    ear = torch.where(contrast, pale, fur * 0.90)
    rim = 0.03
    mx, fx = x.abs(), x - g.turn
    fmx = fx.abs()

    # chest, collar, pointed ears, all behind the head
    chest = ellipse(x, y, 0.0, 1.12, 0.58, 0.60)
    canvas.paint(chest - rim, line, "body")
    canvas.paint(chest, fur * 0.88, "body")
    band = both(chest - 0.02, (y - 0.70 + 0.12 * x * x).abs() - 0.075)
    collar = hsv(a["collar_hue"], 0.85, 0.40 + 0.52 * a["collar_shade"])
    tag = torch.where(
        a["collar_shade"][:, None, None, None] > 0.5, collar * 0.25, collar * 0.3 + 0.7
    )
    canvas.outlined(band, collar, "collar", rim, g.collar)
    canvas.outlined(circle(x, y, 0.0, 0.82, 0.085), tag, "collar", rim, g.collar)
    point = pointed_ear(mx, y, g)
    canvas.paint(point - rim, line, "ears", g.pointed_ears)
    canvas.paint(point, ear, "ears", g.pointed_ears)
    canvas.paint(point + 0.085, torch.lerp(ear, rgb(ear, *PINK), 0.55), "ears", g.pointed_ears)

    # head, markings, fur pattern
    head = outline(x, y, g)
    canvas.paint(head - rim, line, "head")
    canvas.paint(head, fur, "head")
    canvas.paint(both(marking(fx, fmx, y, g), head), muzzle, "head")
    patterned = (g.pattern != 1).to(x.dtype)
    canvas.paint(both(pattern(fx, fmx, y, g), head), mark, "pattern", patterned)
    floppy = floppy_ear(mx, y, g)
    canvas.paint(floppy - rim, line, "ears", 1 - g.pointed_ears)
    canvas.paint(floppy, ear, "ears", 1 - g.pointed_ears)

    _eyes(canvas, fx, fmx, y, g, a)
    _snout(canvas, fx, fmx, y, g, a, muzzle, line)

    return lit(canvas.image, a, u), canvas.parts or {}


def _eyes(
    canvas: Canvas, fx: Tensor, fmx: Tensor, y: Tensor, g: SimpleNamespace, a: Attributes
) -> None:
    """An iris that fills the eye, with a round pupil or an upright slit."""
    ink = rgb(fmx, *INK)
    canvas.paint(circle(fmx, y, g.gap, g.ey, g.eye + 0.03), ink, "eyes")
    canvas.paint(circle(fmx, y, g.gap, g.ey, g.eye), pick(IRIS, a["eye_colour"]), "eyes")
    gaze = fx - g.gap * torch.sign(fx) - 0.015 * g.yaw
    wide = 0.092 - 0.056 * g.slit_pupils
    high = 0.092 + 0.050 * g.slit_pupils
    canvas.paint(ellipse(gaze, y, 0.0, g.ey, wide, high), ink, "eyes")
    glint = circle(gaze, y, -0.065, g.ey - 0.062, 0.036)
    canvas.paint(glint, torch.ones_like(ink), "eyes")


def _snout(
    canvas: Canvas,
    fx: Tensor,
    fmx: Tensor,
    y: Tensor,
    g: SimpleNamespace,
    a: Attributes,
    colour: Tensor,
    line: Tensor,
) -> None:
    """Muzzle, tongue, mouth, nose and whiskers."""
    muzzle = ellipse(fmx, y, 0.11 * g.cat, g.my, g.mx - 0.07 * g.cat, g.mr)
    canvas.paint(muzzle - 0.03, line, "muzzle", 0.8)
    canvas.paint(muzzle, colour, "muzzle")
    ink = rgb(fmx, *INK)
    pale = torch.lerp(colour, torch.ones_like(colour), 0.75)
    dark = (colour.mean(1, keepdim=True) < 0.33).to(colour.dtype)
    lips = torch.lerp(ink, pale, dark)

    tongue = segment(fx, y, 0.0, g.ny + 0.20, 0.0, g.ny + 0.30, 0.10)
    red = pick(TONGUE, a["tongue_shade"])
    canvas.outlined(tongue, red, "tongue", 0.028, g.tongue)
    canvas.paint(
        segment(fx, y, 0.0, g.ny + 0.20, 0.0, g.ny + 0.30, 0.022), red * 0.6, "tongue", g.tongue
    )

    stem = segment(fx, y, 0.0, g.ny, 0.0, g.ny + 0.115, 0.028)
    omega = both(ring(circle(fmx, y, 0.085, g.ny + 0.10, 0.085), 0.028), g.ny + 0.10 - y)
    smile = both(ring(ellipse(fx, y, 0.0, g.ny + 0.04, 0.20, 0.13), 0.03), g.ny + 0.07 - y)
    canvas.paint(union(stem, omega), lips, "mouth", g.cat)
    canvas.paint(union(stem, smile), lips, "mouth", 1 - g.cat)

    nose = pick(PLAIN_NOSE, a["nose_shade"])
    nose = torch.lerp(nose, rgb(nose, *PINK), g.pink_nose[:, None])
    wedge = both(fmx * 0.72 + (y - g.ny - 0.088) * 0.70, g.ny - 0.07 - y)
    bulb = ellipse(fx, y, 0.0, g.ny - 0.01, 0.145, 0.10)
    for shape, amount in ((wedge, g.cat), (bulb, 1 - g.cat)):
        canvas.paint(shape - 0.028, pale, "nose", amount)
        canvas.paint(shape, nose, "nose", amount)
    glint = ellipse(fx, y, -0.045, g.ny - 0.05, 0.045, 0.026)
    canvas.paint(glint, torch.lerp(nose, torch.ones_like(nose), 0.6), "nose", 1 - g.cat)

    fur_black = (line.mean(1, keepdim=True) > 0.3) & (a["fur_colour"] >= 2)[:, None, None, None]
    bristle = torch.where(fur_black, torch.ones_like(ink), ink)
    reach = g.hw + 0.20
    whiskers = union(
        segment(fmx, y, g.mx - 0.06, g.ny + 0.07, reach, g.ny - 0.02, 0.028),
        segment(fmx, y, g.mx - 0.07, g.ny + 0.14, reach - 0.02, g.ny + 0.20, 0.028),
    )
    canvas.paint(whiskers, bristle, "whiskers", g.whiskers)
