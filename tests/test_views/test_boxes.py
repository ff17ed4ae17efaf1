"""Boxes: overlap against a count of pixels, anchors against loops, similar boxes."""

import random

import numpy as np
import pytest

from sspyr_mm.views.boxes import anchors, draw_similar, iou, to_view


def test_iou_equals_a_count_of_pixels():
    rng = np.random.default_rng(0)
    low = rng.integers(0, 20, (12, 2))
    boxes = np.concatenate([low, low + rng.integers(1, 15, (12, 2))], axis=1)
    masks = np.zeros((12, 40, 40), bool)
    for mask, (left, top, right, bottom) in zip(masks, boxes, strict=True):
        mask[top:bottom, left:right] = True
    expected = np.array([[(a & b).sum() / (a | b).sum() for b in masks] for a in masks])
    np.testing.assert_allclose(iou(boxes.astype(float), boxes.astype(float)), expected, rtol=1e-12)


def test_anchors_equal_loops():
    found = {tuple(np.round(box, 3)) for box in anchors(256)}
    wanted = set()
    for x in range(0, 256, 16):
        for y in range(0, 256, 16):
            for size in (32, 64, 128, 256):
                for ratio in (0.5, 0.75, 1.0, 1.5, 2.0):
                    width, height = size / ratio**0.5, size * ratio**0.5
                    wanted.add(
                        tuple(np.round(np.float32([x - width / 2, y - height / 2, x + width / 2, y + height / 2]), 3))
                    )
    assert len(anchors(256)) == 5120 and found == wanted


def test_similar_boxes_overlap_by_more_than_a_half():
    rng, seen = random.Random(0), set()
    for _ in range(100):
        left, top = rng.randrange(0, 100), rng.randrange(0, 100)
        box = np.array([left, top, left + rng.randrange(69, 156), top + rng.randrange(69, 156)], float)
        drawn = draw_similar(rng, box, 256)
        assert iou(drawn[None], box[None])[0, 0] > 0.5
        seen.add(tuple(drawn))
    assert len(seen) > 80
    box = np.array([40, 40, 168, 168], float)
    assert len({tuple(draw_similar(rng, box, 256)) for _ in range(60)}) > 8  # of one box, too
    tiny = np.array([3, 3, 5, 5], float)
    best = draw_similar(rng, tiny, 256)
    assert iou(best[None], tiny[None])[0, 0] == iou(anchors(256), tiny[None]).max() < 0.5


def test_a_box_maps_to_the_pixels_of_a_crop():
    crop = (10, 20, 40, 80)  # top, left, height, width
    np.testing.assert_allclose(to_view(np.array([20, 10, 100, 50.0]), crop, 32), [0, 0, 32, 32])
    np.testing.assert_allclose(to_view(np.array([60, 30, 80, 40.0]), crop, 32), [16, 16, 24, 24])
    assert to_view(np.array([0, 0, 1, 1.0]), crop, 32)[0] == pytest.approx(-8)
