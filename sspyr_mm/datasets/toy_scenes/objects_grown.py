"""Living objects: tree, flower, fish, bird, beetle, figure.

Each function draws one object, with proportions, pose and number of parts from ``rng``. A slot determines only which
parts share a colour, so that colour does not reveal the class.
"""

from __future__ import annotations

import numpy as np

from sspyr_mm.datasets.toy_scenes.sprites import Part, ellipse, limb, polygon


def tree(rng: np.random.Generator) -> list[Part]:
    """Returns a trunk under a crown of round clumps, or of tiers as a conifer's."""
    lean = rng.uniform(-0.12, 0.12)
    width = rng.uniform(0.14, 0.26)
    parts = [Part(limb(0, 1, lean, -0.1, width * 1.3, width * 0.8), 1, "bark")]
    if rng.random() < 0.5:
        tiers = int(rng.integers(2, 5))
        base = rng.uniform(0.5, 0.75)
        for tier in range(tiers):
            low = 0.45 - 1.2 * tier / tiers
            half = base * (1 - 0.6 * tier / tiers)
            tip = low - rng.uniform(0.65, 0.85)
            parts.append(Part(polygon((lean - half, low), (lean + half, low), (lean, tip)), 0, "speckle"))
    else:
        for side in (-1, 1):
            parts.append(Part(limb(lean, 0.3, side * 0.35, -0.15, 0.12, 0.07), 1, "bark"))
        for index in range(int(rng.integers(3, 6))):
            angle = 2.4 * index + rng.uniform(0, 1)
            x, y = 0.33 * np.cos(angle), -0.4 + 0.27 * np.sin(angle)
            radius = rng.uniform(0.28, 0.42)
            parts.append(Part(ellipse(lean + x, y, radius, radius * rng.uniform(0.8, 1.0)), 0, "speckle"))
    return parts


def flower(rng: np.random.Generator) -> list[Part]:
    """Returns petals around a disc on a bent stem with leaves."""
    head_x, head_y = rng.uniform(-0.2, 0.2), rng.uniform(-0.5, -0.35)
    parts = [
        Part(limb(0, 1, head_x * 0.4, 0.3, 0.13, 0.1), 1),
        Part(limb(head_x * 0.4, 0.3, head_x, head_y, 0.1, 0.09), 1),
    ]
    for side in (-1, 1)[: int(rng.integers(1, 3))]:
        height = rng.uniform(0.35, 0.75)
        tilt = side * -rng.uniform(0.3, 0.8)
        parts.append(Part(ellipse(side * 0.3, height - 0.1, 0.32, 0.11, tilt=tilt), 1, "hatch"))
    petals = int(rng.integers(5, 9))
    reach, breadth, turn = rng.uniform(0.34, 0.42), rng.uniform(0.55, 0.9), rng.uniform(0, 2)
    for index in range(petals):
        angle = turn + 2 * np.pi * index / petals
        x, y = head_x + reach * np.cos(angle), head_y + reach * np.sin(angle)
        parts.append(Part(ellipse(x, y, 0.26, breadth * 1.5 / petals, tilt=angle), 0, "plain"))
    disc = rng.uniform(0.16, 0.24)
    parts.append(Part(ellipse(head_x, head_y, disc, disc), 2, "dots"))
    return parts


def fish(rng: np.random.Generator) -> list[Part]:
    """Returns a scaly body with a forked tail, fins, a gill and an eye."""
    depth = rng.uniform(0.32, 0.5)
    tail, fork, swing = rng.uniform(0.32, 0.52), rng.uniform(0.05, 0.22), rng.uniform(-0.15, 0.15)
    fin = rng.uniform(0.2, 0.36)
    back = rng.uniform(-0.1, 0.3)
    return [
        Part(polygon((0.5, 0), (1.0, swing - tail), (1 - fork, swing), (1.0, swing + tail)), 1, "stripes"),
        Part(polygon((-0.3, -depth * 0.8), (back, -depth - fin), (0.45, -depth * 0.45)), 1, "stripes"),
        Part(polygon((0.0, depth * 0.8), (0.3, depth + fin * 0.8), (0.4, depth * 0.5)), 1, "stripes"),
        Part(ellipse(-0.15, 0, 0.78, depth), 0, "scales"),
        Part(limb(-0.15, 0.1, 0.2, 0.1 + fin * 0.5, 0.08, 0.22), 1, "stripes"),
        Part(ellipse(-0.62, 0, 0.31, depth * 0.76, start=1.57, stop=4.71), 2),
        Part(ellipse(-0.62, -depth * 0.28, 0.09, 0.09), 1),
    ]


