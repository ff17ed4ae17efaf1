"""The object classes and their drawing functions, living (tree to figure) and man-made (house to mug).

Each function yields the parts of one object, back to front, with proportions, pose and number of parts from ``rng``. A
slot determines only which parts share a colour, so that colour does not reveal the class.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from sspyr_mm.datasets.toy_scenes.sprites import Part, arch, box, ellipse, limb, polygon


def tree(rng: np.random.Generator) -> Iterator[Part]:
    """Yields a trunk under a crown of round clumps, or of tiers like a conifer."""
    lean = rng.uniform(-0.12, 0.12)
    width = rng.uniform(0.14, 0.26)
    yield Part(limb(0, 1, lean, -0.1, width * 1.3, width * 0.8), 1, "bark")
    if rng.random() < 0.5:
        tiers = int(rng.integers(2, 5))
        base = rng.uniform(0.5, 0.75)
        for tier in range(tiers):
            low = 0.45 - 1.2 * tier / tiers
            half = base * (1 - 0.6 * tier / tiers)
            tip = low - rng.uniform(0.65, 0.85)
            yield Part(polygon((lean - half, low), (lean + half, low), (lean, tip)), 0, "speckle")
    else:
        for side in (-1, 1):
            yield Part(limb(lean, 0.3, side * 0.35, -0.15, 0.12, 0.07), 1, "bark")
        for index in range(int(rng.integers(3, 6))):
            angle = 2.4 * index + rng.uniform(0, 1)
            x, y = 0.33 * np.cos(angle), -0.4 + 0.27 * np.sin(angle)
            radius = rng.uniform(0.28, 0.42)
            yield Part(ellipse(lean + x, y, radius, radius * rng.uniform(0.8, 1.0)), 0, "speckle")


def flower(rng: np.random.Generator) -> Iterator[Part]:
    """Yields petals around a disc on a bent stem with leaves."""
    head_x, head_y = rng.uniform(-0.2, 0.2), rng.uniform(-0.5, -0.35)
    yield Part(limb(0, 1, head_x * 0.4, 0.3, 0.13, 0.1), 1)
    yield Part(limb(head_x * 0.4, 0.3, head_x, head_y, 0.1, 0.09), 1)
    for side in (-1, 1)[: int(rng.integers(1, 3))]:
        height = rng.uniform(0.35, 0.75)
        tilt = side * -rng.uniform(0.3, 0.8)
        yield Part(ellipse(side * 0.3, height - 0.1, 0.32, 0.11, tilt=tilt), 1, "hatch")
    petals = int(rng.integers(5, 9))
    reach, breadth, turn = rng.uniform(0.34, 0.42), rng.uniform(0.55, 0.9), rng.uniform(0, 2)
    for index in range(petals):
        angle = turn + 2 * np.pi * index / petals
        x, y = head_x + reach * np.cos(angle), head_y + reach * np.sin(angle)
        yield Part(ellipse(x, y, 0.26, breadth * 1.5 / petals, tilt=angle), 0)
    disc = rng.uniform(0.16, 0.24)
    yield Part(ellipse(head_x, head_y, disc, disc), 2, "dots")


def fish(rng: np.random.Generator) -> Iterator[Part]:
    """Yields a scaly body with a forked tail, fins, a gill and an eye."""
    depth = rng.uniform(0.32, 0.5)
    tail, fork, swing = rng.uniform(0.32, 0.52), rng.uniform(0.05, 0.22), rng.uniform(-0.15, 0.15)
    fin = rng.uniform(0.2, 0.36)
    back = rng.uniform(-0.1, 0.3)
    yield Part(polygon((0.5, 0), (1.0, swing - tail), (1 - fork, swing), (1.0, swing + tail)), 1, "stripes")
    yield Part(polygon((-0.3, -depth * 0.8), (back, -depth - fin), (0.45, -depth * 0.45)), 1, "stripes")
    yield Part(polygon((0.0, depth * 0.8), (0.3, depth + fin * 0.8), (0.4, depth * 0.5)), 1, "stripes")
    yield Part(ellipse(-0.15, 0, 0.78, depth), 0, "scales")
    yield Part(limb(-0.15, 0.1, 0.2, 0.1 + fin * 0.5, 0.08, 0.22), 1, "stripes")
    yield Part(ellipse(-0.62, 0, 0.31, depth * 0.76, start=1.57, stop=4.71), 2)
    yield Part(ellipse(-0.62, -depth * 0.28, 0.09, 0.09), 1)


def bird(rng: np.random.Generator) -> Iterator[Part]:
    """Yields a body with head, beak, tail, legs and a wing that is folded or raised."""
    pitch = rng.uniform(-0.35, 0.15)
    x, y = -0.62, -0.45 + rng.uniform(-0.2, 0.15)  # of the head
    stride, leg = rng.uniform(0.05, 0.3), rng.uniform(0.75, 1.0)
    open_beak = rng.uniform(0.05, 0.14)
    yield Part(limb(-0.05, 0.25, -0.05 - stride, leg, 0.09, 0.06), 2)
    yield Part(limb(0.1, 0.25, 0.1 + stride, leg, 0.09, 0.06), 2)
    yield Part(limb(0.3, 0.0, 1.0, -0.3 + rng.uniform(0, 0.5), 0.22, 0.36), 1, "stripes")
    yield Part(limb(x, y, -0.25, 0.0, 0.26, 0.5), 0, "speckle")
    yield Part(ellipse(0, 0.05, 0.55, 0.36, tilt=pitch), 0, "speckle")
    yield Part(polygon((x - 0.16, y - open_beak), (x - 0.52, y + 0.06), (x - 0.14, y + 0.12)), 2)
    yield Part(ellipse(x, y, 0.24, 0.22), 0)
    yield Part(ellipse(x - 0.07, y - 0.04, 0.06, 0.06), 2)
    if rng.random() < 0.5:
        tip = rng.uniform(0.0, 0.5)
        yield Part(polygon((-0.3, 0.0), (0.2, 0.05), (tip + 0.15, -0.85), (tip - 0.25, -0.65)), 1, "stripes")
    else:
        yield Part(ellipse(0.12, 0.0, 0.42, 0.2, tilt=pitch + 0.25), 1, "stripes")


def beetle(rng: np.random.Generator) -> Iterator[Part]:
    """Yields six jointed legs, feelers, a head, a shield and split wing cases, seen from above."""
    width = rng.uniform(0.36, 0.5)
    for side in (-1, 1):
        for index in range(3):
            y = -0.2 + 0.32 * index
            knee_x = side * (width + rng.uniform(0.15, 0.25))
            knee_y = y + (index - 1) * rng.uniform(0.1, 0.3)
            foot_y = knee_y + (index - 0.6) * rng.uniform(0.15, 0.35)
            yield Part(limb(side * width * 0.6, y, knee_x, knee_y, 0.12, 0.09), 1)
            yield Part(limb(knee_x, knee_y, side * (width + 0.4), foot_y, 0.09, 0.05), 1)
        yield Part(limb(side * 0.08, -0.7, side * rng.uniform(0.2, 0.5), -1.1, 0.07, 0.05), 1)
    gap = rng.uniform(0.0, 0.12)
    yield Part(ellipse(0, -0.68, width * 0.45, 0.2), 1)
    yield Part(ellipse(0, -0.42, width * 0.75, 0.24), 2)
    for side, start in ((-1, 1.57), (1, -1.57)):
        half = ellipse(side * 0.02, 0.2, width, 0.66, tilt=-side * gap, start=start, stop=start + 3.1416)
        yield Part(half, 0, "dots")


def figure(rng: np.random.Generator) -> Iterator[Part]:
    """Yields a walking figure with jointed arms and legs, and sometimes a hat."""
    hip = rng.uniform(0.1, 0.2)
    for side in (-1, 1):
        swing, bend = side * rng.uniform(0.0, 0.45), rng.uniform(-0.1, 0.25)
        knee = (side * 0.1 + 0.45 * np.sin(swing), hip + 0.42 * np.cos(swing))
        yield Part(limb(side * 0.1, hip, *knee, 0.24, 0.18), 1, "hatch")
        foot = (knee[0] + 0.42 * np.sin(swing - bend), knee[1] + 0.42 * np.cos(swing - bend))
        yield Part(limb(*knee, *foot, 0.18, 0.15), 1, "hatch")
        yield Part(ellipse(foot[0] - 0.06, foot[1], 0.15, 0.07), 2)
    yield Part(polygon((-0.28, -0.5), (0.28, -0.5), (0.2, hip + 0.05), (-0.2, hip + 0.05)), 0, "checks")
    for side in (-1, 1):
        raised = rng.uniform(0.2, 2.6)
        elbow = (side * (0.25 + 0.34 * np.sin(raised)), -0.42 + 0.34 * np.cos(raised))
        reach = raised + rng.uniform(-0.2, 0.9)
        hand = (elbow[0] + side * 0.32 * np.sin(reach), elbow[1] + 0.32 * np.cos(reach))
        yield Part(limb(side * 0.24, -0.42, *elbow, 0.17, 0.14), 0, "checks")
        yield Part(limb(*elbow, *hand, 0.13, 0.1), 2)
    yield Part(ellipse(rng.uniform(-0.06, 0.06), -0.74, rng.uniform(0.17, 0.22), 0.24), 2)
    if rng.random() < 0.5:
        brim, crown, height = rng.uniform(0.26, 0.36), rng.uniform(0.12, 0.2), rng.uniform(0.14, 0.28)
        y, top = -0.86, -0.86 - height
        left = ((-brim, y), (-crown, y - 0.04), (-crown, top))
        yield Part(polygon(*left, (crown, top), (crown, y - 0.04), (brim, y)), 1)


def house(rng: np.random.Generator) -> Iterator[Part]:
    """Yields a wall with a pitched roof, a door, windows and sometimes a chimney."""
    half, top = rng.uniform(0.6, 0.85), rng.uniform(-0.25, 0.05)
    ridge, eaves = rng.uniform(-0.95, -0.7), rng.uniform(0.05, 0.2)
    tip = rng.uniform(-0.3, 0.3)
    if rng.random() < 0.6:
        side = 1 if rng.random() < 0.5 else -1
        yield Part(box(side * 0.4, (ridge + top) / 2 - 0.1, 0.18, top - ridge), 0, "brickwork")
    yield Part(box(0, (0.85 + top) / 2, 2 * half, 0.85 - top), 0, "brickwork")
    roof = polygon((-half - eaves, top), (tip - 0.2, ridge), (tip + 0.2, ridge), (half + eaves, top))
    yield Part(roof, 1, "scales")
    door = int(rng.integers(3))
    for index, place in enumerate((-0.6, 0.0, 0.6)):
        if index == door:
            yield Part(box(place * half, 0.85 - 0.27, 0.26, 0.54), 2)
        elif rng.random() < 0.85:
            size = rng.uniform(0.22, 0.3)
            yield Part(box(place * half, (top + 0.85) / 2 - 0.08, size, size * 1.2), 2, "checks")


def cart(rng: np.random.Generator) -> Iterator[Part]:
    """Yields a load bed on two or three wheels with a cabin or a drawbar."""
    deck, radius = rng.uniform(0.25, 0.38), rng.uniform(0.2, 0.3)
    height = rng.uniform(0.35, 0.7)
    yield Part(box(0.2, deck - height / 2, 1.4, height, taper=rng.uniform(-0.2, 0.1)), 0, "planks")
    if rng.random() < 0.5:
        tall = rng.uniform(0.7, 1.0)
        yield Part(box(-0.72, deck - tall / 2, 0.5, tall, taper=rng.uniform(0.0, 0.3)), 1)
        yield Part(box(-0.75, deck - tall * 0.7, 0.28, tall * 0.35), 2)
    else:
        yield Part(limb(-0.5, deck - 0.05, -1.05, deck - rng.uniform(-0.25, 0.4), 0.12, 0.08), 1)
    yield Part(box(0.0, deck, 1.7, 0.1), 1)
    y = deck + radius * 0.6
    for x in np.linspace(-0.55, 0.65, int(rng.integers(2, 4))).tolist():
        yield Part(ellipse(x, y, radius, radius), 1, "rings")
        yield Part(ellipse(x, y, radius * 0.4, radius * 0.4), 2)


def boat(rng: np.random.Generator) -> Iterator[Part]:
    """Yields a hull with a mast and one or two sails, or with a funnel and portholes."""
    deck, bow = rng.uniform(0.3, 0.45), rng.uniform(0.8, 1.0)
    if rng.random() < 0.65:
        mast = rng.uniform(-0.2, 0.1)
        yield Part(limb(mast, deck, mast, -1.0, 0.1, 0.06), 2)
        belly = rng.uniform(0.45, 0.8)
        foot = deck - rng.uniform(0.08, 0.2)
        yield Part(polygon((mast + 0.06, -0.95), (mast + belly, foot), (mast + 0.06, foot)), 0, "stripes")
        if rng.random() < 0.8:
            jib = rng.uniform(0.35, 0.6)
            yield Part(polygon((mast - 0.06, -0.8), (mast - 0.06, foot), (mast - jib, foot)), 0, "stripes")
        if rng.random() < 0.6:
            yield Part(polygon((mast, -1.0), (mast + 0.3, -0.92), (mast, -0.82)), 1)
    else:
        yield Part(box(0.1, deck - 0.22, 0.9, 0.5), 0, "stripes")
        lean = rng.uniform(0.0, 0.15)
        for x in (-0.1, 0.3)[: int(rng.integers(1, 3))]:
            yield Part(limb(x, deck - 0.4, x + lean, deck - 1.0, 0.22, 0.2), 2)
    yield Part(polygon((-bow, deck - 0.08), (0.85, deck), (0.6, 0.85), (-0.55, 0.85)), 1, "planks")
    for index in range(int(rng.integers(2, 5))):
        yield Part(ellipse(-0.45 + 0.3 * index, deck + 0.2, 0.07, 0.07), 2)


def chair(rng: np.random.Generator) -> Iterator[Part]:
    """Yields a seat on four legs with a slatted back."""
    seat, depth = rng.uniform(0.1, 0.25), rng.uniform(0.2, 0.32)
    spread, thick = rng.uniform(0.0, 0.14), rng.uniform(0.11, 0.16)
    lean, top = rng.uniform(0.0, 0.25), rng.uniform(-1.0, -0.8)
    for x in (-0.3, 0.55):
        yield Part(limb(x, seat, x + spread, 0.8, thick, thick * 0.8), 1)
    for x in (-0.55, 0.3):
        yield Part(limb(x, seat + depth / 2, x - spread, 1.0, thick, thick * 0.8), 1)
    back_x = 0.45
    for x in (back_x - 0.55, back_x):
        yield Part(limb(x, seat, x + lean, top, thick, thick), 1)
    for index in range(int(rng.integers(2, 5))):
        y = top + 0.1 + 0.24 * index
        x = back_x + lean * (seat - y) / (seat - top)
        yield Part(limb(x - 0.62, y, x + 0.08, y, 0.15, 0.15), 0, "planks")
    front, rear = seat + depth, seat - depth / 2
    yield Part(polygon((-0.3, rear), (0.65, rear), (0.45, front), (-0.65, front)), 0, "checks")
    yield Part(box(-0.1, front + 0.04, 1.1, 0.1), 2)


def lamp(rng: np.random.Generator) -> Iterator[Part]:
    """Yields a foot, two jointed arms and a shade."""
    elbow = rng.uniform(0.15, 0.5), rng.uniform(-0.15, 0.2)
    head = rng.uniform(-0.45, -0.05), rng.uniform(-0.75, -0.5)
    tilt = rng.uniform(-0.5, 0.5)
    wide, flare = rng.uniform(0.45, 0.62), rng.uniform(0.16, 0.26)
    foot = rng.uniform(0.4, 0.6)
    cos, sin = np.cos(tilt), np.sin(tilt)
    shade = polygon((-flare, -0.22), (flare, -0.22), (wide, 0.32), (-wide, 0.32))
    turned = shade @ polygon((cos, sin), (-sin, cos)) + polygon(head)
    yield Part(ellipse(0.1, 0.95, foot, 0.26, start=3.1416, stop=6.2832), 1, "rings")
    yield Part(limb(0.1, 0.85, *elbow, 0.13, 0.11), 2)
    yield Part(limb(*elbow, *head, 0.11, 0.11), 2)
    yield Part(ellipse(*elbow, 0.11, 0.11), 1)
    yield Part(ellipse(-sin * 0.34 + head[0], cos * 0.34 + head[1], 0.2, 0.2), 2)
    yield Part(turned, 0, "hatch")


def mug(rng: np.random.Generator) -> Iterator[Part]:
    """Yields a body with a ring handle, a rim, a band and sometimes steam."""
    half, height = rng.uniform(0.45, 0.62), rng.uniform(0.55, 0.75)
    taper = rng.uniform(-0.25, 0.3)
    shift = -0.2
    top = 0.2 - height
    grip = rng.uniform(0.34, 0.46)
    yield Part(arch(shift + half * 0.9, 0.2, grip, rng.uniform(0.12, 0.17), -1.75, 1.75), 1)
    yield Part(box(shift, 0.2, 2 * half, 2 * height, taper=taper), 0, "dots")
    band = rng.uniform(-0.15, 0.45)
    yield Part(box(shift, band, 1.9 * half * (1 - max(taper, 0) * 0.4), 0.2), 2, "checks")
    rim = half * (1 - taper)
    yield Part(ellipse(shift, top, rim, 0.17), 1)
    yield Part(ellipse(shift, top, rim * 0.82, 0.11), 2)
    if rng.random() < 0.5:
        for x in (shift - 0.25, shift + 0.15):
            yield Part(limb(x, top - 0.1, x + rng.uniform(-0.15, 0.15), top - 0.5, 0.1, 0.05), 2)


@dataclass(frozen=True)
class ObjectClass:
    """Class of objects, with its category name and the function that draws one of them."""

    name: str
    build: Callable[[np.random.Generator], Iterator[Part]]
    #: Factor on the size that equalises the areas of the classes (a chair is mostly gaps, a house is not), so that
    #: area does not reveal the class.
    stretch: float
    #: Largest rotation to either side, in radians.
    turn: float


OBJECT_CLASSES: tuple[ObjectClass, ...] = (
    ObjectClass("tree", tree, 1.1, 0.25),
    ObjectClass("flower", flower, 1.06, 0.3),
    ObjectClass("fish", fish, 1.03, 0.35),
    ObjectClass("bird", bird, 1.02, 0.3),
    ObjectClass("beetle", beetle, 0.95, 0.4),
    ObjectClass("figure", figure, 1.13, 0.25),
    ObjectClass("house", house, 0.79, 0.2),
    ObjectClass("cart", cart, 1.0, 0.25),
    ObjectClass("boat", boat, 0.98, 0.25),
    ObjectClass("chair", chair, 1.04, 0.25),
    ObjectClass("lamp", lamp, 1.28, 0.25),
    ObjectClass("mug", mug, 0.95, 0.3),
)

CLASSES: tuple[str, ...] = tuple(item.name for item in OBJECT_CLASSES)
