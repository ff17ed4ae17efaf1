"""Sprites: an object's parts drawn into a patch of its own, and laid on the canvas."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from sspyr_mm.datasets.toy_scenes.backgrounds import random_colour
from sspyr_mm.datasets.toy_scenes.geometry import FloatArray, Part
from sspyr_mm.datasets.toy_scenes.patterns import PATTERN_NAMES, PATTERNS

# Sub-pixel bits of cv2's fixed-point drawing.
_SHIFT = 4


@dataclass(frozen=True)
class Sprite:
    """A drawn object.

    Args:
        colour (ndarray): (3, h, w) float32, RGB; of no meaning where alpha is 0.
        alpha (ndarray): (h, w) float32 in [0, 1], its cover.
        left (int): column of the patch in the image, pixels; may be negative.
        top (int): row of the patch in the image, pixels; may be negative.
    """

    colour: FloatArray
    alpha: FloatArray
    left: int
    top: int


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
    """Returns (3, 2, 3): two RGB colours for each slot; the first slot differs from the ground it lies on."""
    base = random_colour(rng, 3)
    for _ in range(6):
        if abs(float(base[0].mean() - avoid.mean())) > 55:
            break
        base[0] = random_colour(rng, 1)[0]
    # The second colour of a slot is a shift of the first, often weak: patterns are hints, not labels.
    step = rng.uniform(25, 90, (3, 1)) * np.where(base.mean(axis=1, keepdims=True) > 128, -1.0, 1.0)
    other = base + step + rng.normal(0, 15, (3, 3))
    return np.stack([base, other], axis=1).astype(np.float32)


def render(
    rng: np.random.Generator,
    parts: list[Part],
    affine: FloatArray,
    centre: tuple[float, float],
    avoid: FloatArray,
) -> Sprite:
    """Draws parts back to front into a patch that holds them whole, also beyond the image."""
    outlines = [part.points @ affine.T for part in parts]
    everything = np.concatenate(outlines)
    low = np.floor(everything.min(axis=0) + centre).astype(int) - 1
    high = np.ceil(everything.max(axis=0) + centre).astype(int) + 2
    width, height = (int(n) for n in high - low)
    origin = np.asarray(centre, np.float32) - low
    inverse = np.linalg.inv(affine)
    inverse *= rng.uniform(0.75, 1.3)
    xs = np.arange(width, dtype=np.float32) - origin[0]
    ys = np.arange(height, dtype=np.float32)[:, None] - origin[1]
    u = inverse[0, 0] * xs + inverse[0, 1] * ys
    v = inverse[1, 0] * xs + inverse[1, 1] * ys
    colours = _colours(rng, avoid)
    swap = {
        p: str(rng.choice(PATTERN_NAMES))
        for p in sorted({q.pattern for q in parts})
        if rng.random() < 0.12
    }
    edge = rng.uniform(0.2, 1.0) if rng.random() < 0.7 else 0.0
    colour = np.zeros((3, height, width), np.float32)
    alpha = np.zeros((height, width), np.float32)
    for part, outline in zip(parts, outlines, strict=True):
        points = outline + origin
        x0, y0 = np.maximum(np.floor(points.min(axis=0)).astype(int) - 1, 0)
        x1, y1 = np.ceil(points.max(axis=0)).astype(int) + 2
        window = (slice(y0, y1), slice(x0, x1))
        mask = np.zeros(alpha[window].shape, np.uint8)
        fixed = np.round((points - (x0, y0)) * (1 << _SHIFT)).astype(np.int32)
        cv2.fillPoly(mask, [fixed], 255, cv2.LINE_AA, _SHIFT)
        cover = np.multiply(mask, 1.0 / 255.0, dtype=np.float32)
        total = cover + alpha[window] * (1.0 - cover)
        # Straight alpha: an edge pixel has the colour of what covers it, not a mix with the empty ground.
        weight = cover / np.maximum(total, 1e-3)
        base, other = colours[part.slot][:, :, None, None]
        pattern = swap.get(part.pattern, part.pattern)
        if pattern == "plain":
            fill: FloatArray = base
        else:
            fill = base + PATTERNS[pattern](u[window], v[window], rng) * (other - base)
        inside = colour[:, y0:y1, x0:x1]
        inside += weight * (fill - inside)
        if edge:
            line = np.zeros_like(mask)
            cv2.polylines(line, [fixed], True, 255, 1, cv2.LINE_AA, _SHIFT)
            inside *= 1.0 - np.multiply(line, edge * 0.6 / 255.0, dtype=np.float32)
        alpha[window] = total
    light = 1.0 + rng.uniform(-0.3, 0.3) * u + rng.uniform(-0.3, 0.3) * v
    return Sprite(colour * light, alpha, int(low[0]), int(low[1]))


def paste(
    canvas: FloatArray, owner: NDArray[np.int32], sprite: Sprite, number: int
) -> tuple[int, bool]:
    """Lays a sprite on the canvas; returns its whole area in pixels and whether the border cuts it."""
    solid = sprite.alpha >= 0.5
    height, width = owner.shape
    h, w = solid.shape
    y0, x0 = max(sprite.top, 0), max(sprite.left, 0)
    y1, x1 = min(sprite.top + h, height), min(sprite.left + w, width)
    area = int(solid.sum())
    if y1 <= y0 or x1 <= x0:
        return area, True
    inner = (slice(y0 - sprite.top, y1 - sprite.top), slice(x0 - sprite.left, x1 - sprite.left))
    target = canvas[:, y0:y1, x0:x1]
    target += sprite.alpha[inner] * (sprite.colour[:, inner[0], inner[1]] - target)
    owner[y0:y1, x0:x1][solid[inner]] = number
    return area, int(solid[inner].sum()) < area
