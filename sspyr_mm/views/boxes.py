"""Boxes as arrays (..., 4) of left, top, right and bottom, in pixels."""

import random
from functools import cache

import numpy as np

_SIZES = (1 / 8, 1 / 4, 1 / 2, 1)
"""Shares of the side of the image."""
_RATIOS = (0.5, 0.75, 1.0, 1.5, 2.0)
_STRIDE = 1 / 16


def iou(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Computes intersection over union.

    Args:
        boxes: (N, 4).
        others: (M, 4).

    Returns:
        (N, M), in [0, 1].
    """
    low = np.maximum(boxes[:, None, :2], others[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], others[None, :, 2:])
    common = np.clip(high - low, 0, None).prod(-1)
    areas = [(b[:, 2:] - b[:, :2]).prod(-1) for b in (boxes, others)]
    return common / (areas[0][:, None] + areas[1][None] - common)


@cache
def anchors(side: int) -> np.ndarray:
    """Lists anchors of four sizes and five ratios on a grid of 16 x 16 points of a square image.

    Args:
        side: Side of the image in pixels.

    Returns:
        (N, 4) float32; some reach beyond the image.

    Source: InstanceLoc, ``anchor_aug.py``, whose image has 256 px.
    """
    centres, sizes = side * np.arange(0, 1, _STRIDE), side * np.array(_SIZES)
    x, y, size, ratio = (a.reshape(-1) for a in np.meshgrid(centres, centres, sizes, _RATIOS, indexing="ij"))
    width, height = size / np.sqrt(ratio), size * np.sqrt(ratio)
    return np.stack([x - width / 2, y - height / 2, x + width / 2, y + height / 2], axis=1).astype(np.float32)


def draw_similar(rng: random.Random, box: np.ndarray, side: int) -> np.ndarray:
    """Draws an anchor whose IoU with a box exceeds 0.5, or returns the most similar anchor.

    Near-duplicates (IoU above 0.7) of anchors in random order are left out first.

    Args:
        rng: Generator.
        box: (4,).
        side: Side of the image in pixels.

    Returns:
        (4,) float32.
    """
    overlap = iou(anchors(side), box[None])[:, 0]
    found = np.flatnonzero(overlap > 0.5)
    if not found.size:
        return anchors(side)[overlap.argmax()]
    order = sorted(found.tolist(), key=lambda _: rng.random())
    candidates = anchors(side)[order]
    near = iou(candidates, candidates) > 0.7
    free, kept = np.ones(len(order), bool), []
    for i in range(len(order)):
        if free[i]:
            kept.append(i)
            free &= ~near[i]
    return candidates[kept[int(rng.random() * len(kept))]]


def to_view(box: np.ndarray, crop: tuple[int, int, int, int], side: int) -> np.ndarray:
    """Maps a box in an image to a crop of it.

    Args:
        box: (4,) in the image.
        crop: Top, left, height and width of the crop.
        side: Side of the resized crop in pixels.

    Returns:
        (4,) in the crop.
    """
    top, left, height, width = crop
    scale = np.array([side / width, side / height] * 2)
    return (box - np.array([left, top] * 2)) * scale
