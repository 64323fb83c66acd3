"""The animals of the `scenes` world. All look to the right; the ground is at y = 0.9.

Each function paints one class on `o.layer` in the object's own frame, [-1, 1] across. `o.body` is
the object's colour, `o.state` whether its state is on (B, 1, 1), `o.pose` in [-1, 1] moves it.
"""

from __future__ import annotations

from types import SimpleNamespace

from visiondx_worlds.worlds.scenes_shapes import polygon, rounded, turned
from visiondx_worlds.worlds.sdf import both, box, ellipse, rgb, ring, segment, union, without


def dog(o: SimpleNamespace) -> None:
    """Standing, with a hanging ear and a tail up; state: a harness."""
    x, y, layer, body = o.x, o.y, o.layer, o.body
    ink, dark = o.ink, o.dark
    nod = 0.08 * o.pose
    hx, hy = 0.56, -0.40 + nod
    tail = segment(x, y, -0.66, -0.02, -0.92, -0.42 + 0.15 * o.pose, 0.075)
    legs = union(
        *(segment(x, y, a, 0.2, b, 0.80, 0.095) for a, b in ((-0.58, -0.62), (0.36, 0.40)))
    )
    far = union(*(segment(x, y, a, 0.2, b, 0.78, 0.085) for a, b in ((-0.36, -0.30), (0.16, 0.12))))
    trunk = segment(x, y, -0.45, 0.10, 0.30, 0.06, 0.27)
    neck = segment(x, y, 0.34, -0.02, hx - 0.06, hy + 0.05, 0.17)
    skull = ellipse(x, y, hx, hy, 0.26, 0.235)
    snout = segment(x, y, hx + 0.10, hy + 0.08, hx + 0.34, hy + 0.10, 0.115)
    layer.outlined(far, body * 0.75, ink)
    layer.outlined(union(tail, legs, trunk, neck, skull, snout), body, ink)
    # harness: a broad vest with straps and a handle
    purple, white = rgb(body, 0.62, 0.10, 0.80), rgb(body, 0.97, 0.97, 0.97)
    vest = both(trunk - 0.04, (x - 0.10).abs() - 0.27)
    handle = without(
        rounded(x, y, 0.08, -0.22, 0.19, 0.15, 0.06), box(x, y, 0.08, -0.2, 0.10, 0.08)
    )
    strap = both(neck - 0.05, segment(x, y, 0.22, -0.22, 0.55, 0.10, 0.075))
    layer.paint(handle, dark, o.state, state=True)
    layer.paint(union(vest, strap) - 0.03, dark, o.state, state=True)
    layer.paint(union(vest, strap), purple, o.state, state=True)
    stripe = both(vest, union((x + 0.06).abs() - 0.05, (x - 0.26).abs() - 0.05))
    layer.paint(stripe, white, o.state, state=True)
    # face
    u, v = turned(x, y, hx - 0.16, hy + 0.02, 0.15)
    layer.outlined(ellipse(u, v, 0.0, 0.06, 0.105, 0.235), body * 0.62, 0.03)
    layer.paint(ellipse(x, y, hx + 0.43, hy + 0.04, 0.075, 0.065), dark)
    layer.paint(ellipse(x, y, hx + 0.08, hy - 0.05, 0.07, 0.075), rgb(body, 1, 1, 1))
    layer.paint(ellipse(x, y, hx + 0.095, hy - 0.045, 0.05, 0.055), dark)
    layer.paint(segment(x, y, hx + 0.16, hy + 0.15, hx + 0.36, hy + 0.17, 0.018), dark)


