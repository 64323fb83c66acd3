"""The lifeless things of the `scenes` world; conventions as in `scenes_animals`."""

from __future__ import annotations

from types import SimpleNamespace

import torch

from visiondx_worlds.worlds.scenes_shapes import polygon, rounded, turned
from visiondx_worlds.worlds.sdf import both, box, ellipse, rgb, ring, segment, union, without


def plate(o: SimpleNamespace) -> None:
    """Seen from above at a slant, with knife and fork; state: food on it."""
    x, y, layer, body = o.x, o.y, o.layer, o.body
    steel = rgb(x, 0.78, 0.80, 0.84)
    tines = without(
        box(x, y, -0.90, 0.02, 0.085, 0.16),
        union(*(box(x, y, -0.90 + d, -0.05, 0.018, 0.13) for d in (-0.035, 0.035))),
    )
    fork = union(tines, segment(x, y, -0.90, 0.16, -0.90, 0.76, 0.035))
    blade = both(ellipse(x, y, 0.86, 0.10, 0.09, 0.34), 0.86 - x)
    knife = union(blade, segment(x, y, 0.885, 0.30, 0.885, 0.76, 0.035))
    layer.outlined(union(fork, knife), steel, 0.035, shade=0.30)
    rim = ellipse(x, y, 0.0, 0.34, 0.74, 0.56)
    layer.outlined(rim, body, o.ink)
    layer.paint(ring(ellipse(x, y, 0.0, 0.34, 0.68, 0.50), 0.016), body * 0.4 + 0.6)
    well = ellipse(x, y, 0.0, 0.36, 0.50, 0.36)
    layer.paint(well - 0.03, body * 0.55)
    layer.paint(well, body * 0.86)
    shine = both(ring(ellipse(x, y, 0.0, 0.36, 0.40, 0.27), 0.03), y - 0.26, x + 0.05)
    layer.paint(shine, body * 0.3 + 0.7)
    # steak, potatoes, peas, a tomato: large enough to be told apart
    on = o.state
    layer.outlined(
        ellipse(x, y, -0.20, 0.28, 0.30, 0.21), rgb(x, 0.48, 0.24, 0.12), 0.035, on, True
    )
    grill = union(*(segment(x, y, -0.34 + d, 0.36, -0.22 + d, 0.18, 0.022) for d in (0.0, 0.14)))
    layer.paint(grill, rgb(x, 0.22, 0.10, 0.05), on, True)
    layer.outlined(
        ellipse(x, y, 0.24, 0.22, 0.20, 0.17), rgb(x, 0.98, 0.86, 0.50), 0.035, on, True, 0.5
    )
    peas = union(*(ellipse(x, y, a, b, 0.085, 0.075) for a, b in PEAS))
    layer.outlined(peas, rgb(x, 0.36, 0.74, 0.20), 0.03, on, True)
    layer.outlined(ellipse(x, y, -0.22, 0.56, 0.14, 0.11), rgb(x, 0.90, 0.20, 0.14), 0.03, on, True)


PEAS = ((0.06, 0.52), (0.20, 0.46), (0.33, 0.50), (0.16, 0.60), (0.29, 0.61))


def mug(o: SimpleNamespace) -> None:
    """A straight cup with a large handle; state: hot coffee that steams."""
    x, y, layer, body = o.x, o.y, o.layer, o.body
    cx = -0.16
    handle = ring(ellipse(x, y, 0.40, 0.34, 0.34, 0.32), 0.085)
    wall = union(box(x, y, cx, 0.34, 0.54, 0.46), ellipse(x, y, cx, 0.80, 0.54, 0.10))
    lip = ellipse(x, y, cx, -0.12, 0.54, 0.15)
    layer.outlined(union(handle, wall, lip), body, o.ink)
    layer.paint(both(wall, (x - cx - 0.34).abs() - 0.12), body * 0.72)
    layer.paint(both(box(x, y, cx, 0.40, 0.54, 0.08), wall), body * 0.4 + 0.6)
    layer.paint(lip, body * 0.35 + 0.6)
    hollow = ellipse(x, y, cx, -0.11, 0.45, 0.105)
    layer.paint(hollow, body * 0.35)
    coffee = ellipse(x, y, cx, -0.09, 0.43, 0.09)
    layer.paint(coffee, rgb(x, 0.26, 0.13, 0.05), o.state, True)
    # steam: three waving plumes, white with a grey rim so that any background shows them
    wave = 0.07 * torch.sin(8.5 * y + 3 * o.pose)
    plumes = union(*(segment(x + wave, y, cx + d, -0.30, cx + d, top, 0.065) for d, top in STEAM))
    layer.paint(plumes - 0.045, rgb(x, 0.38, 0.40, 0.46), 0.85 * o.state, True)
    layer.paint(plumes, rgb(x, 1.0, 1.0, 1.0), o.state, True)


