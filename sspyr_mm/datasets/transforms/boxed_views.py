"""Views with boxes: foregrounds pasted on other images, and crops that overlap."""

import random

import numpy as np

from sspyr_mm.datasets.transforms.cropping import draw_crop, resize
from sspyr_mm.views import GroupSpec
from sspyr_mm.views.boxes import draw_similar, to_view

_MIN_OVERLAP = 64
"""Least side of the overlap of two crops, in pixels of both views."""


def paste_views(rng: random.Random, image: np.ndarray, group: GroupSpec) -> tuple[np.ndarray, np.ndarray]:
    """Places a crop of an image on an empty canvas, for each view.

    Args:
        rng: Generator.
        image: (H, W, 3) uint8.
        group: Group with ``paste``, the minimum and maximum side of the foreground.

    Returns:
        (V + 1, R, R, 3) uint8: the canvases, and the whole image as a background for another one; boxes (V, 2, 4)
        float32: the foreground's, and a similar one for the first view.

    Source: InstanceLoc, section 3.1 and ``copy_and_paste.py``.
    Deviation: the last possible offset is drawn, too.
    """
    side, (low, high) = group.region, group.paste or (1, group.region)
    canvases = np.zeros((group.num_views + 1, side, side, 3), np.uint8)
    canvases[-1] = resize(image, side)
    boxes = np.zeros((group.num_views, 2, 4), np.float32)
    for view in range(group.num_views):
        top, left, height, width = draw_crop(rng, image.shape[:2], group.area, group.aspect)
        sides = sorted(low + int(rng.random() * (high - low + 1)) for _ in range(2))
        # The aspect ratio is kept: the longer side is at most the larger number, the shorter at most the smaller.
        scale = min(sides[1] / max(height, width), sides[0] / min(height, width))
        h, w = max(1, round(height * scale)), max(1, round(width * scale))
        y, x = int(rng.random() * (side - h + 1)), int(rng.random() * (side - w + 1))
        canvases[view, y : y + h, x : x + w] = resize(image[top : top + height, left : left + width], h, w)
        boxes[view] = x, y, x + w, y + h  # both rows
    boxes[0, 1] = draw_similar(rng, boxes[0, 0], side)
    return canvases, boxes


def overlapping_views(rng: random.Random, image: np.ndarray, group: GroupSpec) -> tuple[np.ndarray, np.ndarray]:
    """Crops two overlapping views, and draws a box in their overlap.

    Args:
        rng: Generator.
        image: (H, W, 3) uint8.
        group: Group with ``overlap``, the minimum and maximum side of the box in the first view.

    Returns:
        (2, R, R, 3) uint8; boxes (2, 1, 4) float32, of the same part of the image in both views.
    """
    side, (low, high) = group.region, group.overlap or (1, group.region)
    size = image.shape[:2]
    first = draw_crop(rng, size, group.area, group.aspect)
    second = first
    for _ in range(10):
        drawn = draw_crop(rng, size, group.area, group.aspect)
        if _least_side(_common(first, drawn), first, drawn, side) >= min(_MIN_OVERLAP, side / 2):
            second = drawn
            break
    common = _common(first, second)
    scale = np.array([first[3], first[2]]) / side  # pixels of the image per pixel of the first view
    extent = np.array([low + rng.random() * (high - low) for _ in range(2)]) * scale
    extent = np.minimum(extent, common[2:] - common[:2])
    corner = common[:2] + np.array([rng.random(), rng.random()]) * (common[2:] - common[:2] - extent)
    box = np.concatenate([corner, corner + extent])
    crops = [(c, resize(image[c[0] : c[0] + c[2], c[1] : c[1] + c[3]], side)) for c in (first, second)]
    boxes = np.stack([to_view(box, crop, side) for crop, _ in crops])[:, None]
    return np.stack([pixels for _, pixels in crops]), boxes.astype(np.float32)


def _common(first: tuple[int, ...], second: tuple[int, ...]) -> np.ndarray:
    """Returns the overlap of two crops (top, left, height, width) as a box; empty if they do not meet."""
    low = np.maximum(first[1::-1], second[1::-1])
    high = np.minimum(np.add(first[1::-1], first[:1:-1]), np.add(second[1::-1], second[:1:-1]))
    return np.concatenate([low, np.maximum(low, high)]).astype(float)


def _least_side(common: np.ndarray, first: tuple[int, ...], second: tuple[int, ...], side: int) -> float:
    """Returns the shortest side of the overlap, in pixels of the view in which it is shorter."""
    width, height = common[2] - common[0], common[3] - common[1]
    return min(min(width * side / crop[3], height * side / crop[2]) for crop in (first, second))