def cat(o: SimpleNamespace) -> None:
    """Sitting, seen from the front: pointed ears, whiskers, slit eyes, the tail around."""
    x, y, layer, body, dark = o.x, o.y, o.layer, o.body, o.dark
    ink = o.ink
    m = x.abs()
    lean = 0.05 * o.pose
    fx = x - lean
    fm = fx.abs()
    tail = union(
        segment(x, y, 0.30, 0.76, 0.68, 0.70, 0.09),
        segment(x, y, 0.68, 0.70, 0.82, 0.38, 0.09),
        segment(x, y, 0.82, 0.38, 0.72, 0.10 + 0.1 * o.pose, 0.085),
    )
    trunk = union(ellipse(x, y, 0.0, 0.50, 0.44, 0.40), ellipse(x, y, 0.0, 0.15, 0.30, 0.40))
    head = ellipse(fx, y, 0.0, -0.32, 0.44, 0.35)
    ears = polygon(fm, y, (0.08, -0.52), (0.40, -0.94), (0.45, -0.36))
    layer.outlined(tail, body * 0.85, ink)
    layer.outlined(trunk, body, ink)
    layer.paint(ellipse(x, y, 0.0, 0.32, 0.17, 0.28), body * 0.5 + 0.5)
    paws = ellipse(m, y, 0.17, 0.83, 0.14, 0.08)
    layer.outlined(paws, body * 0.6 + 0.4, 0.03)
    layer.outlined(union(head, ears), body, ink)
    layer.paint(
        polygon(fm, y, (0.20, -0.60), (0.365, -0.80), (0.39, -0.54)), rgb(x, 0.95, 0.6, 0.65)
    )
    bars = union(box(fm, y, 0.13, -0.58, 0.028, 0.09), box(fx, y, 0.0, -0.58, 0.028, 0.11))
    layer.paint(both(bars, head), body * 0.5)
    layer.paint(ellipse(fx, y, 0.0, -0.16, 0.19, 0.12), body * 0.45 + 0.55)
    layer.paint(ellipse(fm, y, 0.18, -0.35, 0.115, 0.095), rgb(x, 0.80, 0.92, 0.35))
    layer.paint(ellipse(fm, y, 0.18, -0.35, 0.042, 0.09), dark)
    layer.paint(
        polygon(fx, y, (-0.075, -0.235), (0.075, -0.235), (0.0, -0.14)), rgb(x, 0.9, 0.4, 0.5)
    )
    whiskers = union(
        segment(fm, y, 0.20, -0.17, 0.62, -0.24, 0.014),
        segment(fm, y, 0.20, -0.13, 0.60, -0.08, 0.014),
    )
    layer.paint(whiskers, dark, 0.8)


def bird(o: SimpleNamespace) -> None:
    """Perched on thin legs; state: both wings raised."""
    x, y, layer, body, dark = o.x, o.y, o.layer, o.body, o.dark
    ink = o.ink
    hy = -0.22 + 0.05 * o.pose
    legs = union(
        segment(x, y, -0.05, 0.4, -0.08, 0.86, 0.032),
        segment(x, y, 0.15, 0.4, 0.17, 0.86, 0.032),
        segment(x, y, -0.08, 0.86, 0.06, 0.87, 0.032),
        segment(x, y, 0.17, 0.86, 0.31, 0.87, 0.032),
    )
    layer.paint(legs, rgb(x, 0.42, 0.30, 0.16))
    wings = union(
        polygon(x, y, (-0.26, 0.12), (-0.95, -0.74), (-0.42, -0.78), (0.16, -0.02)),
        polygon(x, y, (0.0, 0.02), (-0.06, -0.98), (0.40, -0.92), (0.34, 0.0)),
    )
    layer.outlined(wings, body * 0.72, ink, o.state)
    quills = union(
        segment(x, y, -0.20, 0.02, -0.72, -0.72, 0.02), segment(x, y, 0.12, 0.0, 0.16, -0.90, 0.02)
    )
    layer.paint(quills, body * 0.4, o.state)
    tail = polygon(x, y, (-0.40, 0.06), (-0.35, 0.30), (-1.0, 0.56), (-0.98, 0.34))
    u, v = turned(x, y, 0.02, 0.14, -0.25)
    trunk = ellipse(u, v, 0.0, 0.0, 0.52, 0.33)
    head = ellipse(x, y, 0.42, hy, 0.26, 0.25)
    layer.outlined(tail, body * 0.6, ink)
    beak = polygon(x, y, (0.62, hy - 0.10), (0.98, hy + 0.04), (0.62, hy + 0.13))
    layer.outlined(beak, rgb(x, 0.93, 0.72, 0.25), ink)
    layer.outlined(union(trunk, head), body, ink)
    layer.paint(both(ellipse(x, y, 0.20, 0.30, 0.30, 0.20), trunk), body * 0.5 + 0.5)
    u, v = turned(x, y, -0.12, 0.12, -0.35)
    folded = both(ellipse(u, v, 0.0, 0.0, 0.40, 0.20), -(v + 0.2) - 0.02)
    layer.outlined(folded, body * 0.62, 0.035, 1 - o.state)
    layer.paint(ellipse(x, y, 0.50, hy - 0.05, 0.085, 0.085), rgb(x, 1, 1, 1))
    layer.paint(ellipse(x, y, 0.52, hy - 0.045, 0.055, 0.055), dark)


