"""Position of crops, and resizing."""

import random

import cv2
import numpy as np
import pytest
import torch
from encoded_images import random_image
from PIL import Image
from scipy.stats import ks_2samp
from torchvision.transforms import RandomResizedCrop

from sspyr_mm.datasets.transforms.cropping import draw_crop, resize

ASPECT = (3 / 4, 4 / 3)


@pytest.mark.parametrize(
    ("size", "area", "aspect"),
    [
        ((480, 640), (0.14, 1.0), ASPECT),
        ((480, 640), (0.6, 1.0), ASPECT),
        ((640, 427), (0.6, 1.0), ASPECT),
        ((375, 500), (0.05, 0.14), ASPECT),
        ((60, 300), (0.6, 1.0), ASPECT),  # never fits: centred crop
        ((300, 60), (0.6, 1.0), ASPECT),
        ((300, 150), (0.14, 1.0), ASPECT),  # often does not fit
        ((300, 300), (0.1, 0.3), (1.5, 2.5)),  # only wide crops
    ],
)
def test_crops_have_the_distribution_of_torchvision(size, area, aspect):
    num = 6000
    torch.manual_seed(0)
    empty = torch.empty(3, *size)
    theirs = np.array([RandomResizedCrop.get_params(empty, area, aspect) for _ in range(num)])
    rng = random.Random(0)
    ours = np.array([draw_crop(rng, size, area, aspect) for _ in range(num)])
    assert (ours[:, 0] + ours[:, 2]).max() <= size[0] and ours[:, :2].min() >= 0
    assert (ours[:, 1] + ours[:, 3]).max() <= size[1] and ours[:, 2:].min() >= 1

    def statistics(crops):
        top, left, height, width = crops.T.astype(float)
        yield from (top, left, height, width, height * width, width / height)
        # The position relative to the free space, which does not follow from the marginals.
        yield top / np.maximum(1, size[0] - height) + left / np.maximum(1, size[1] - width)

    for mine, reference in zip(statistics(ours), statistics(theirs), strict=True):
        assert ks_2samp(mine, reference).pvalue > 1e-3


def test_every_offset_occurs():
    rng = random.Random(0)
    crops = [draw_crop(rng, (10, 10), (0.64, 0.64), (1, 1)) for _ in range(500)]
    assert {crop[2:] for crop in crops} == {(8, 8)}
    assert {crop[0] for crop in crops} == {crop[1] for crop in crops} == {0, 1, 2}


@pytest.mark.parametrize("size", [(1, 40), (40, 1), (1, 1), (2, 3)])
def test_tiny_images_are_cropped(size):
    rng = random.Random(0)
    for _ in range(200):
        top, left, height, width = draw_crop(rng, size, (0.05, 0.14), ASPECT)
        assert height >= 1 and width >= 1
        assert top >= 0 and top + height <= size[0] and left >= 0 and left + width <= size[1]


def reference_resize(image, size):
    """Resizes in float64; reductions by 1.5 and more are antialiased by a triangle as wide as a target pixel."""
    antialias = max(image.shape[:2]) >= 1.5 * size

    def weights(source, target):
        scale = source / target
        support = max(1.0, scale) if antialias else 1.0
        centres = (np.arange(target) + 0.5) * scale
        centres = centres if antialias else centres.clip(0.5, source - 0.5)
        distance = np.abs(np.arange(source) + 0.5 - centres[:, None]) / support
        triangle = np.maximum(0.0, 1 - distance)
        return triangle / triangle.sum(1, keepdims=True)

    along_y, along_x = weights(image.shape[0], size), weights(image.shape[1], size)
    return np.einsum("ia,jb,abc->ijc", along_y, along_x, image.astype(np.float64))


SHAPES = [(300, 200), (60, 61), (71, 71), (72, 50), (40, 300), (48, 48), (17, 30), (1, 30), (30, 1), (1, 1)]


@pytest.mark.parametrize("shape", SHAPES)
def test_resized_pixels_match_an_independent_filter(shape):
    crop = random_image(*shape)
    resized = resize(crop, 48)
    assert resized.shape == (48, 48, 3) and resized.dtype == np.uint8
    assert resized.flags.c_contiguous
    assert np.abs(resized - reference_resize(crop, 48)).max() < 1.6  # OpenCV's weights have 11 bits
    if max(shape) >= 1.5 * 48 or max(shape) <= 48:
        pillow = Image.fromarray(crop).resize((48, 48), Image.Resampling.BILINEAR)
        assert np.abs(resized.astype(int) - np.asarray(pillow)).max() <= 2


def psnr(image, reference):
    return 10 * np.log10(255**2 / np.mean((image.astype(float) - reference) ** 2))


@pytest.mark.parametrize("factor", [0.5, 0.8, 1.1, 1.3, 1.45, 1.5, 1.8, 2.5, 4, 8])
def test_regions_are_as_accurate_as_with_pillow(factor):
    """The image has the spectrum of photographs; the reference is a Lanczos filter."""
    rng = np.random.default_rng(0)
    image = np.full((480, 480, 3), 128.0, np.float32)
    for octave in range(2, 10):
        coarse = rng.normal(0, 250 / 2**octave, (2**octave, 2**octave, 3)).astype(np.float32)
        image += cv2.resize(coarse, (480, 480), interpolation=cv2.INTER_CUBIC)
    image = image.clip(0, 255).astype(np.uint8)
    side = round(480 / factor)
    as_pillow = Image.fromarray(image)
    best = np.asarray(as_pillow.resize((side, side), Image.Resampling.LANCZOS))
    bilinear = np.asarray(as_pillow.resize((side, side), Image.Resampling.BILINEAR))
    # Above 50 dB only rounding differs.
    assert psnr(resize(image, side), best) > min(50, psnr(bilinear, best)) - 0.5


def test_large_image_shrinks_without_aliasing():
    stripes = np.zeros((2000, 2000, 3), np.uint8)
    stripes[:, ::2] = 255  # finer than pixels of the result: grey
    assert np.abs(resize(stripes, 40).astype(int) - 128).max() <= 3


def test_view_of_a_larger_image_is_resized_like_a_copy():
    image = random_image(100, 120)
    window = image[10:73, 20:115]
    np.testing.assert_array_equal(resize(window, 32), resize(window.copy(), 32))