STEAM = ((-0.30, -0.80), (0.0, -0.95), (0.30, -0.80))


def umbrella(o: SimpleNamespace) -> None:
    """State: open, a scalloped dome over a hooked stick; else furled and leaning."""
    x, y, layer, body = o.x, o.y, o.layer, o.body
    wood = rgb(x, 0.36, 0.22, 0.12)
    on, off = o.state, 1 - o.state
    # open
    stick = segment(x, y, 0.0, -0.9, 0.0, 0.70, 0.045)
    hook = both(ring(ellipse(x, y, 0.14, 0.70, 0.14, 0.16), 0.045), 0.68 - y)
    layer.paint(union(stick, hook), wood, on)
    scallop = 0.09 * torch.sin(x * 3 * torch.pi).abs()
    dome = both(ellipse(x, y, 0.0, -0.02, 0.98, 0.82), y + 0.02 + scallop)
    layer.outlined(dome, body, o.ink, on)
    panel = both(dome, ellipse(x, y, 0.0, -0.02, 0.32, 0.80))
    layer.paint(panel, body * 0.55 + 0.45, on)
    ribs = union(
        ring(ellipse(x, y, 0.0, -0.02, 0.33, 0.80), 0.022),
        ring(ellipse(x, y, 0.0, -0.02, 0.68, 0.81), 0.022),
    )
    layer.paint(both(ribs, dome), body * 0.45, on)
    layer.paint(segment(x, y, 0.0, -0.86, 0.0, -0.98, 0.04), wood, on)
    # furled
    u, v = turned(x, y, 0.0, 0.0, 0.62)
    staff = segment(u, v, 0.0, -0.98, 0.0, 1.05, 0.04)
    crook = both(ring(ellipse(u, v, 0.14, -0.96, 0.14, 0.14), 0.05), v + 0.94)
    layer.outlined(union(staff, crook), wood, 0.025, off)
    cloth = polygon(
        u,
        v,
        (-0.15, -0.55),
        (0.15, -0.55),
        (0.20, -0.10),
        (0.04, 0.92),
        (-0.04, 0.92),
        (-0.20, -0.10),
    )
    layer.outlined(cloth, body, o.ink, off)
    folds = both(
        cloth,
        union(
            segment(u, v, -0.06, -0.5, -0.02, 0.9, 0.025),
            segment(u, v, 0.10, -0.5, 0.03, 0.9, 0.02),
        ),
    )
    layer.paint(folds, body * 0.5, off)
    layer.paint(box(u, v, 0.0, -0.12, 0.21, 0.05), body * 0.4 + 0.6, off)


def car(o: SimpleNamespace) -> None:
    """From the side: cabin with two windows, two wheels, lamps."""
    x, y, layer, body = o.x, o.y, o.layer, o.body
    shell = rounded(x, y, 0.0, 0.40, 0.98, 0.27, 0.16)
    cabin = polygon(x, y, (-0.42, -0.26), (0.22, -0.26), (0.54, 0.20), (-0.68, 0.20))
    layer.outlined(union(shell, cabin - 0.03), body, o.ink)
    glass = rgb(x, 0.70, 0.86, 0.94)
    panes = union(
        polygon(x, y, (-0.40, -0.18), (-0.13, -0.18), (-0.13, 0.15), (-0.56, 0.15)),
        polygon(x, y, (-0.02, -0.18), (0.18, -0.18), (0.41, 0.15), (-0.02, 0.15)),
    )
    layer.paint(panes - 0.03, body * 0.35)
    layer.paint(panes, glass)
    layer.paint(box(x, y, -0.075, 0.42, 0.016, 0.20), body * 0.45)
    layer.paint(box(x, y, 0.06, 0.30, 0.06, 0.025), body * 0.35)
    layer.paint(both(shell, y - 0.67, 0.58 - y), body * 0.55)
    layer.paint(ellipse(x, y, 0.91, 0.36, 0.08, 0.09), rgb(x, 1.0, 0.97, 0.78))
    layer.paint(box(x, y, -0.94, 0.36, 0.05, 0.08), rgb(x, 0.62, 0.05, 0.08))
    for cx in (-0.52, 0.54):
        layer.paint(ellipse(x, y, cx, 0.66, 0.25, 0.25), rgb(x, 0.09, 0.09, 0.11))
        layer.paint(ellipse(x, y, cx, 0.66, 0.12, 0.12), rgb(x, 0.78, 0.79, 0.82))