def fish(o: SimpleNamespace) -> None:
    """Fins, stripes and a forked tail; state: in a glass tank."""
    x, y, layer, body, dark = o.x, o.y, o.layer, o.body, o.dark
    ink = o.ink
    glass = box(x, y, 0.0, 0.10, 1.0, 0.76)
    layer.paint(glass - 0.07, rgb(x, 0.16, 0.18, 0.22), o.state, state=True)
    layer.paint(glass, rgb(x, 0.90, 0.96, 0.98), o.state, state=True)
    layer.paint(both(glass, -0.48 - y), rgb(x, 0.50, 0.80, 0.92), o.state, state=True)
    layer.paint(both(glass, 0.68 - y), rgb(x, 0.78, 0.70, 0.55), o.state, state=True)
    weed = union(
        segment(x, y, -0.84, 0.70, -0.76, 0.36, 0.05), segment(x, y, -0.76, 0.36, -0.86, 0.04, 0.05)
    )
    layer.paint(weed, rgb(x, 0.10, 0.45, 0.25), o.state, state=True)
    bubbles = union(
        ring(ellipse(x, y, 0.84, -0.20, 0.07, 0.07), 0.022),
        ring(ellipse(x, y, 0.76, -0.36, 0.05, 0.05), 0.022),
    )
    layer.paint(bubbles, rgb(x, 1, 1, 1), o.state, state=True)
    # in the tank a little smaller than its frame, so that the tank holds it
    fit = 1.0 - 0.14 * o.state
    x, y = x / fit, (y - 0.10) / fit
    wag = 0.10 * o.pose
    trunk = ellipse(x, y, 0.14, 0.0, 0.66, 0.40)
    tail = union(
        polygon(x, y, (-0.36, 0.0), (-0.98, -0.42 + wag), (-0.76, 0.02)),
        polygon(x, y, (-0.36, 0.0), (-0.76, 0.0), (-0.98, 0.42 + wag)),
    )
    fins = union(
        polygon(x, y, (-0.26, -0.24), (-0.02, -0.62), (0.42, -0.30)),
        polygon(x, y, (-0.10, 0.30), (0.22, 0.30), (-0.06, 0.58)),
    )
    layer.outlined(union(tail, fins), body * 0.72, ink)
    layer.outlined(trunk, body, ink)
    bands = both(trunk, union((x + 0.14).abs() - 0.06, (x - 0.16).abs() - 0.06))
    layer.paint(bands, body * 0.5 + 0.5)
    gill = both(ring(ellipse(x, y, 0.30, 0.0, 0.17, 0.24), 0.02), 0.36 - x)
    layer.paint(gill, body * 0.4)
    layer.paint(ellipse(x, y, 0.58, -0.10, 0.11, 0.11), rgb(x, 1, 1, 1))
    layer.paint(ellipse(x, y, 0.60, -0.10, 0.06, 0.06), dark)
    layer.paint(segment(x, y, 0.66, 0.14, 0.76, 0.10, 0.025), dark)


