"""Kinds of scenes, and drawing of one: background, objects back to front, clutter, light and noise."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from sspyr_mm.datasets.toy_scenes.objects import CLASSES, OBJECT_CLASSES
from sspyr_mm.datasets.toy_scenes.sprites import Canvas, Part, Point, ellipse, limb, random_affine
from sspyr_mm.datasets.toy_scenes.textures import FloatArray, draw_background, grid, smooth_noise

# Smallest height and width, pixels: below it parts of objects can no longer be distinguished.
_MIN_SIDE = 64
_MAX_SIDE = 4096
#: Label of pixels of objects that are not annotated because almost nothing of them is visible.
VOID = 255

# An object with a smaller visible share, or a smaller area relative to the squared shorter side, is not annotated.
_MIN_VISIBLE = 0.15
_MIN_AREA_SHARE = 0.0012
# Range of an object's extent, as a share of the image's shorter side; outlines fill about two thirds of it.
_SMALLEST, _LARGEST = 0.36, 0.6

# Lower edge in pixels, label, extent in pixels, and centre (x, y) in pixels of an object.
_Placed = tuple[float, int, float, Point]


# Factor by which a common class is more likely than any other class.
_COMMON_WEIGHT = 12.0


@dataclass(frozen=True)
class Kind:
    """Kind of scene."""

    name: str
    family: str  # of background textures, a key of ``textures.FAMILIES``
    common: tuple[str, ...]  # classes that are frequent in this kind

    def weights(self) -> np.ndarray:
        """Returns the (num_classes,) float64 probabilities of the classes in this kind; all are positive."""
        raw = np.array([_COMMON_WEIGHT if name in self.common else 1.0 for name in CLASSES])
        return raw / raw.sum()


# Every class is common in exactly two kinds, and no two kinds share more than two classes: all class priors are
# equal, and no class identifies its kind.
KINDS: tuple[Kind, ...] = (
    Kind("meadow", "blobs", ("tree", "flower", "bird", "beetle")),
    Kind("street", "bricks", ("house", "cart", "figure", "tree")),
    Kind("shore", "waves", ("boat", "fish", "bird", "house")),
    Kind("hall", "checks", ("chair", "lamp", "figure", "mug")),
    Kind("pond", "cells", ("fish", "beetle", "boat", "lamp")),
    Kind("shed", "fibres", ("cart", "mug", "chair", "flower")),
)


@dataclass(frozen=True)
class SceneObject:
    """Annotated object."""

    label: int  # index into ``CLASSES``
    mask: NDArray[np.bool_]  # (H, W), visible pixels of the object; never empty
    visible: float  # visible share of the object's area, in (0, 1]
    truncated: bool  # whether the image border cuts the object

    @property
    def name(self) -> str:
        """Class name of the object."""
        return CLASSES[self.label]


@dataclass(frozen=True)
class Scene:
    """Drawn scene."""

    image: NDArray[np.uint8]  # (H, W, 3), RGB
    kind: int  # index into ``KINDS``
    objects: list[SceneObject]  # annotated objects, back to front
    class_mask: NDArray[np.uint8]  # (H, W): 0 background, 1 + label, ``VOID`` for objects that are not annotated


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


def _place(rng: np.random.Generator, others: list[_Placed], extent: float, size: tuple[int, int]) -> Point:
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


def _add_clutter(rng: np.random.Generator, canvas: Canvas, counts: tuple[int, int]) -> None:
    """Draws small shapes that are not objects; ``counts`` is the half-open range of their number."""
    height, width = canvas.owner.shape
    for _ in range(int(rng.integers(*counts))):
        extent = rng.uniform(0.03, 0.09) * min(height, width)
        centre = (rng.uniform(0, width), rng.uniform(0, height))
        affine = random_affine(rng, math.pi, extent)
        canvas.draw(rng, [_clutter(rng)], affine, centre, 0)


def _place_objects(rng: np.random.Generator, kind: int, size: tuple[int, int]) -> list[_Placed]:
    placed: list[_Placed] = []
    for label in _draw_labels(rng, kind):
        share = math.exp(rng.uniform(math.log(_SMALLEST), math.log(_LARGEST)))
        extent = share * min(size) * OBJECT_CLASSES[label].stretch
        x, y = _place(rng, placed, extent, size)
        placed.append((y + extent / 2, label, extent, (x, y)))
    # Objects lower in the image are nearer, as in a photograph.
    return sorted(placed)


def parse_size(size: int | str | Sequence[int]) -> tuple[int, int]:
    """Returns height and width in pixels from a side, "HxW" or (height, width); raises ValueError for any other."""
    text = "x".join(map(str, size)) if isinstance(size, tuple | list) else str(size).strip()
    match = re.fullmatch(r"(\d+)(?:[xX](\d+))?", text)
    if match is None:
        raise ValueError(f"size must be a side in pixels or HxW, such as 128 or 96x128, got {size!r}")
    height, width = int(match[1]), int(match[2] or match[1])
    if not _MIN_SIDE <= min(height, width) <= max(height, width) <= _MAX_SIDE:
        raise ValueError(
            f"size must be {_MIN_SIDE} to {_MAX_SIDE} pixels in height and width, got {height}x{width}: "
            f"give a {'larger' if min(height, width) < _MIN_SIDE else 'smaller'} one, such as 128"
        )
    return height, width


def draw_scene(rng: np.random.Generator, size: int | str | Sequence[int]) -> Scene:
    """Draws one scene of a size of :func:`parse_size`; the same state of ``rng`` gives the same scene."""
    size = height, width = parse_size(size)
    kind = int(rng.integers(len(KINDS)))
    canvas = Canvas(draw_background(rng, height, width, KINDS[kind].family))
    _add_clutter(rng, canvas, (2, 7))
    drawn = []
    for number, (_, label, extent, centre) in enumerate(_place_objects(rng, kind, size), start=1):
        item = OBJECT_CLASSES[label]
        parts, affine = list(item.build(rng)), random_affine(rng, item.turn, extent)
        drawn.append((number, label, *canvas.draw(rng, parts, affine, centre, number)))
    _add_clutter(rng, canvas, (0, 4))

    class_mask = np.zeros((height, width), np.uint8)
    objects = []
    for number, label, area, cut in drawn:
        mask = canvas.owner == number
        count = int(mask.sum())
        if count < max(_MIN_VISIBLE * area, _MIN_AREA_SHARE * min(size) ** 2):
            class_mask[mask] = VOID
            continue
        class_mask[mask] = label + 1
        objects.append(SceneObject(label, mask, min(count / area, 1.0), cut))
    return Scene(_develop(rng, canvas.image), kind, objects, class_mask)
