"""Views with boxes, from a painted marker to the patches of both views."""

import random

import numpy as np
import pytest
import torch
from mmengine.dataset import default_collate

from sspyr_mm.datasets import PackPyramidInputs, PyramidViewTransform
from sspyr_mm.datasets.transforms.boxed_views import overlapping_views, paste_views
from sspyr_mm.models import PyramidAugment
from sspyr_mm.views import ViewsSpec
from sspyr_mm.views.boxes import iou

PLAIN = dict(jitter_prob=0.0, gray_prob=0.0, blur_prob=0.0, mean=(0, 0, 0), std=(255, 255, 255))


def group_of(**fields):
    return ViewsSpec.from_config(dict(main=dict(region=64, patch=64, **fields))).groups[0]


PASTE = dict(area=(0.2, 1.0), aspect=(0.5, 2.0), paste=(32, 63))


def coloured(value, height=90, width=120):
    return np.full((height, width, 3), value, np.uint8)


def test_foregrounds_fill_their_boxes_and_nothing_else():
    group, rng = group_of(**PASTE), random.Random(0)
    ratios, centres = [], []
    for _ in range(200):
        canvases, boxes = paste_views(rng, coloured(200), group)
        assert canvases.shape == (3, 64, 64, 3) and boxes.shape == (2, 2, 4) and boxes.dtype == np.float32
        assert (canvases[2] == 200).all()  # the whole image as a background
        for view in range(2):
            left, top, right, bottom = boxes[view, 0].astype(int)
            assert (canvases[view, top:bottom, left:right] == 200).all()
            assert canvases[view].sum() == 200 * 3 * (right - left) * (bottom - top)
            long, short = sorted([right - left, bottom - top], reverse=True)
            assert long <= 63 and short >= 16 and long / short <= 2.1
            ratios.append((right - left) / (bottom - top))
            centres.append((left + right) / 2)
        assert iou(boxes[0, :1], boxes[0, 1:])[0, 0] > 0.5  # the similar box
        assert np.array_equal(boxes[1, 0], boxes[1, 1])  # keys have the true one alone
    assert min(ratios) < 0.6 and max(ratios) > 1.7 and np.std(centres) > 4


def test_a_foreground_keeps_the_aspect_ratio_of_its_crop():
    """A marked square stays a square."""
    image = coloured(10, 128, 128)
    image[40:88, 40:88] = 250
    group, rng, sides = group_of(area=(1.0, 1.0), aspect=(1.0, 1.0), paste=(60, 60)), random.Random(1), []
    canvases, _ = paste_views(rng, image, group)
    for canvas in canvases[:2]:
        y, x = np.nonzero(canvas[..., 0] > 130)
        sides.append((np.ptp(y), np.ptp(x)))
    assert all(abs(h - w) <= 1 for h, w in sides) and sides[0][0] == pytest.approx(60 * 48 / 128, abs=2)


def batch_of(views, images, seed=3):
    transform, pack = PyramidViewTransform(), PackPyramidInputs()
    transform.set_views(views)
    transform.set_epoch(0, seed=seed)
    return default_collate([pack(transform(dict(img=image, sample_idx=i))) for i, image in enumerate(images)])


def test_composites_have_the_foreground_inside_and_another_image_outside():
    """To the pixel, in both views, after flips on the device."""
    views = ViewsSpec.from_config(dict(main=dict(region=64, patch=64, **PASTE)))
    batch = batch_of(views, [coloured(10 * (i + 1)) for i in range(6)])
    augment = PyramidAugment(views=views, **PLAIN)
    inputs = augment(batch)["inputs"]
    patches, boxes = (inputs["main"] * 255).round(), inputs["main_boxes"]
    assert patches.shape == (2, 6, 1, 3, 64, 64) and boxes.shape == (2, 6, 2, 4)
    for view in range(2):
        for image in range(6):
            left, top, right, bottom = boxes[view, image, 0].int().tolist()
            inside = torch.zeros(64, 64, dtype=torch.bool)
            inside[top:bottom, left:right] = True
            pixels = patches[view, image, 0, 0]
            assert (pixels[inside] == 10 * (image + 1)).all()
            assert (pixels[~inside] == 10 * ((image - view - 1) % 6 + 1)).all()
    plain = torch.from_numpy(np.stack([x.numpy() for x in batch["inputs"]["main_boxes"]])).transpose(0, 1)
    assert 0 < (plain != boxes).any(-1)[..., 0].float().mean() < 1  # some are flipped, some are not


def test_pasting_needs_three_images():
    views = ViewsSpec.from_config(dict(main=dict(region=64, patch=64, **PASTE)))
    with pytest.raises(ValueError, match=r"at least 3 images per process.*got 2: set train_dataloader.batch_size=3"):
        PyramidAugment(views=views)(batch_of(views, [coloured(10)] * 2))


@pytest.mark.parametrize("overlap", [(16, 32), (8, 8)])
def test_boxes_show_the_same_part_of_the_image_in_both_views(overlap):
    """An image whose colours tell the position: the corners of a box have the same colours in both views."""
    y, x = np.mgrid[:180, :240]
    image = np.stack([x, y, np.zeros_like(x)], axis=-1).astype(np.uint8)
    views = ViewsSpec.from_config(dict(main=dict(region=64, patch=64, overlap=overlap)))
    augment = PyramidAugment(views=views, **PLAIN)
    inputs = augment(batch_of(views, [image] * 40))["inputs"]
    patches, boxes = inputs["main"][:, :, 0] * 255, inputs["main_boxes"][:, :, 0]
    assert boxes.shape == (2, 40, 4)
    sides = boxes[0, :, 2:] - boxes[0, :, :2]
    assert (sides <= overlap[1] + 1e-3).all() and (sides >= min(overlap[0], 8) - 1e-3).float().mean() > 0.9
    assert (boxes > -1e-3).all() and (boxes < 64 + 1e-3).all()
    differences = []
    for index in range(40):
        centre = []
        for view in range(2):
            left, top, right, bottom = boxes[view, index]
            row, column = ((top + bottom) / 2 - 0.5).round().int(), ((left + right) / 2 - 0.5).round().int()
            centre.append(patches[view, index, :2, row.clamp(0, 63), column.clamp(0, 63)])
        differences.append((centre[0] - centre[1]).abs().max().item())
    assert np.median(differences) < 3 and max(differences) < 8


def test_views_of_a_small_image_overlap_too():
    rng, group = random.Random(0), group_of(overlap=(16, 32))
    for size in ((1, 1), (3, 50), (40, 2)):
        crops, boxes = overlapping_views(rng, coloured(7, *size), group)
        assert crops.shape == (2, 64, 64, 3) and np.isfinite(boxes).all()
        assert (boxes[..., 2:] >= boxes[..., :2]).all()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (dict(paste=(10, 65)), r"views.main.paste must be \(low, high\) with 0 < low <= high <= 64"),
        (dict(overlap=5), "views.main.overlap must be"),
        (dict(paste=(8, 16), num_views=3), "views.main.paste needs two views of whole regions"),
        (dict(paste=(8, 16), overlap=(8, 16)), "has both paste and overlap"),
    ],
)
def test_invalid_boxes_are_rejected(fields, message):
    with pytest.raises(ValueError, match=message):
        group_of(**fields)