def rabbit(o: SimpleNamespace) -> None:
    """Sitting, with two long ears up, a round haunch and a white tail."""
    x, y, layer, body, dark = o.x, o.y, o.layer, o.body, o.dark
    ink = o.ink
    hx, hy = 0.36, -0.12
    white = rgb(x, 0.98, 0.96, 0.95)
    layer.outlined(ellipse(x, y, -0.68, 0.50, 0.17, 0.16), white, ink, shade=0.45)
    pink = rgb(x, 0.96, 0.62, 0.68)
    for cx, angle, shade in ((hx - 0.20, -0.28, 0.85), (hx + 0.02, 0.02, 1.0)):
        u, v = turned(x, y, cx, hy - 0.52, angle)
        u = u - 0.06 * o.pose * v
        layer.outlined(ellipse(u, v, 0.0, 0.0, 0.125, 0.40), body * shade, ink)
        layer.paint(ellipse(u, v, 0.0, 0.02, 0.06, 0.28), pink)
    feet = union(
        rounded(x, y, -0.12, 0.82, 0.34, 0.09, 0.08), rounded(x, y, 0.46, 0.82, 0.20, 0.08, 0.08)
    )
    trunk = union(ellipse(x, y, -0.18, 0.42, 0.48, 0.44), ellipse(x, y, 0.22, 0.36, 0.28, 0.40))
    head = ellipse(x, y, hx, hy, 0.32, 0.275)
    layer.outlined(union(trunk, feet, head), body, ink)
    haunch = both(ring(ellipse(x, y, -0.20, 0.52, 0.30, 0.27), 0.022), -(y - 0.60))
    layer.paint(both(haunch, y - 0.62), body * 0.5)
    layer.paint(ellipse(x, y, hx + 0.20, hy + 0.10, 0.13, 0.10), body * 0.5 + 0.5)
    layer.paint(ellipse(x, y, hx + 0.09, hy - 0.05, 0.075, 0.085), dark)
    layer.paint(ellipse(x, y, hx + 0.11, hy - 0.075, 0.026, 0.026), rgb(x, 1, 1, 1))
    layer.paint(ellipse(x, y, hx + 0.315, hy + 0.03, 0.05, 0.04), rgb(x, 0.9, 0.4, 0.5))
    layer.paint(segment(x, y, hx + 0.20, hy + 0.14, hx + 0.52, hy + 0.10, 0.013), dark, 0.7)


def turtle(o: SimpleNamespace) -> None:
    """A high patterned shell on stumpy legs, the head out."""
    x, y, layer, body, dark = o.x, o.y, o.layer, o.body, o.dark
    ink = o.ink
    skin = body * 0.45 + rgb(x, 0.40, 0.42, 0.32)
    hy = 0.16 + 0.08 * o.pose
    neck = segment(x, y, 0.50, 0.48, 0.74, hy + 0.06, 0.11)
    head = ellipse(x, y, 0.80, hy, 0.20, 0.16)
    tail = polygon(x, y, (-0.72, 0.48), (-0.72, 0.62), (-1.0, 0.64))
    legs = union(*(rounded(x, y, cx, 0.70, 0.14, 0.20, 0.08) for cx in (-0.48, 0.36)))
    far = union(*(rounded(x, y, cx, 0.66, 0.11, 0.18, 0.08) for cx in (-0.22, 0.12)))
    layer.outlined(far, skin * 0.7, ink)
    layer.outlined(union(neck, head, tail, legs), skin, ink)
    dome = both(ellipse(x, y, -0.10, 0.50, 0.74, 0.82), y - 0.52)
    layer.outlined(dome, body, ink)
    lines = union(
        segment(x, y, -0.10, -0.02, -0.36, 0.14, 0.032),
        segment(x, y, -0.10, -0.02, 0.16, 0.14, 0.032),
        segment(x, y, -0.36, 0.14, -0.30, 0.50, 0.032),
        segment(x, y, 0.16, 0.14, 0.10, 0.50, 0.032),
        segment(x, y, -0.10, -0.02, -0.10, -0.32, 0.032),
        segment(x, y, -0.36, 0.14, -0.72, 0.14, 0.032),
        segment(x, y, 0.16, 0.14, 0.52, 0.14, 0.032),
    )
    layer.paint(both(lines, dome), body * 0.42)
    layer.outlined(rounded(x, y, -0.10, 0.52, 0.80, 0.06, 0.05), body * 0.7, 0.03)
    layer.paint(ellipse(x, y, 0.85, hy - 0.04, 0.055, 0.06), dark)
    layer.paint(segment(x, y, 0.82, hy + 0.09, 0.96, hy + 0.06, 0.016), dark)


ANIMALS = {"dog": dog, "cat": cat, "bird": bird, "fish": fish, "rabbit": rabbit, "turtle": turtle}
