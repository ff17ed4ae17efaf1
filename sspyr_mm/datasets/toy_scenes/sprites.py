"""Sprites: objects made of polygons, each drawn into a patch and pasted on the canvas.

In the frame of an object, x points right, y points down, the origin is near its middle, and both range over about
[-1, 1]. All outlines are polygons, so that one rasteriser draws every shape and an affine map transforms its points.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from sspyr_mm.datasets.toy_scenes.textures import PATTERN_NAMES, PATTERNS, FloatArray, random_colour

# Sub-pixel bits of cv2's fixed-point drawing.
_SHIFT = 4
_TAU = 2.0 * math.pi

Point = tuple[float, float]


@dataclass(frozen=True)
class Part:
    """One filled outline of an object."""

    points: FloatArray  # (N, 2), in the object's frame
    slot: int  # index of the fill colour, 0 to 2
    pattern: str = "plain"  # usual pattern, one of PATTERN_NAMES


def polygon(*points: Point) -> FloatArray:
    """Returns corners as an (N, 2) float32 array."""
    return np.array(points, dtype=np.float32)


def box(cx: float, cy: float, width: float, height: float, taper: float = 0.0) -> FloatArray:
    """Returns a box (4, 2), or a trapezoid: ``taper`` is the share of the width that is missing at the top."""
    bottom, top = width / 2.0, width * (1.0 - taper) / 2.0
    y0, y1 = cy - height / 2.0, cy + height / 2.0
    return polygon((cx - top, y0), (cx + top, y0), (cx + bottom, y1), (cx - bottom, y1))


def ellipse(
    cx: float, cy: float, rx: float, ry: float, *, tilt: float = 0.0, start: float = 0.0, stop: float = _TAU
) -> FloatArray:
    """Returns an ellipse (20, 2) with half axes ``rx`` and ``ry``, or its part between two angles; all in radians."""
    whole = stop - start > _TAU - 1e-6
    angles = start + (stop - start) / (20 if whole else 19) * np.arange(20)
    x, y = rx * np.cos(angles), ry * np.sin(angles)
    cos, sin = math.cos(tilt), math.sin(tilt)
    return np.stack([cx + cos * x - sin * y, cy + sin * x + cos * y], axis=1).astype(np.float32)


def limb(x0: float, y0: float, x1: float, y1: float, w0: float, w1: float) -> FloatArray:
    """Returns a limb (4, 2) between two joints, ``w0`` wide at the first and ``w1`` at the second."""
    dx, dy = x1 - x0, y1 - y0
    length = float(np.hypot(dx, dy))
    nx, ny = -dy / length / 2.0, dx / length / 2.0
    return polygon(
        (x0 + nx * w0, y0 + ny * w0),
        (x1 + nx * w1, y1 + ny * w1),
        (x1 - nx * w1, y1 - ny * w1),
        (x0 - nx * w0, y0 - ny * w0),
    )


def arch(cx: float, cy: float, radius: float, thickness: float, start: float, stop: float) -> FloatArray:
    """Returns a segment (24, 2) of a ring between two angles in radians; ``radius`` is the outer radius."""
    angles = np.linspace(start, stop, 12)
    rim = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    points = np.concatenate([radius * rim, (radius - thickness) * rim[::-1]])
    return (points + np.array([cx, cy])).astype(np.float32)


def random_affine(rng: np.random.Generator, turn: float, extent: float) -> FloatArray:
    """Returns a (2, 2) map from object units to pixels: mirror, stretch, shear, rotation, scale."""
    angle = rng.uniform(-turn, turn)
    mirror = 1.0 if rng.random() < 0.5 else -1.0
    aspect = np.exp(rng.uniform(-0.18, 0.18))
    shear = rng.uniform(-0.15, 0.15)
    cos, sin = np.cos(angle), np.sin(angle)
    rotation = np.array([[cos, -sin], [sin, cos]])
    shape = np.array([[mirror * aspect, shear], [0.0, 1.0 / aspect]])
    return (extent / 2.0 * rotation @ shape).astype(np.float32)


def _colours(rng: np.random.Generator, avoid: FloatArray) -> FloatArray:
    """Returns (3, 2, 3): two RGB colours per slot; those of the first slot differ from the background ``avoid``."""
    base = random_colour(rng, 3)
    for _ in range(6):
        if abs(float(base[0].mean() - avoid.mean())) > 55:
            break
        base[0] = random_colour(rng, 1)[0]
    # The second colour of a slot is a shift of the first, often a weak one: patterns hint at the class only.
    step = rng.uniform(25, 90, (3, 1)) * np.where(base.mean(axis=1, keepdims=True) > 128, -1.0, 1.0)
    other = base + step + rng.normal(0, 15, (3, 3))
    return np.stack([base, other], axis=1).astype(np.float32)


def _render(
    rng: np.random.Generator, parts: Sequence[Part], affine: FloatArray, centre: Point, avoid: FloatArray
) -> tuple[FloatArray, FloatArray, list[int]]:
    """Draws parts back to front into a patch that contains all of them, including those outside of the image.

    Returns its colour (3, h, w), undefined where alpha is 0, alpha (h, w) in [0, 1], and the x and y of its corner.
    """
    outlines = [part.points @ affine.T for part in parts]
    everything = np.concatenate(outlines)
    low = np.floor(everything.min(axis=0) + centre).astype(int) - 1
    high = np.ceil(everything.max(axis=0) + centre).astype(int) + 2
    width, height = (high - low).tolist()
    origin = np.asarray(centre, np.float32) - low
    inverse = np.linalg.inv(affine) * rng.uniform(0.75, 1.3)
    xs = np.arange(width, dtype=np.float32) - origin[0]
    ys = np.arange(height, dtype=np.float32)[:, None] - origin[1]
    u = inverse[0, 0] * xs + inverse[0, 1] * ys
    v = inverse[1, 0] * xs + inverse[1, 1] * ys
    colours = _colours(rng, avoid)
    usual = sorted({part.pattern for part in parts})
    swap = {name: str(rng.choice(PATTERN_NAMES)) for name in usual if rng.random() < 0.12}
    edge = rng.uniform(0.2, 1.0) if rng.random() < 0.7 else 0.0
    colour = np.zeros((3, height, width), np.float32)
    alpha = np.zeros((height, width), np.float32)
    for part, outline in zip(parts, outlines, strict=True):
        points = outline + origin
        x0, y0 = np.maximum(np.floor(points.min(axis=0)).astype(int) - 1, 0)
        x1, y1 = np.ceil(points.max(axis=0)).astype(int) + 2
        window = (slice(y0, y1), slice(x0, x1))
        base, other = colours[part.slot][:, :, None, None]
        pattern = swap.get(part.pattern, part.pattern)
        fill: FloatArray = base
        if pattern != "plain":
            fill = base + PATTERNS[pattern](u[window], v[window], rng) * (other - base)
        _fill_polygon(colour[:, y0:y1, x0:x1], alpha[window], points - (x0, y0), fill, edge)
    light = 1.0 + rng.uniform(-0.3, 0.3) * u + rng.uniform(-0.3, 0.3) * v
    return colour * light, alpha, low.tolist()


def _fill_polygon(colour: FloatArray, alpha: FloatArray, points: FloatArray, fill: FloatArray, edge: float) -> None:
    """Draws a polygon over ``colour`` (3, h, w) and ``alpha`` (h, w); ``edge`` is the strength of a dark outline."""
    mask = np.zeros(alpha.shape, np.uint8)
    fixed = np.round(points * (1 << _SHIFT)).astype(np.int32)
    cv2.fillPoly(mask, [fixed], 255, cv2.LINE_AA, _SHIFT)
    cover = np.multiply(mask, 1.0 / 255.0, dtype=np.float32)
    total = cover + alpha * (1.0 - cover)
    # Straight alpha: an edge pixel has the colour of the covering part, not a mix with the empty background.
    colour += cover / np.maximum(total, 1e-3) * (fill - colour)
    if edge:
        line = np.zeros_like(mask)
        cv2.polylines(line, [fixed], True, 255, 1, cv2.LINE_AA, _SHIFT)
        colour *= 1.0 - np.multiply(line, edge * 0.6 / 255.0, dtype=np.float32)
    alpha[:] = total


class Canvas:
    """Image (3, H, W), RGB in about [0, 255], and the number of the object that each pixel shows (H, W), 0 for none."""

    def __init__(self, background: FloatArray) -> None:
        self.image = background
        self.owner = np.zeros(background.shape[1:], np.int32)
        self._ground = background.mean(axis=(1, 2))

    def draw(
        self, rng: np.random.Generator, parts: Sequence[Part], affine: FloatArray, centre: Point, number: int
    ) -> tuple[int, bool]:
        """Draws an object; returns its full area in pixels and whether the image border cuts it.

        ``affine`` (2, 2) maps object units to pixels, ``centre`` is the object's origin (x, y) in pixels.
        """
        colour, alpha, (left, top) = _render(rng, parts, affine, centre, self._ground)
        solid = alpha >= 0.5
        area = int(solid.sum())
        (height, width), (h, w) = self.owner.shape, solid.shape
        y0, x0, y1, x1 = max(top, 0), max(left, 0), min(top + h, height), min(left + w, width)
        if y1 <= y0 or x1 <= x0:
            return area, True
        inner = (slice(y0 - top, y1 - top), slice(x0 - left, x1 - left))
        target = self.image[:, y0:y1, x0:x1]
        target += alpha[inner] * (colour[:, inner[0], inner[1]] - target)
        self.owner[y0:y1, x0:x1][solid[inner]] = number
        return area, int(solid[inner].sum()) < area
