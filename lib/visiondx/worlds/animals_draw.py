"""Drawing of the `animals` world: colours and layers, over the shapes of `animals_shape`."""

from __future__ import annotations

from types import SimpleNamespace

import torch
from torch import Tensor

from visiondx.worlds.animals_shape import floppy_ear, geometry, outline, pointed_ear
from visiondx.worlds.base import Attributes
from visiondx.worlds.sdf import Canvas, ellipse, hsv, ring, segment

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


def _pick(palette: tuple, index: Tensor) -> Tensor:
    table = torch.tensor(palette, dtype=index.dtype, device=index.device)
    return table[index.long()][..., None, None]


def _second(fur: Tensor, choice: Tensor) -> Tensor:
    """The second colour (B, 3, 1, 1) that goes with a fur colour."""
    table = torch.tensor(SECOND, dtype=fur.dtype, device=fur.device)
    return table[fur.long(), choice.long()][..., None, None]


def _frame(g: SimpleNamespace, size: int, like: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Picture coordinates (H, W) and the head frame's x, y (B, H, W)."""
    line = (torch.arange(size, dtype=like.dtype, device=like.device) + 0.5) * (2 / size) - 1
    v, u = torch.meshgrid(line, line, indexing="ij")
    cos, sin = torch.cos(g.tilt), torch.sin(g.tilt)
    du, dv = (u - g.shift_x) / g.scale, (v - g.shift_y) / g.scale
    return u, v, cos * du + sin * dv, cos * dv - sin * du


def _background(a: Attributes, u: Tensor, v: Tensor, pixel: Tensor, keep: bool) -> Canvas:
    top = hsv(a["background_hue"], 0.40, a["background_value"])
    low = hsv((a["background_hue"] + 0.10 * a["background_fade"]) % 1, 0.34, 0.68)
    canvas = Canvas(torch.lerp(top, low, (v * 0.5 + 0.5)[None, None]), pixel, keep)
    x, y, r = (a[f"clutter_{k}"][:, None, None] for k in ("x", "y", "size"))
    canvas.paint(ellipse(u[None], v[None], x, y, r, r), hsv(a["clutter_hue"], 0.5, 0.75))
    return canvas


def draw_animal(
    a: Attributes, size: int, keep_parts: bool = False
) -> tuple[Tensor, dict[str, Tensor]]:
    """Images (B, 3, size, size) in [0, 1], and the visible coverage of each part where kept."""
    g = geometry(a)
    u, v, x, y = _frame(g, size, a.values)
    canvas = _background(a, u, v, 2 / size / g.scale, keep_parts)
    fur = _pick(FUR, a["fur_colour"]) * (1 + 0.05 * g.fur_shade[:, None])
    mark = _second(a["fur_colour"], a["mark_choice"])
    pale = _second(a["fur_colour"], a["muzzle_choice"])  # of muzzle and markings
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
    band = torch.maximum(chest - 0.02, (y - 0.70 + 0.12 * x * x).abs() - 0.075)
    collar = hsv(a["collar_hue"], 0.85, 0.40 + 0.52 * a["collar_shade"])
    tag = torch.where(
        a["collar_shade"][:, None, None, None] > 0.5, collar * 0.25, collar * 0.3 + 0.7
    )
    canvas.outlined(band, collar, "collar", rim, g.collar)
    canvas.outlined(ellipse(x, y, 0.0, 0.82, 0.085, 0.085), tag, "collar", rim, g.collar)
    point = pointed_ear(mx, y, g)
    canvas.paint(point - rim, line, "ears", g.pointed_ears)
    canvas.paint(point, ear, "ears", g.pointed_ears)
    pink = ear.new_tensor(PINK)[:, None, None]
    canvas.paint(point + 0.085, torch.lerp(ear, pink, 0.55), "ears", g.pointed_ears)

    # head, markings, fur pattern
    head = outline(x, y, g)
    canvas.paint(head - rim, line, "head")
    canvas.paint(head, fur, "head")
    _markings(canvas, head, fx, fmx, y, g, muzzle)
    _pattern(canvas, head, fx, fmx, y, g, mark)
    floppy = floppy_ear(mx, y, g)
    canvas.paint(floppy - rim, line, "ears", 1 - g.pointed_ears)
    canvas.paint(floppy, ear, "ears", 1 - g.pointed_ears)

    _eyes(canvas, fx, fmx, y, g, a)
    _snout(canvas, fx, fmx, y, g, a, muzzle, line)

    side_light = 1 + 0.10 * (g.light_side * u)[:, None]
    tint = torch.stack(
        [1 + 0.04 * g.light_warmth, torch.ones_like(g.tilt), 1 - 0.04 * g.light_warmth], 1
    )
    image = canvas.image * (g.light_gain[:, None] * tint * side_light)
    return image.clamp(0, 1), canvas.parts or {}


def _markings(
    canvas: Canvas,
    head: Tensor,
    fx: Tensor,
    fmx: Tensor,
    y: Tensor,
    g: SimpleNamespace,
    colour: Tensor,
) -> None:
    """None, a blaze down the forehead, goggles round both eyes or a cap."""
    blaze = segment(fx, y, 0.0, -0.60, 0.0, 0.10, 0.10)
    goggles = ellipse(fmx, y, g.gap, g.ey, g.eye + 0.085, g.eye + 0.085)
    cap = y + 0.27 - 0.5 * fx * fx
    shapes = (blaze, goggles, cap)
    marking = fx.new_full((), 9.0).expand_as(fx)
    for kind, shape in enumerate(shapes, 1):
        marking = torch.where(g.marking == kind, shape, marking)
    canvas.paint(torch.maximum(marking, head), colour, "head")


def _pattern(
    canvas: Canvas,
    head: Tensor,
    fx: Tensor,
    fmx: Tensor,
    y: Tensor,
    g: SimpleNamespace,
    colour: Tensor,
) -> None:
    """Stripes from the rim inwards, round spots, or patches: round one eye, and the other side."""
    w = g.hw
    stripes = torch.minimum(
        torch.minimum(
            segment(fmx, y, 0.0, -0.58, 0.0, -0.27, 0.048),
            segment(fmx, y, 0.21, -0.56, 0.16, -0.29, 0.048),
        ),
        torch.minimum(
            segment(fmx, y, w + 0.12, 0.13, w - 0.15, 0.14, 0.048),
            segment(fmx, y, w + 0.12, 0.34, w - 0.19, 0.31, 0.048),
        ),
    )
    spots = torch.minimum(
        torch.minimum(
            ellipse(fmx, y, 0.11, -0.36, 0.080, 0.080),
            ellipse(fmx, y, 0.29, -0.33, 0.066, 0.066),
        ),
        torch.minimum(
            ellipse(fmx, y, w - 0.11, 0.16, 0.070, 0.070),
            ellipse(fmx, y, w - 0.19, 0.34, 0.080, 0.080),
        ),
    )
    flipped = fx * (2 * g.patch_side - 1)
    patches = torch.minimum(
        ellipse(flipped, y, g.gap + 0.03, g.ey - 0.06, g.eye + 0.13, g.eye + 0.17),
        ellipse(flipped, y, -w, 0.42, 0.36, 0.30),
    )
    shapes = torch.where(g.pattern == 0, stripes, torch.where(g.pattern == 3, spots, patches))
    plain = (g.pattern != 1).to(fx.dtype)
    canvas.paint(torch.maximum(shapes, head), colour, "pattern", plain)


def _eyes(
    canvas: Canvas, fx: Tensor, fmx: Tensor, y: Tensor, g: SimpleNamespace, a: Attributes
) -> None:
    """An iris that fills the eye, with a round pupil or an upright slit."""
    ink = fmx.new_tensor(INK).expand(len(fmx), 3)[..., None, None]
    canvas.paint(ellipse(fmx, y, g.gap, g.ey, g.eye + 0.03, g.eye + 0.03), ink, "eyes")
    canvas.paint(ellipse(fmx, y, g.gap, g.ey, g.eye, g.eye), _pick(IRIS, a["eye_colour"]), "eyes")
    gaze = fx - g.gap * torch.sign(fx) - 0.015 * g.yaw
    wide = 0.092 - 0.056 * g.slit_pupils
    high = 0.092 + 0.050 * g.slit_pupils
    canvas.paint(ellipse(gaze, y, 0.0, g.ey, wide, high), ink, "eyes")
    glint = ellipse(gaze, y, -0.065, g.ey - 0.062, 0.036, 0.036)
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
    ink = fmx.new_tensor(INK).expand(len(fmx), 3)[..., None, None]
    pale = torch.lerp(colour, torch.ones_like(colour), 0.75)
    dark = (colour.mean(1, keepdim=True) < 0.33).to(colour.dtype)
    lips = torch.lerp(ink, pale, dark)

    tongue = segment(fx, y, 0.0, g.ny + 0.20, 0.0, g.ny + 0.30, 0.10)
    red = _pick(TONGUE, a["tongue_shade"])
    canvas.outlined(tongue, red, "tongue", 0.028, g.tongue)
    canvas.paint(
        segment(fx, y, 0.0, g.ny + 0.20, 0.0, g.ny + 0.30, 0.022), red * 0.6, "tongue", g.tongue
    )

    stem = segment(fx, y, 0.0, g.ny, 0.0, g.ny + 0.115, 0.028)
    omega = torch.maximum(
        ring(ellipse(fmx, y, 0.085, g.ny + 0.10, 0.085, 0.085), 0.028), g.ny + 0.10 - y
    )
    smile = torch.maximum(ring(ellipse(fx, y, 0.0, g.ny + 0.04, 0.20, 0.13), 0.03), g.ny + 0.07 - y)
    canvas.paint(torch.minimum(stem, omega), lips, "mouth", g.cat)
    canvas.paint(torch.minimum(stem, smile), lips, "mouth", 1 - g.cat)

    pink = colour.new_tensor(PINK)[:, None, None]
    nose = torch.lerp(_pick(PLAIN_NOSE, a["nose_shade"]), pink, g.pink_nose[:, None])
    wedge = torch.maximum(fmx * 0.72 + (y - g.ny - 0.088) * 0.70, g.ny - 0.07 - y)
    bulb = ellipse(fx, y, 0.0, g.ny - 0.01, 0.145, 0.10)
    for shape, amount in ((wedge, g.cat), (bulb, 1 - g.cat)):
        canvas.paint(shape - 0.028, pale, "nose", amount)
        canvas.paint(shape, nose, "nose", amount)
    glint = ellipse(fx, y, -0.045, g.ny - 0.05, 0.045, 0.026)
    canvas.paint(glint, torch.lerp(nose, torch.ones_like(nose), 0.6), "nose", 1 - g.cat)

    fur_black = (line.mean(1, keepdim=True) > 0.3) & (a["fur_colour"] >= 2)[:, None, None, None]
    bristle = torch.where(fur_black, torch.ones_like(ink), ink)
    reach = g.hw + 0.20
    whiskers = torch.minimum(
        segment(fmx, y, g.mx - 0.06, g.ny + 0.07, reach, g.ny - 0.02, 0.028),
        segment(fmx, y, g.mx - 0.07, g.ny + 0.14, reach - 0.02, g.ny + 0.20, 0.028),
    )
    canvas.paint(whiskers, bristle, "whiskers", g.whiskers)
