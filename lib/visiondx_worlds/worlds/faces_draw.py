"""Drawing of the `faces` world: soft signed distances in a face's own frame.

The face frame has the head's centre near (0, 0.1), x to the right, y down; one unit is half a
picture at scale 1. Everything is a broadcast over (B, H, W), without a loop over images.
"""

from __future__ import annotations

from types import SimpleNamespace

import torch
from torch import Tensor

from visiondx_worlds.worlds.base import Attributes
from visiondx_worlds.worlds.portrait import Point, background, frame, in_picture, lit
from visiondx_worlds.worlds.sdf import (
    Canvas,
    both,
    box,
    circle,
    ellipse,
    hsv,
    pick,
    rgb,
    ring,
    segment,
    union,
)

SKIN = (
    (1.00, 0.91, 0.86),
    (0.95, 0.76, 0.60),
    (0.84, 0.63, 0.45),
    (0.70, 0.50, 0.34),
    (0.53, 0.36, 0.24),
    (0.36, 0.25, 0.18),
)
HAIR = (
    (0.12, 0.10, 0.12),
    (0.44, 0.26, 0.12),
    (0.97, 0.82, 0.36),
    (0.80, 0.32, 0.10),
    (0.74, 0.74, 0.77),
)
IRIS = ((0.36, 0.20, 0.08), (0.10, 0.45, 0.90), (0.10, 0.60, 0.25))
FRAME = ((0.08, 0.08, 0.10), (0.85, 0.10, 0.12), (0.12, 0.20, 0.85), (0.98, 0.80, 0.10))
EARRING = ((1.0, 0.80, 0.10), (0.92, 0.94, 1.0), (0.10, 0.10, 0.45), (0.45, 0.05, 0.10))
CENTRE = 0.08  # of the head, in the face frame


def _geometry(a: Attributes) -> SimpleNamespace:
    """Sizes and places of the parts, each (B, 1, 1), from identity, age and gender."""
    g = SimpleNamespace(**{name: a[name][:, None, None] for name in a.names})
    g.fw = 0.45 + 0.035 * g.face_width
    g.fh = 0.60 + 0.03 * g.face_height
    g.square = 0.75 * g.male + 0.05 * g.jaw
    g.taper = 0.40 - 0.38 * g.male - 0.05 * g.jaw
    g.gap = 0.205 + 0.018 * g.eye_gap
    g.ey = 0.06 + 0.02 * g.eye_height
    childlike = ((22 - g.age) / 14).clamp(0, 1)
    g.eye = (1 + 0.08 * g.eye_size) * (1 + 0.30 * childlike)
    g.childlike = childlike
    g.by = g.ey - 0.215 + 0.012 * g.brow_height
    g.ny = 0.285 + 0.015 * g.nose_length
    g.mw = 0.185 + 0.02 * g.mouth_width
    g.my = 0.45
    g.lips = 0.026 + 0.078 * g.big_lips
    g.bend = -0.025 + 0.115 * g.smiling
    g.turn = 0.065 * g.yaw
    return g


def _head(x: Tensor, y: Tensor, g: SimpleNamespace) -> Tensor:
    """Distance to the face's outline: an ellipse above, a square or a tapering jaw below."""
    v = (y - CENTRE) / g.fh
    below = v.clamp(min=0)
    width = g.fw * (1 - g.taper * below * below)
    e = v * v
    lower = below * below
    e = e - g.square * (lower - lower * lower)
    u = x / width
    return (torch.sqrt(u * u + e.clamp(min=0) + 1e-12) - 1) * g.fw


