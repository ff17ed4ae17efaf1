"""Drawing of one scene: background, objects back to front, clutter, light and noise."""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from sspyr_mm.datasets.toy_scenes.kinds import CLASSES, KINDS, OBJECT_CLASSES
from sspyr_mm.datasets.toy_scenes.sprites import Part, ellipse, limb, paste, random_affine, render
from sspyr_mm.datasets.toy_scenes.textures import FloatArray, draw_background, grid, smooth_noise

#: Smallest height and width, pixels: below it parts of objects can no longer be distinguished.
MIN_SIZE = 64
#: Label of pixels of objects that are not annotated because almost nothing of them is visible.
VOID = 255

# An object with a smaller visible share, or a smaller area relative to the squared shorter side, is not annotated.
_MIN_VISIBLE = 0.15
_MIN_AREA_SHARE = 0.0012
# Range of an object's extent, as a share of the image's shorter side; outlines fill about two thirds of it.
_SMALLEST, _LARGEST = 0.36, 0.6

# Lower edge in pixels, label, extent in pixels, and centre (x, y) in pixels of an object.
_Placed = tuple[float, int, float, tuple[float, float]]


@dataclass(frozen=True)
class SceneObject:
    """Annotated object.

    Args:
        label: Index into ``CLASSES``.
        mask: (H, W) bool, visible pixels of the object; never empty.
        visible: Visible share of the object's area, in (0, 1].
        truncated: Whether the image border cuts the object.
    """

    label: int
    mask: NDArray[np.bool_]
    visible: float
    truncated: bool

    @property
    def name(self) -> str:
        """Class name of the object."""
        return CLASSES[self.label]


@dataclass(frozen=True)
class Scene:
    """Drawn scene.

    Args:
        image: (H, W, 3) uint8, RGB.
        kind: Index into ``KINDS``.
        objects: Annotated objects, back to front.
        class_mask: (H, W) uint8: 0 background, 1 + label, ``VOID`` for objects that are not annotated.
    """

    image: NDArray[np.uint8]
    kind: int
    objects: list[SceneObject]
    class_mask: NDArray[np.uint8]


def _clutter(rng: np.random.Generator) -> Part:
    choice = rng.integers(4)
    if choice == 0:
        return Part(ellipse(0, 0, 1, rng.uniform(0.4, 1)), 0, "stripes")
    if choice == 1:
        return Part(limb(-1, 0, 1, rng.uniform(-0.3, 0.3), 0.5, rng.uniform(0.1, 0.6)), 0, "checks")
    points = rng.uniform(-1, 1, (int(rng.integers(3, 6)), 2))
    around = np.argsort(np.arctan2(points[:, 1], points[:, 0]))
    return Part(points[around].astype(np.float32), 0, "dots")


def _draw_labels(rng: np.random.Generator, kind: int) -> list[int]:
    weights = KINDS[kind].weights()
    labels: list[int] = []
    for _ in range(int(rng.integers(2, 6))):
        # Objects come in groups: a class that is already present is sometimes repeated.
        again = bool(labels) and rng.random() < 0.2
        labels.append(int(rng.choice(labels)) if again else int(rng.choice(len(CLASSES), p=weights)))
    return labels


def _place(
    rng: np.random.Generator, others: list[_Placed], extent: float, size: tuple[int, int]
) -> tuple[float, float]:
    """Returns the centre (x, y), in pixels, that covers the other objects least, among a few random ones."""
    best, best_cost = (0.0, 0.0), np.inf
    for _ in range(4):
        x, y = rng.uniform(0.08, 0.92) * size[1], rng.uniform(0.1, 0.9) * size[0]
        cost = sum(max(0.0, 0.45 * (extent + e) - float(np.hypot(x - a, y - b))) for _, _, e, (a, b) in others)
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
    image *= light
    image *= cast[:, None, None]
    if rng.random() < 0.3:
        sigma = rng.uniform(0.4, 0.9) * min(height, width) / 128
        image = np.stack([cv2.GaussianBlur(channel, (0, 0), sigma) for channel in image])
    image += rng.uniform(1.0, 5.0) * rng.standard_normal(image.shape, dtype=np.float32)
    pixels = np.clip(np.round(image), 0, 255).astype(np.uint8)
    return np.ascontiguousarray(pixels.transpose(1, 2, 0))


def _add_clutter(
    rng: np.random.Generator, canvas: FloatArray, owner: NDArray[np.int32], ground: FloatArray, counts: tuple[int, int]
) -> None:
    """Pastes small shapes that are not objects; ``counts`` is the half-open range of their number."""
    height, width = owner.shape
    for _ in range(int(rng.integers(*counts))):
        extent = rng.uniform(0.03, 0.09) * min(height, width)
        centre = (rng.uniform(0, width), rng.uniform(0, height))
        affine = random_affine(rng, math.pi, extent)
        paste(canvas, owner, render(rng, [_clutter(rng)], affine, centre, ground), 0)


def _place_objects(rng: np.random.Generator, kind: int, size: tuple[int, int]) -> list[_Placed]:
    placed: list[_Placed] = []
    for label in _draw_labels(rng, kind):
        share = math.exp(rng.uniform(math.log(_SMALLEST), math.log(_LARGEST)))
        extent = share * min(size) * OBJECT_CLASSES[label].stretch
        x, y = _place(rng, placed, extent, size)
        placed.append((y + extent / 2, label, extent, (x, y)))
    # Objects lower in the image are nearer, as in a photograph.
    return sorted(placed)


def draw_scene(rng: np.random.Generator, size: tuple[int, int]) -> Scene:
    """Draws one scene.

    Args:
        rng: Random generator; the same state gives the same scene.
        size: Height and width in pixels, each at least ``MIN_SIZE``.

    Returns:
        Scene with its labels.

    Raises:
        ValueError: If a side is shorter than ``MIN_SIZE``.
    """
    height, width = size
    if min(height, width) < MIN_SIZE:
        raise ValueError(
            f"size must be at least {MIN_SIZE} pixels in height and width, got {height}x{width}: "
            "give a larger one, such as 128"
        )
    kind = int(rng.integers(len(KINDS)))
    canvas = draw_background(rng, height, width, KINDS[kind].family)
    owner = np.zeros((height, width), np.int32)
    ground = canvas.mean(axis=(1, 2))
    _add_clutter(rng, canvas, owner, ground, (2, 7))
    drawn = []
    for number, (_, label, extent, centre) in enumerate(_place_objects(rng, kind, size), start=1):
        item = OBJECT_CLASSES[label]
        sprite = render(rng, list(item.build(rng)), random_affine(rng, item.turn, extent), centre, ground)
        drawn.append((number, label, *paste(canvas, owner, sprite, number)))
    _add_clutter(rng, canvas, owner, ground, (0, 4))

    class_mask = np.zeros((height, width), np.uint8)
    objects = []
    for number, label, area, cut in drawn:
        mask = owner == number
        count = int(mask.sum())
        if count < max(_MIN_VISIBLE * area, _MIN_AREA_SHARE * min(size) ** 2):
            class_mask[mask] = VOID
            continue
        class_mask[mask] = label + 1
        objects.append(SceneObject(label, mask, min(count / area, 1.0), cut))
    return Scene(_develop(rng, canvas), kind, objects, class_mask)
