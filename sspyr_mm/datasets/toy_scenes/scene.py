"""One scene: a background of some kind, objects in painters' order, clutter, light and noise."""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from .backgrounds import draw_background, grid, random_colour, smooth_noise
from .geometry import FloatArray, Part, ellipse, limb, polygon
from .kinds import CLASSES, KINDS, OBJECT_CLASSES
from .patterns import PATTERN_NAMES, PATTERNS

#: Smallest height and width, pixels: below it parts of objects are no longer told apart.
MIN_SIZE = 64
#: Label of pixels of objects that are left out because almost nothing of them is visible.
VOID = 255

# An object with less than this share visible, or fewer pixels, is not annotated.
_MIN_VISIBLE = 0.15
_MIN_AREA_SHARE = 0.0012
# Sub-pixel bits of cv2's fixed-point drawing.
_SHIFT = 4


@dataclass(frozen=True)
class SceneObject:
    """An annotated object.

    Args:
        label (int): index into ``CLASSES``.
        mask (ndarray): (H, W) bool, its visible pixels; never empty.
        visible (float): visible share of its whole area, in (0, 1].
        truncated (bool): whether the image border cuts it.
    """

    label: int
    mask: NDArray[np.bool_]
    visible: float
    truncated: bool

    @property
    def name(self) -> str:
        """Name of its class."""
        return CLASSES[self.label]


@dataclass(frozen=True)
class Scene:
    """A drawn scene.

    Args:
        image (ndarray): (H, W, 3) uint8, RGB.
        kind (int): index into ``KINDS``.
        objects (list[SceneObject]): annotated objects, back to front.
        class_mask (ndarray): (H, W) uint8: 0 background, 1 + label, ``VOID`` for objects that are left out.
    """

    image: NDArray[np.uint8]
    kind: int
    objects: list[SceneObject]
    class_mask: NDArray[np.uint8]


@dataclass(frozen=True)
class _Sprite:
    colour: FloatArray  # (3, h, w)
    alpha: FloatArray  # (h, w)
    left: int
    top: int


def _affine(rng: np.random.Generator, turn: float, extent: float) -> FloatArray:
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


def _render(
    rng: np.random.Generator, parts: list[Part], affine: FloatArray, centre: tuple[float, float], avoid: FloatArray
) -> _Sprite:
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
    swap = {p: str(rng.choice(PATTERN_NAMES)) for p in sorted({q.pattern for q in parts}) if rng.random() < 0.2}
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
    return _Sprite(colour * light, alpha, int(low[0]), int(low[1]))


def _paste(canvas: FloatArray, owner: NDArray[np.int32], sprite: _Sprite, number: int) -> tuple[int, bool]:
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


def _clutter(rng: np.random.Generator) -> list[Part]:
    choice = rng.integers(4)
    if choice == 0:
        return [Part(ellipse(0, 0, 1, rng.uniform(0.4, 1)), 0, "stripes")]
    if choice == 1:
        return [Part(limb(-1, 0, 1, rng.uniform(-0.3, 0.3), 0.5, rng.uniform(0.1, 0.6)), 0, "checks")]
    points = rng.uniform(-1, 1, (int(rng.integers(3, 6)), 2))
    points = points[np.argsort(np.arctan2(points[:, 1], points[:, 0]))]
    return [Part(polygon(*(tuple(point) for point in points.tolist())), 0, "dots")]


def _pick_labels(rng: np.random.Generator, kind: int) -> list[int]:
    weights = KINDS[kind].weights()
    labels: list[int] = []
    for _ in range(int(rng.integers(2, 6))):
        # Things come in groups: sometimes another one of what is there already.
        again = bool(labels) and rng.random() < 0.2
        labels.append(int(rng.choice(labels)) if again else int(rng.choice(len(CLASSES), p=weights)))
    return labels


def _place(rng: np.random.Generator, taken: list[tuple[float, float, float]], extent: float,
           size: tuple[int, int]) -> tuple[float, float]:
    """Returns a centre (x, y) in pixels: of a few random places the one that covers others least."""
    best, best_cost = (0.0, 0.0), np.inf
    for _ in range(4):
        x, y = rng.uniform(0.08, 0.92) * size[1], rng.uniform(0.1, 0.9) * size[0]
        cost = sum(max(0.0, 0.45 * (extent + e) - float(np.hypot(x - a, y - b))) for a, b, e in taken)
        if cost < best_cost:
            best, best_cost = (x, y), cost
    return best