def draw_face(
    a: Attributes, size: int, keep_parts: bool = False
) -> tuple[Tensor, dict[str, Tensor]]:
    """Images (B, 3, size, size) in [0, 1], and the visible coverage of each part where kept."""
    g = _geometry(a)
    u, v, x, y = frame(g, size)
    canvas = background(a, u, v, 2 / size / g.scale, keep_parts, (0.42, 0.36), 0.70)
    ink = 0.028
    skin = pick(SKIN, a["skin_tone"]) * (1 + 0.03 * g.skin_shade[:, None])
    hair = pick(HAIR, a["hair_colour"]) * (1 + 0.08 * g.hair_shade[:, None])
    haired = 1 - g.bald
    mx = x.abs()

    # hair behind, body, ears
    cap = ellipse(x, y, 0.0, 0.0, g.fw + 0.09, g.fh + 0.04)
    curtain = box(x, y, 0.0, 0.40, g.fw + 0.11, 0.52)
    bottom = 0.10 + 0.78 * g.long_hair
    back = both(union(cap, curtain), y - bottom)
    canvas.outlined(back, hair, "hair", ink, haired)
    clothes = hsv(a["clothes_hue"], 0.45, a["clothes_value"])
    body = ellipse(x, y, 0.0, 1.10, 0.64 + 0.24 * g.male, 0.36)
    canvas.paint(body, clothes, "clothes")
    neck = box(x, y, 0.0, 0.66, 0.16 + 0.10 * g.male, 0.22)
    canvas.paint(neck, skin * 0.80, "neck")
    ears = ellipse(mx, y, g.fw + 0.01, 0.12, 0.07 + 0.01 * g.ear_size, 0.11)
    canvas.paint(ears, skin * 0.88, "ears")

    # face
    head = _head(x, y, g)
    canvas.paint(head - 0.012, skin * 0.70, "face")
    canvas.paint(head, skin, "face")
    fx = x - g.turn  # features follow the turn of the head
    fmx = fx.abs()
    _age_marks(canvas, fx, fmx, y, g, skin)
    canvas.paint(ellipse(x, y, 0.12, -0.37, 0.13, 0.06), skin * 0.4 + 0.6, "face", 0.7 * g.bald)

    # beard and moustache
    beard = both(
        union(head - 0.03, ellipse(x, y, 0.0, 0.60, 0.33, 0.19)),
        0.575 - 1.35 * fx * fx - y,
    )
    canvas.outlined(beard, hair * 0.9, "beard", ink, g.beard)
    _mouth(canvas, fx, y, g, skin, a)
    droop = y - 0.32 * (fmx - 0.09).clamp(min=0)
    moustache = ellipse(fmx, droop, 0.095, 0.345, 0.125, 0.046)
    canvas.outlined(moustache, hair * 0.9, "moustache", 0.020, g.moustache)
    _nose(canvas, fx, fmx, y, g, skin)
    _eyes(canvas, fmx, fx, y, g, a)

    # hair in front: a parting, or bangs with a ragged edge
    rag = ((fx * 5.0) % 1 - 0.5).abs() * 0.09
    line = -0.385 + 0.165 * g.bangs + (0.45 * fx * fx) * (1 - g.bangs) + rag * g.bangs
    front = both(union(cap, head - 0.01), y - line)
    canvas.outlined(front, hair, "hair", 0.018, haired)
    side = both(cap, (g.fw - 0.045) - mx, y - 0.10)
    canvas.paint(side, hair, "hair", haired)

    thick = 0.016 + 0.042 * g.bushy_eyebrows
    brows = segment(fmx, y, g.gap - 0.10, g.by + 0.012, g.gap + 0.115, g.by + 0.005, thick)
    canvas.paint(brows, hair * 0.32, "eyebrows")

    # eyeglasses
    rx, ry = 0.170 + 0.012 * g.frame_size, 0.145 + 0.012 * g.frame_size
    lens = ellipse(fmx, y, g.gap, g.ey + 0.01, rx, ry)
    bridge = box(fx, y, 0.0, g.ey - 0.01, g.gap - rx + 0.01, 0.018)
    temple = box(fmx, y, 0.5 * (g.gap + rx + g.fw), g.ey - 0.01, 0.5 * (g.fw - g.gap - rx), 0.016)
    canvas.paint(lens, torch.ones_like(skin), "eyeglasses", 0.35 * g.eyeglasses)
    wire = union(ring(lens, 0.033), bridge, temple)
    canvas.paint(wire, pick(FRAME, a["frame_colour"]), "eyeglasses", g.eyeglasses)

    # earrings, hat
    drop = ellipse(mx, y, g.fw + 0.05, 0.325, 0.072, 0.10)
    canvas.outlined(drop, pick(EARRING, a["earring_colour"]), "earrings", 0.022, g.earrings)
    dome = both(ellipse(x, y, 0.0, -0.36, g.fw + 0.10, 0.46), y + 0.36)
    brim = box(x, y, 0.0, -0.355, g.fw + 0.20 + 0.08 * g.hat_brim, 0.045)
    felt = hsv(a["hat_hue"], 0.75, 0.78)
    canvas.outlined(union(dome, brim), felt, "hat", ink, g.hat)
    canvas.paint(box(x, y, 0.0, -0.45, g.fw + 0.07, 0.035), felt * 0.5, "hat", g.hat)

    return lit(canvas.image, a, u), canvas.parts or {}


