"""Man-made objects: house, cart, boat, chair, lamp, mug.

As in ``objects_grown``, proportions, pose and number of parts come from ``rng``, and colours only from slots.
"""

from __future__ import annotations

import numpy as np

from sspyr_mm.datasets.toy_scenes.sprites import Part, arch, box, ellipse, limb, polygon


def house(rng: np.random.Generator) -> list[Part]:
    """Returns a wall with a pitched roof, a door, windows and sometimes a chimney."""
    half, top = rng.uniform(0.6, 0.85), rng.uniform(-0.25, 0.05)
    ridge, eaves = rng.uniform(-0.95, -0.7), rng.uniform(0.05, 0.2)
    tip = rng.uniform(-0.3, 0.3)
    parts = []
    if rng.random() < 0.6:
        side = 1 if rng.random() < 0.5 else -1
        parts.append(Part(box(side * 0.4, (ridge + top) / 2 - 0.1, 0.18, top - ridge), 0, "brickwork"))
    parts.append(Part(box(0, (0.85 + top) / 2, 2 * half, 0.85 - top), 0, "brickwork"))
    roof = polygon((-half - eaves, top), (tip - 0.2, ridge), (tip + 0.2, ridge), (half + eaves, top))
    parts.append(Part(roof, 1, "scales"))
    slots = [-0.6, 0.0, 0.6]
    door = int(rng.integers(3))
    for index, place in enumerate(slots):
        if index == door:
            parts.append(Part(box(place * half, 0.85 - 0.27, 0.26, 0.54), 2))
        elif rng.random() < 0.85:
            size = rng.uniform(0.22, 0.3)
            parts.append(Part(box(place * half, (top + 0.85) / 2 - 0.08, size, size * 1.2), 2, "checks"))
    return parts


def cart(rng: np.random.Generator) -> list[Part]:
    """Returns a load bed on two or three wheels with a cabin or a drawbar."""
    deck, radius = rng.uniform(0.25, 0.38), rng.uniform(0.2, 0.3)
    height = rng.uniform(0.35, 0.7)
    parts = [Part(box(0.2, deck - height / 2, 1.4, height, taper=rng.uniform(-0.2, 0.1)), 0, "planks")]
    if rng.random() < 0.5:
        tall = rng.uniform(0.7, 1.0)
        parts.append(Part(box(-0.72, deck - tall / 2, 0.5, tall, taper=rng.uniform(0.0, 0.3)), 1))
        parts.append(Part(box(-0.75, deck - tall * 0.7, 0.28, tall * 0.35), 2))
    else:
        parts.append(Part(limb(-0.5, deck - 0.05, -1.05, deck - rng.uniform(-0.25, 0.4), 0.12, 0.08), 1))
    parts.append(Part(box(0.0, deck, 1.7, 0.1), 1))
    count = int(rng.integers(2, 4))
    for x in np.linspace(-0.55, 0.65, count):
        y = deck + radius * 0.6
        parts.append(Part(ellipse(float(x), y, radius, radius), 1, "rings"))
        parts.append(Part(ellipse(float(x), y, radius * 0.4, radius * 0.4), 2))
    return parts


def boat(rng: np.random.Generator) -> list[Part]:
    """Returns a hull with a mast and one or two sails, or with a funnel and portholes."""
    deck, bow = rng.uniform(0.3, 0.45), rng.uniform(0.8, 1.0)
    hull = polygon((-bow, deck - 0.08), (0.85, deck), (0.6, 0.85), (-0.55, 0.85))
    parts = []
    if rng.random() < 0.65:
        mast = rng.uniform(-0.2, 0.1)
        parts.append(Part(limb(mast, deck, mast, -1.0, 0.1, 0.06), 2))
        belly = rng.uniform(0.45, 0.8)
        foot = deck - rng.uniform(0.08, 0.2)
        parts.append(Part(polygon((mast + 0.06, -0.95), (mast + belly, foot), (mast + 0.06, foot)), 0, "stripes"))
        if rng.random() < 0.8:
            jib = rng.uniform(0.35, 0.6)
            parts.append(Part(polygon((mast - 0.06, -0.8), (mast - 0.06, foot), (mast - jib, foot)), 0, "stripes"))
        if rng.random() < 0.6:
            parts.append(Part(polygon((mast, -1.0), (mast + 0.3, -0.92), (mast, -0.82)), 1))
    else:
        parts.append(Part(box(0.1, deck - 0.22, 0.9, 0.5), 0, "stripes"))
        lean = rng.uniform(0.0, 0.15)
        for x in (-0.1, 0.3)[: int(rng.integers(1, 3))]:
            parts.append(Part(limb(x, deck - 0.4, x + lean, deck - 1.0, 0.22, 0.2), 2))
    parts.append(Part(hull, 1, "planks"))
    for index in range(int(rng.integers(2, 5))):
        parts.append(Part(ellipse(-0.45 + 0.3 * index, deck + 0.2, 0.07, 0.07), 2))
    return parts