def _develop(rng: np.random.Generator, canvas: FloatArray) -> NDArray[np.uint8]:
    """Applies light, contrast, colour cast, blur and sensor noise."""
    height, width = canvas.shape[1:]
    x, y = grid(height, width)
    angle = rng.uniform(0, 2 * np.pi)
    light = rng.uniform(0.75, 1.2) * (1.0 + rng.uniform(0, 0.4) * (math.cos(angle) * x + math.sin(angle) * y))
    if rng.random() < 0.5:
        light = light * (1.0 + 0.15 * smooth_noise(rng, height, width, 2))
    contrast = rng.uniform(0.75, 1.2)
    cast = rng.uniform(0.85, 1.15, 3).astype(np.float32)
    image = (np.clip(canvas, 0, 255) - 128.0) * contrast + 128.0
    image *= light.astype(np.float32)
    image *= cast[:, None, None]
    if rng.random() < 0.3:
        sigma = rng.uniform(0.4, 0.9) * min(height, width) / 128
        image = np.stack([cv2.GaussianBlur(channel, (0, 0), sigma) for channel in image])
    image += rng.uniform(1.0, 5.0) * rng.standard_normal(image.shape, dtype=np.float32)
    pixels = np.clip(np.round(image), 0, 255).astype(np.uint8)
    return np.ascontiguousarray(pixels.transpose(1, 2, 0))


def draw_scene(rng: np.random.Generator, size: tuple[int, int]) -> Scene:
    """Draws one scene.

    Args:
        rng (Generator): the only source of randomness: the same state gives the same scene.
        size (tuple[int, int]): height and width, pixels, each at least ``MIN_SIZE``.

    Returns:
        Scene: the image with what is known about it.

    Raises:
        ValueError: if a side is shorter than ``MIN_SIZE``.
    """
    height, width = size
    if min(height, width) < MIN_SIZE:
        raise ValueError(f"size must be at least {MIN_SIZE} pixels in height and width, got {height}x{width}: "
                         "give a larger one, such as 128")
    side = min(height, width)
    kind = int(rng.integers(len(KINDS)))
    canvas = draw_background(rng, height, width, KINDS[kind].family)
    owner = np.zeros((height, width), np.int32)
    ground = canvas.mean(axis=(1, 2))

    def add_clutter(low: int, high: int) -> None:
        for _ in range(int(rng.integers(low, high))):
            extent = rng.uniform(0.03, 0.09) * side
            centre = (rng.uniform(0, width), rng.uniform(0, height))
            _paste(canvas, owner, _render(rng, _clutter(rng), _affine(rng, 3.14, extent), centre, ground), 0)

    add_clutter(2, 7)
    placed: list[tuple[float, float, float]] = []
    todo: list[tuple[float, int, float, tuple[float, float]]] = []
    for label in _pick_labels(rng, kind):
        extent = float(np.exp(rng.uniform(np.log(0.32), np.log(0.56)))) * side * OBJECT_CLASSES[label].stretch
        centre = _place(rng, placed, extent, size)
        placed.append((*centre, extent))
        todo.append((centre[1] + extent / 2, label, extent, centre))
    # What stands lower in the image is nearer, as in a photograph.
    todo.sort()
    areas, cuts = [], []
    for number, (_, label, extent, centre) in enumerate(todo, start=1):
        item = OBJECT_CLASSES[label]
        sprite = _render(rng, item.build(rng), _affine(rng, item.turn, extent), centre, ground)
        area, cut = _paste(canvas, owner, sprite, number)
        areas.append(area)
        cuts.append(cut)
    add_clutter(0, 4)

    class_mask = np.zeros((height, width), np.uint8)
    objects = []
    for index, (_, label, _, _) in enumerate(todo):
        mask = owner == index + 1
        count = int(mask.sum())
        if count < max(_MIN_VISIBLE * areas[index], _MIN_AREA_SHARE * side * side):
            class_mask[mask] = VOID
            continue
        class_mask[mask] = label + 1
        objects.append(SceneObject(label, mask, min(count / areas[index], 1.0), cuts[index]))
    return Scene(_develop(rng, canvas), kind, objects, class_mask)