def _age_marks(
    canvas: Canvas, fx: Tensor, fmx: Tensor, y: Tensor, g: SimpleNamespace, skin: Tensor
) -> None:
    """Rosy cheeks and freckles for the young ranges; folds, lines and bags for the old ones."""
    rosy = skin * 0.6 + 0.4 * rgb(skin, 0.95, 0.30, 0.30)
    canvas.paint(ellipse(fmx, y, 0.27, 0.26, 0.085, 0.065), rosy, "face", 0.9 * (g.age < 11.5))
    teen = ((g.age > 11.5) & (g.age < 19)).to(fx.dtype)
    freckle = union(circle(fmx, y, 0.24, 0.22, 0.02), circle(fmx, y, 0.31, 0.25, 0.02))
    canvas.paint(freckle, skin * 0.55, "face", teen)
    mid, old, very = (((g.age - t) / 4).clamp(0, 1) for t in (41, 54, 66))
    crease = skin * 0.50
    folds = segment(fmx, y, 0.14, 0.28, 0.225, 0.43, 0.016)
    bags = segment(fmx, y, g.gap - 0.06, g.ey + 0.155, g.gap + 0.08, g.ey + 0.15, 0.016)
    # beside beard, glasses and bangs, so that they never hide all of an old face's marks
    cheeks = segment(fmx, y, 0.315, 0.245, 0.285, 0.40, 0.021)
    canvas.paint(union(folds, bags, cheeks), crease, "face", mid)
    canvas.paint(box(fx, y, 0.0, -0.25, 0.20, 0.014), crease, "face", old)
    canvas.paint(box(fx, y, 0.0, -0.315, 0.16, 0.014), crease, "face", very)


def _mouth(
    canvas: Canvas, fx: Tensor, y: Tensor, g: SimpleNamespace, skin: Tensor, a: Attributes
) -> None:
    """Lips along a bent line; a smile bends up and shows teeth."""
    bent = y + g.bend * (fx / g.mw) ** 2 - 0.5 * g.bend
    natural = skin * rgb(skin, 0.80, 0.50, 0.50)
    stick = hsv((0.965 + 0.035 * a["lip_hue"]) % 1, 0.92, 0.88)
    colour = torch.lerp(natural, stick, g.lipstick[:, None])
    wide = g.mw * (1 + 0.15 * g.smiling)
    canvas.paint(ellipse(fx, bent, 0.0, g.my, wide, g.lips + 0.012 * g.smiling), colour, "mouth")
    gape = 0.010 + 0.030 * g.smiling
    inside = torch.lerp(colour * 0.35, torch.ones_like(colour), g.smiling[:, None])
    canvas.paint(ellipse(fx, bent, 0.0, g.my - 0.004, wide * 0.82, gape), inside, "mouth")