def chair(rng: np.random.Generator) -> list[Part]:
    """Returns a seat on four legs with a slatted back."""
    seat, depth = rng.uniform(0.1, 0.25), rng.uniform(0.2, 0.32)
    spread, thick = rng.uniform(0.0, 0.14), rng.uniform(0.11, 0.16)
    lean, top = rng.uniform(0.0, 0.25), rng.uniform(-1.0, -0.8)
    parts = []
    for x in (-0.3, 0.55):
        parts.append(Part(limb(x, seat, x + spread, 0.8, thick, thick * 0.8), 1))
    for x in (-0.55, 0.3):
        parts.append(Part(limb(x, seat + depth / 2, x - spread, 1.0, thick, thick * 0.8), 1))
    back_x = 0.45
    for x in (back_x - 0.55, back_x):
        parts.append(Part(limb(x, seat, x + lean, top, thick, thick), 1))
    for index in range(int(rng.integers(2, 5))):
        y = top + 0.1 + 0.24 * index
        x = back_x + lean * (seat - y) / (seat - top)
        parts.append(Part(limb(x - 0.62, y, x + 0.08, y, 0.15), 0, "planks"))
    cushion = polygon((-0.3, seat - depth / 2), (0.65, seat - depth / 2), (0.45, seat + depth), (-0.65, seat + depth))
    parts.append(Part(cushion, 0, "checks"))
    parts.append(Part(box(-0.1, seat + depth + 0.04, 1.1, 0.1), 2))
    return parts


def lamp(rng: np.random.Generator) -> list[Part]:
    """Returns a foot, two jointed arms and a shade."""
    elbow_x, elbow_y = rng.uniform(0.15, 0.5), rng.uniform(-0.15, 0.2)
    head_x, head_y = rng.uniform(-0.45, -0.05), rng.uniform(-0.75, -0.5)
    tilt = rng.uniform(-0.5, 0.5)
    wide, flare = rng.uniform(0.45, 0.62), rng.uniform(0.16, 0.26)
    cos, sin = np.cos(tilt), np.sin(tilt)
    shade = polygon((-flare, -0.22), (flare, -0.22), (wide, 0.32), (-wide, 0.32))
    turned = shade @ np.array([[cos, sin], [-sin, cos]], np.float32) + np.array([head_x, head_y], np.float32)
    bulb = np.array([-sin * 0.34, cos * 0.34]) + np.array([head_x, head_y])
    foot = rng.uniform(0.4, 0.6)
    return [
        Part(ellipse(0.1, 0.95, foot, 0.26, start=3.1416, stop=6.2832), 1, "rings"),
        Part(limb(0.1, 0.85, elbow_x, elbow_y, 0.13, 0.11), 2),
        Part(limb(elbow_x, elbow_y, head_x, head_y, 0.11, 0.11), 2),
        Part(ellipse(elbow_x, elbow_y, 0.11, 0.11), 1),
        Part(ellipse(float(bulb[0]), float(bulb[1]), 0.2, 0.2), 2),
        Part(turned.astype(np.float32), 0, "hatch"),
    ]


def mug(rng: np.random.Generator) -> list[Part]:
    """Returns a body with a ring handle, a rim, a band and sometimes steam."""
    half, height = rng.uniform(0.45, 0.62), rng.uniform(0.55, 0.75)
    taper = rng.uniform(-0.25, 0.3)
    shift = -0.2
    top = 0.2 - height
    grip = rng.uniform(0.34, 0.46)
    parts = [Part(arch(shift + half * 0.9, 0.2, grip, rng.uniform(0.12, 0.17), -1.75, 1.75), 1)]
    parts.append(Part(box(shift, 0.2, 2 * half, 2 * height, taper=taper), 0, "dots"))
    band = rng.uniform(-0.15, 0.45)
    parts.append(Part(box(shift, band, 1.9 * half * (1 - max(taper, 0) * 0.4), 0.2), 2, "checks"))
    rim = half * (1 - taper)
    parts.append(Part(ellipse(shift, top, rim, 0.17), 1))
    parts.append(Part(ellipse(shift, top, rim * 0.82, 0.11), 2))
    if rng.random() < 0.5:
        for x in (-0.25, 0.15):
            lean = rng.uniform(-0.15, 0.15)
            parts.append(Part(limb(shift + x, top - 0.1, shift + x + lean, top - 0.5, 0.1, 0.05), 2))
    return parts