def bird(rng: np.random.Generator) -> list[Part]:
    """Returns a body with head, beak, tail, legs and a wing that is folded or raised."""
    pitch = rng.uniform(-0.35, 0.15)
    neck_x, neck_y = -0.62, -0.45 + rng.uniform(-0.2, 0.15)
    stride, leg = rng.uniform(0.05, 0.3), rng.uniform(0.75, 1.0)
    open_beak = rng.uniform(0.05, 0.14)
    parts = [
        Part(limb(-0.05, 0.25, -0.05 - stride, leg, 0.09, 0.06), 2),
        Part(limb(0.1, 0.25, 0.1 + stride, leg, 0.09, 0.06), 2),
        Part(limb(0.3, 0.0, 1.0, -0.3 + rng.uniform(0, 0.5), 0.22, 0.36), 1, "stripes"),
        Part(limb(neck_x, neck_y, -0.25, 0.0, 0.26, 0.5), 0, "speckle"),
        Part(ellipse(0, 0.05, 0.55, 0.36, tilt=pitch), 0, "speckle"),
        Part(
            polygon(
                (neck_x - 0.16, neck_y - open_beak), (neck_x - 0.52, neck_y + 0.06), (neck_x - 0.14, neck_y + 0.12)
            ),
            2,
        ),
        Part(ellipse(neck_x, neck_y, 0.24, 0.22), 0, "plain"),
        Part(ellipse(neck_x - 0.07, neck_y - 0.04, 0.06, 0.06), 2),
    ]
    if rng.random() < 0.5:
        tip = rng.uniform(0.0, 0.5)
        parts.append(Part(polygon((-0.3, 0.0), (0.2, 0.05), (tip + 0.15, -0.85), (tip - 0.25, -0.65)), 1, "stripes"))
    else:
        parts.append(Part(ellipse(0.12, 0.0, 0.42, 0.2, tilt=pitch + 0.25), 1, "stripes"))
    return parts


def beetle(rng: np.random.Generator) -> list[Part]:
    """Returns six jointed legs, feelers, a head, a shield and split wing cases, seen from above."""
    width = rng.uniform(0.36, 0.5)
    parts = []
    for side in (-1, 1):
        for index in range(3):
            y = -0.2 + 0.32 * index
            knee_x = side * (width + rng.uniform(0.15, 0.25))
            knee_y = y + (index - 1) * rng.uniform(0.1, 0.3)
            foot_y = knee_y + (index - 0.6) * rng.uniform(0.15, 0.35)
            parts.append(Part(limb(side * width * 0.6, y, knee_x, knee_y, 0.12, 0.09), 1))
            parts.append(Part(limb(knee_x, knee_y, side * (width + 0.4), foot_y, 0.09, 0.05), 1))
        parts.append(Part(limb(side * 0.08, -0.7, side * rng.uniform(0.2, 0.5), -1.1, 0.07, 0.05), 1))
    gap = rng.uniform(0.0, 0.12)
    parts.append(Part(ellipse(0, -0.68, width * 0.45, 0.2), 1))
    parts.append(Part(ellipse(0, -0.42, width * 0.75, 0.24), 2, "plain"))
    for side in (-1, 1):
        start = -1.57 if side > 0 else 1.57
        half = ellipse(side * 0.02, 0.2, width, 0.66, tilt=-side * gap, start=start, stop=start + 3.1416)
        parts.append(Part(half, 0, "dots"))
    return parts


def figure(rng: np.random.Generator) -> list[Part]:
    """Returns a walking figure with jointed arms and legs."""
    parts = []
    hip = rng.uniform(0.1, 0.2)
    for side in (-1, 1):
        swing, bend = side * rng.uniform(0.0, 0.45), rng.uniform(-0.1, 0.25)
        knee = (side * 0.1 + 0.45 * np.sin(swing), hip + 0.42 * np.cos(swing))
        parts.append(Part(limb(side * 0.1, hip, *knee, 0.24, 0.18), 1, "hatch"))
        foot = (knee[0] + 0.42 * np.sin(swing - bend), knee[1] + 0.42 * np.cos(swing - bend))
        parts.append(Part(limb(*knee, *foot, 0.18, 0.15), 1, "hatch"))
        parts.append(Part(ellipse(foot[0] - 0.06, foot[1], 0.15, 0.07), 2))
    torso = Part(polygon((-0.28, -0.5), (0.28, -0.5), (0.2, hip + 0.05), (-0.2, hip + 0.05)), 0, "checks")
    arms = []
    for side in (-1, 1):
        raised = rng.uniform(0.2, 2.6)
        elbow = (side * (0.25 + 0.34 * np.sin(raised)), -0.42 + 0.34 * np.cos(raised))
        reach = raised + rng.uniform(-0.2, 0.9)
        hand = (elbow[0] + side * 0.32 * np.sin(reach), elbow[1] + 0.32 * np.cos(reach))
        arms.append(Part(limb(side * 0.24, -0.42, *elbow, 0.17, 0.14), 0, "checks"))
        arms.append(Part(limb(*elbow, *hand, 0.13, 0.1), 2))
    head = ellipse(rng.uniform(-0.06, 0.06), -0.74, rng.uniform(0.17, 0.22), 0.24)
    parts += [torso, *arms, Part(head, 2)]
    if rng.random() < 0.5:
        parts.append(Part(box_hat(rng), 1))
    return parts


def box_hat(rng: np.random.Generator) -> np.ndarray:
    """Returns a hat for a figure: a (6, 2) float32 outline above the head."""
    brim, crown, height = rng.uniform(0.26, 0.36), rng.uniform(0.12, 0.2), rng.uniform(0.14, 0.28)
    y = -0.86
    return polygon(
        (-brim, y), (-crown, y - 0.04), (-crown, y - height), (crown, y - height), (crown, y - 0.04), (brim, y)
    )