def _nose(
    canvas: Canvas, fx: Tensor, fmx: Tensor, y: Tensor, g: SimpleNamespace, skin: Tensor
) -> None:
    """A round nose, or a long pointed one."""
    # a highlight on dark skin, a shadow on light skin: always seen, and no fixed sign for a probe
    dark = (g.skin_tone >= 2)[:, None]
    shade = torch.where(dark, skin * 0.40 + 0.60, skin * 0.45)
    round_nose = ellipse(fx, y, 0.0, g.ny - 0.06, 0.088, 0.050)
    canvas.paint(round_nose, shade, "nose", 1 - g.pointy_nose)
    top = g.ny - 0.34
    point = both(fmx * 0.92 - (y - top) * 0.40, y - g.ny + 0.005)
    canvas.paint(point, shade, "nose", g.pointy_nose)


def _eyes(
    canvas: Canvas, fmx: Tensor, fx: Tensor, y: Tensor, g: SimpleNamespace, a: Attributes
) -> None:
    """Whites, irises, pupils and a lid; women have long lashes."""
    female = 1 - g.male
    dark = rgb(fmx, 0.07, 0.05, 0.06)
    lid = ellipse(fmx, y, g.gap, g.ey - 0.016, 0.098 * g.eye, 0.070 * g.eye)
    canvas.paint(lid, dark, "eyes")
    lash = union(
        segment(fmx, y, g.gap + 0.06, g.ey - 0.045, g.gap + 0.165, g.ey - 0.105, 0.020),
        segment(fmx, y, g.gap + 0.07, g.ey - 0.01, g.gap + 0.175, g.ey - 0.045, 0.016),
    )
    canvas.paint(lash, dark, "eyes", female)
    white = ellipse(fmx, y, g.gap, g.ey + 0.006, 0.092 * g.eye, 0.062 * g.eye)
    canvas.paint(white, torch.ones_like(dark), "eyes")
    gaze = fx - g.gap * torch.sign(fx) - 0.012 * g.yaw
    r = 0.052 * g.eye
    canvas.paint(circle(gaze, y, 0.0, g.ey, r), pick(IRIS, a["eye_colour"]), "eyes")
    canvas.paint(circle(gaze, y, 0.0, g.ey, 0.5 * r), dark, "eyes")


def face_keypoints(a: Attributes) -> Tensor:
    """(B, 26, 2) in [0, 1]: jaw 7, brows 4, eyes 6, nose 3, mouth 4, ear lobes 2."""
    g = _geometry(a)
    points: list[Point] = []
    for angle in torch.linspace(0.15, 0.85, 7) * torch.pi:
        # the outline's own radius along this ray, by a few fixed-point steps of the distance
        cx, cy = torch.cos(angle).to(g.fw), torch.sin(angle).to(g.fw)
        radius = torch.full_like(g.fw, 0.5)
        for _ in range(12):
            radius = radius - 0.8 * _head(radius * cx, CENTRE + radius * cy, g)
        points.append((radius * cx, CENTRE + radius * cy))
    t = g.turn
    for s in (-1, 1):
        points += [(t + s * (g.gap - 0.10), g.by + 0.012), (t + s * (g.gap + 0.115), g.by + 0.005)]
        half = 0.092 * g.eye
        points += [(t + s * (g.gap + d * half), g.ey) for d in (-1, 0, 1)]
    points += [(t, g.ny), (t - 0.08, g.ny), (t + 0.08, g.ny)]
    wide = g.mw * (1 + 0.15 * g.smiling)
    corner = g.my + 0.5 * g.bend - g.bend * (wide / g.mw) ** 2
    middle = g.my + 0.5 * g.bend
    points += [(t - wide, corner), (t + wide, corner)]
    points += [(t, middle - g.lips), (t, middle + g.lips)]
    points += [(-(g.fw + 0.01), 0.22), (g.fw + 0.01, 0.22)]
    return in_picture(points, g)