def boat(o: SimpleNamespace) -> None:
    """A wooden hull with a mast; state: two sails up, else furled on the boom."""
    x, y, layer, body = o.x, o.y, o.layer, o.body
    on, off = o.state, 1 - o.state
    wood = rgb(x, 0.40, 0.26, 0.14)
    layer.outlined(segment(x, y, -0.06, 0.35, -0.06, -0.92, 0.045), wood, 0.02)
    layer.outlined(segment(x, y, -0.06, 0.18, 0.72, 0.16, 0.035), wood, 0.02)
    cream = rgb(x, 0.98, 0.95, 0.86)
    main = polygon(x, y, (0.03, -0.90), (0.80, 0.08), (0.03, 0.10))
    jib = polygon(x, y, (-0.14, -0.74), (-0.14, 0.16), (-0.74, 0.18))
    layer.outlined(main, cream, o.ink, on, shade=0.3)
    layer.paint(both(main, (y + 0.28).abs() - 0.10), body, on)
    layer.outlined(jib, body * 0.45 + 0.5, o.ink, on, shade=0.3)
    furled = segment(x, y, 0.06, 0.09, 0.66, 0.08, 0.095)
    layer.outlined(furled, cream, 0.035, off, shade=0.3)
    ties = both(furled, union(*((x - t).abs() - 0.025 for t in (0.2, 0.36, 0.52))))
    layer.paint(ties, wood, off)
    layer.outlined(polygon(x, y, (-0.04, -0.98), (0.26, -0.88), (-0.04, -0.78)), body, 0.03, off)
    hull = polygon(x, y, (-0.98, 0.34), (0.98, 0.34), (0.66, 0.84), (-0.62, 0.84))
    layer.outlined(hull, body, o.ink)
    layer.paint(both(hull, y - 0.45), body * 0.35 + 0.62)
    layer.paint(both(hull, (y - 0.64).abs() - 0.022), body * 0.5)


def chair(o: SimpleNamespace) -> None:
    """A wooden chair seen from the front and a little from the right."""
    x, y, layer, body = o.x, o.y, o.layer, o.body
    ink = o.ink
    skew = 0.10 + 0.06 * o.pose
    bx = x + skew  # the back stands farther off, and so to the left
    rear = union(
        segment(bx, y, -0.42, 0.2, -0.42, 0.66, 0.06), segment(bx, y, 0.42, 0.2, 0.42, 0.66, 0.06)
    )
    layer.outlined(rear, body * 0.65, ink)
    posts = union(
        segment(bx, y, -0.46, -0.9, -0.44, 0.15, 0.075),
        segment(bx, y, 0.46, -0.9, 0.44, 0.15, 0.075),
    )
    rails = union(
        rounded(bx, y, 0.0, -0.78, 0.46, 0.11, 0.04),
        rounded(bx, y, 0.0, -0.40, 0.44, 0.075, 0.03),
        rounded(bx, y, 0.0, -0.08, 0.44, 0.075, 0.03),
    )
    layer.outlined(union(posts, rails), body, ink)
    front = union(
        segment(x, y, -0.52, 0.3, -0.54, 0.84, 0.075), segment(x, y, 0.60, 0.3, 0.62, 0.84, 0.075)
    )
    layer.outlined(front, body * 0.88, ink)
    seat = polygon(x, y, (-0.48 - skew, 0.12), (0.48 - skew, 0.12), (0.70, 0.36), (-0.62, 0.36))
    apron = box(x, y, 0.04, 0.40, 0.64, 0.07)
    layer.outlined(union(seat, apron), body * 0.75, ink)
    layer.paint(seat, body * 0.6 + 0.35)


THINGS = {
    "plate": plate,
    "mug": mug,
    "umbrella": umbrella,
    "car": car,
    "boat": boat,
    "chair": chair,
}
