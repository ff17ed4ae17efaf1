"""Regions: position, content and dependence on random numbers."""

import math
import random
import re

import cv2
import numpy as np
import pytest
import torch
from mmengine.dataset import default_collate
from PIL import Image
from scipy.stats import ks_2samp
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import RandomResizedCrop

from sspyr_mm.datasets import PackPyramidInputs, PyramidViewTransform
from sspyr_mm.datasets.transforms.pyramid_view import draw_crop, resize
from sspyr_mm.models.data_preprocessors.augment_params import draw_params
from sspyr_mm.models.data_preprocessors.pyramid_augment import PyramidAugment
from sspyr_mm.pyramid import PyramidSpec

PYRAMID = dict(
    s0=dict(region=32, patch=32, num_prototypes=3, alpha=1.0, area=(0.14, 1.0)),
    s1=dict(region=45, grid=2, patch=16, num_prototypes=3, alpha=0.25, beta=0.25),
    s2=dict(region=50, grid=3, patch=12, num_prototypes=3, alpha=0.25, beta=0.25),
)
ASPECT = (3 / 4, 4 / 3)


def ramps(height=256, width=256):
    """An image that says where it was cut: red is the column, green the row."""
    image = np.zeros((height, width, 3), np.uint8)
    image[..., 0] = np.arange(width) * 255 // max(1, width - 1)
    image[..., 1] = (np.arange(height) * 255 // max(1, height - 1))[:, None]
    return image


def noise(height=64, width=80, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def view(image, pyramid=PYRAMID, *, seed=0, epoch=0, sample_idx=0):
    transform = PyramidViewTransform(pyramid)
    transform.set_epoch(epoch, seed=seed)
    return transform(dict(img=image, sample_idx=sample_idx))


# ---- where crops lie


@pytest.mark.parametrize(
    ("size", "area", "aspect"),
    [
        ((480, 640), (0.14, 1.0), ASPECT),
        ((480, 640), (0.6, 1.0), ASPECT),
        ((640, 427), (0.6, 1.0), ASPECT),
        ((375, 500), (0.05, 0.14), ASPECT),
        ((60, 300), (0.6, 1.0), ASPECT),  # never fits: the centred crop
        ((300, 60), (0.6, 1.0), ASPECT),
        ((300, 150), (0.14, 1.0), ASPECT),  # often does not
        ((300, 300), (0.1, 0.3), (1.5, 2.5)),  # wide ones only
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
        # Where in the room there is, which does not follow from the marginals.
        yield top / np.maximum(1, size[0] - height) + left / np.maximum(1, size[1] - width)

    for mine, reference in zip(statistics(ours), statistics(theirs), strict=True):
        assert ks_2samp(mine, reference).pvalue > 1e-3


def test_every_offset_occurs_up_to_the_last():
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


def test_regions_cover_the_area_of_their_scale():
    """End to end, read from the pixels: area and aspect ratio within the scale's range, up to rounding."""
    spec = PyramidSpec.from_config(PYRAMID)
    for sample_idx in range(40):
        regions = view(ramps(), sample_idx=sample_idx)["regions"]
        for group in spec.groups:
            for region in regions[group.name].astype(float):
                # A linear fit over the inner pixels; the border's are half a source pixel off.
                inner = region[4:-4, 4:-4]
                width = np.ptp(inner[..., 0]) / (inner.shape[1] - 1) * group.region / 255
                height = np.ptp(inner[..., 1]) / (inner.shape[0] - 1) * group.region / 255
                low, high = group.area
                assert low - 0.05 < width * height < high + 0.05
                assert 3 / 4 - 0.06 < width / height < 4 / 3 + 0.06


# ---- what regions show


def reference_resize(image, size):
    """Bilinear, float64; antialiased by a triangle as wide as a target pixel where both sides call for it."""
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
    crop = noise(*shape)
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
    """On an image with the spectrum of photographs, against a far better filter."""
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
    # Beyond 50 dB it is rounding that differs.
    assert psnr(resize(image, side), best) > min(50, psnr(bilinear, best)) - 0.5


def test_a_photograph_of_many_pixels_shrinks_without_aliasing():
    stripes = np.zeros((2000, 2000, 3), np.uint8)
    stripes[:, ::2] = 255  # finer than the result can show: grey
    assert np.abs(resize(stripes, 40).astype(int) - 128).max() <= 3


def test_a_window_of_a_larger_image_is_resized_as_its_copy():
    image = noise(100, 120)
    window = image[10:73, 20:115]
    np.testing.assert_array_equal(resize(window, 32), resize(window.copy(), 32))


@pytest.mark.parametrize("shape", [(20, 24), (1, 50), (50, 1), (1, 1), (31, 500)])
def test_small_and_narrow_images_are_enlarged(shape):
    image = noise(*shape) // 4 + np.array([0, 64, 128], np.uint8)  # a range for each channel
    results = view(image)
    spec = PyramidSpec.from_config(PYRAMID)
    for group in spec.groups:
        region = results["regions"][group.name]
        assert region.shape == (group.num_regions, group.region, group.region, 3)
        assert (region >= image.min((0, 1))).all() and (region <= image.max((0, 1))).all()


@pytest.mark.parametrize("channels", [None, 1, 3, 4])
def test_greyscale_and_alpha_arrays_become_rgb(channels):
    base = noise()
    image = {None: base[..., 0], 1: base[..., :1], 3: base, 4: np.dstack([base, base[..., 0]])}[channels]
    expected = base if channels in (3, 4) else np.repeat(base[..., :1], 3, axis=2)
    for name, region in view(image)["regions"].items():
        np.testing.assert_array_equal(region, view(expected)["regions"][name])


# ---- shared or not


def test_shared_region_is_cropped_once_and_others_are_independent():
    regions = view(ramps())["regions"]
    assert {name: len(r) for name, r in regions.items()} == {"s0": 2, "s1": 1, "s2": 1}
    assert np.abs(regions["s0"][0].astype(int) - regions["s0"][1]).max() > 10
    swapped = {name: {**cfg, "shared_region": name == "s0"} for name, cfg in PYRAMID.items()}
    regions = view(ramps(), swapped)["regions"]
    assert {name: len(r) for name, r in regions.items()} == {"s0": 1, "s1": 2, "s2": 2}
    assert np.abs(regions["s1"][0].astype(int) - regions["s1"][1]).max() > 2


def test_multi_crops_are_regions_of_their_own():
    config = dict(PYRAMID, s0={**PYRAMID["s0"], "multi_crop": dict(num_views=6, patch=12)})
    regions = view(ramps(), config)["regions"]
    assert regions["s0_crops"].shape == (6, 12, 12, 3)
    corners = {tuple(crop[0, 0, :2]) for crop in regions["s0_crops"]}
    assert len(corners) == 6
    spans = np.ptp(regions["s0_crops"][..., :2].reshape(6, -1, 2).astype(float), axis=1) / 255
    assert (spans.prod(1) < 0.16).all() and (spans.prod(1) > 0.03).all()


def test_regions_of_views_and_scales_do_not_depend_on_each_other():
    left = {"s0": [], "s0'": [], "s1": [], "s2": []}
    for sample_idx in range(400):
        regions = view(ramps(64, 64), sample_idx=sample_idx)["regions"]
        for name, region in zip(left, [*regions["s0"], *regions["s1"], *regions["s2"]], strict=True):
            left[name].append(float(region[..., 0].mean()))
    correlation = np.corrcoef(list(left.values())) - np.eye(4)
    assert np.abs(correlation).max() < 4 / math.sqrt(400)


def test_patch_m_of_both_views_shows_the_same_cell():
    """Through worker and device, with flips: every pixel of patch m of V and of V' lies in cell m of one region."""
    augment = PyramidAugment(PYRAMID, mean=(0, 0, 0), std=(255, 255, 255), jitter_prob=0,
                             gray_prob=0, blur_prob=0)  # fmt: skip
    spec = augment.spec
    transform, pack = PyramidViewTransform(PYRAMID), PackPyramidInputs()
    transform.set_epoch(0, seed=3)
    views = [transform(dict(img=ramps(), sample_idx=i)) for i in range(6)]
    batch = default_collate([pack(dict(v)) for v in views])
    patches = augment(batch)["inputs"]
    params = draw_params([v["view_seed"] for v in views], spec.groups, augment.config)
    seen_flips = set()
    for scale, group in zip(spec.scales[1:], spec.groups[1:], strict=True):
        flips = params[scale.name].flip.reshape(2, 6, scale.num_patches)
        for image, results in enumerate(views):
            region = results["regions"][scale.name][0].astype(float)
            for m in range(scale.num_patches):
                row, column = divmod(m, scale.grid)
                cell = region[row * group.cell :, column * group.cell :][: group.cell, : group.cell]
                low, high = cell.min((0, 1)), cell.max((0, 1))
                offsets = set()
                for v in range(2):
                    patch = patches[scale.name][v, image, m].numpy() * 255
                    red, green = patch[0], patch[1]
                    # Ramps: the ranges of different cells do not overlap by more than a pixel's step.
                    assert low[0] - 0.01 <= red.min() and red.max() <= high[0] + 0.01
                    assert low[1] - 0.01 <= green.min() and green.max() <= high[1] + 0.01
                    mirrored = red[0, 0] > red[0, -1]
                    assert mirrored == flips[v, image, m]
                    seen_flips.add((v, bool(mirrored)))
                    assert green[0, 0] < green[-1, 0]  # never upside down
                    offsets.add((red.min(), green.min()))
                    # A crop: the pixels themselves, nothing resampled.
                    upright = red[:, ::-1] if mirrored else red
                    assert np.isin(np.round(upright[0]), np.round(cell[..., 0])).all()
            # Cells differ: else the assertions above would say nothing.
            corners = region[:: group.cell, :: group.cell, :2][: scale.grid, : scale.grid]
            assert (np.diff(corners[..., 0], axis=1) > 20).all()
            assert (np.diff(corners[..., 1], axis=0) > 20).all()
    assert len(seen_flips) == 4


# ---- what the random numbers depend on


class Images(Dataset):
    """The same images in every epoch, through the transform."""

    def __init__(self, transform, length=8):
        self.transform, self.length = transform, length

    def __len__(self):
        return self.length

    def __getitem__(self, idx):
        results = self.transform(dict(img=noise(seed=0), sample_idx=idx))
        return results["view_seed"], {k: v.copy() for k, v in results["regions"].items()}


def epochs(num_epochs, *, seed=0, set_epoch=True, **loader):
    transform = PyramidViewTransform(PYRAMID)
    loader = DataLoader(Images(transform), batch_size=None, **loader)
    seen = []
    for epoch in range(num_epochs):
        if set_epoch:
            transform.set_epoch(epoch, seed=seed)
        seen.append(list(loader))
    return seen


def assert_same(first, second):
    for (seed_a, regions_a), (seed_b, regions_b) in zip(first, second, strict=True):
        assert int(seed_a) == int(seed_b)
        for name in regions_a:
            np.testing.assert_array_equal(regions_a[name], regions_b[name])


@pytest.mark.parametrize(
    "loader", [dict(num_workers=1), dict(num_workers=2), dict(num_workers=2, persistent_workers=True)]
)
def test_views_depend_on_seed_epoch_and_sample_not_on_workers(loader):
    alone = epochs(3)
    for mine, reference in zip(epochs(3, **loader), alone, strict=True):
        assert_same(mine, reference)
    seeds = [int(seed) for epoch in alone for seed, _ in epoch]
    assert len(set(seeds)) == 24  # another view of every sample in every epoch
    pixels = {np.asarray(regions["s0"]).tobytes() for epoch in alone for _, regions in epoch}
    assert len(pixels) == 24


def test_epoch_is_reproducible():
    transform = PyramidViewTransform(PYRAMID)
    images = Images(transform)
    transform.set_epoch(5, seed=1)
    before = [images[i] for i in range(4)]
    transform.set_epoch(6, seed=1)
    between = images[0][0]
    transform.set_epoch(5, seed=1)
    assert_same([images[i] for i in range(4)], before)
    assert between != before[0][0]


def test_seed_epoch_and_sample_are_not_mixed_up():
    seeds = {
        view(noise(8, 8), seed=s, epoch=e, sample_idx=i)["view_seed"]
        for s in range(4)
        for e in range(4)
        for i in range(4)
    }
    assert len(seeds) == 64
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_without_an_epoch_calls_differ_and_follow_torchs_generator():
    transform = PyramidViewTransform(PYRAMID)
    torch.manual_seed(0)
    first = [transform(dict(img=noise()))["view_seed"] for _ in range(3)]
    torch.manual_seed(0)
    assert [transform(dict(img=noise()))["view_seed"] for _ in range(3)] == first
    assert len(set(first)) == 3


@pytest.mark.parametrize("persistent", [False, True])
def test_without_an_epoch_workers_do_not_repeat_each_other_nor_epochs(persistent):
    seen = epochs(2, set_epoch=False, num_workers=2, persistent_workers=persistent)
    seeds = [int(seed) for epoch in seen for seed, _ in epoch]
    assert len(set(seeds)) == 16


def test_global_generators_are_not_used():
    before, ours = np.random.get_state()[1].copy(), random.getstate()
    view(noise())
    np.testing.assert_array_equal(np.random.get_state()[1], before)
    assert random.getstate() == ours


def test_host_and_device_draw_different_numbers():
    """Both start from view_seed: where a crop lies must say nothing of the colours."""
    seed = view(noise())["view_seed"]
    device = np.random.Generator(np.random.Philox(seed)).random(1000)
    rng = random.Random(seed)
    assert not np.isclose(device[:, None], [rng.random() for _ in range(100)], rtol=0, atol=1e-12).any()


# ---- the contract


def test_keys_are_added_and_removed():
    given = dict(img=noise(), sample_idx=2, img_path="a.jpg", ori_shape=(64, 80))
    results = PyramidViewTransform(PYRAMID)(dict(given))
    assert set(results) == {"sample_idx", "img_path", "ori_shape", "regions", "view_seed"}
    assert list(results["regions"]) == ["s0", "s1", "s2"]
    assert isinstance(results["view_seed"], int)
    for region in results["regions"].values():
        assert region.flags.c_contiguous and region.dtype == np.uint8


def test_regions_are_packed_and_collated():
    transform, pack = PyramidViewTransform(PYRAMID), PackPyramidInputs()
    results = [
        transform(dict(img=noise(seed=i), sample_idx=i, img_path=f"{i}.jpg", ori_shape=(64, 80))) for i in range(3)
    ]
    packed = [pack(dict(r)) for r in results]
    assert set(packed[0]) == {"inputs", "data_samples"}
    assert packed[1]["data_samples"].metainfo == dict(sample_idx=1, img_path="1.jpg")
    batch = default_collate(packed)["inputs"]
    assert batch["seed"].dtype == torch.int64
    assert batch["seed"].tolist() == [r["view_seed"] for r in results]
    for name in ("s0", "s1", "s2"):
        np.testing.assert_array_equal(batch[name].numpy(), np.stack([r["regions"][name] for r in results]))


@pytest.mark.parametrize(
    ("image", "got"),
    [
        (np.zeros((4, 4, 3), np.uint16), "uint16 (4, 4, 3)"),
        (np.zeros((4, 4, 3), np.float32), "float32 (4, 4, 3)"),
        (np.zeros((0, 4, 3), np.uint8), "uint8 (0, 4, 3)"),
        (np.zeros((4, 4, 2), np.uint8), "uint8 (4, 4, 2)"),
        (np.zeros((1, 4, 4, 3), np.uint8), "uint8 (1, 4, 4, 3)"),
    ],
)
def test_invalid_images_are_refused(image, got):
    message = f"img must be (H, W, 1, 3 or 4) uint8 and not empty, got {got}: load it with LoadRGB"
    with pytest.raises(ValueError, match=re.escape(message)):
        view(image)


def test_missing_and_conflicting_pyramids_are_refused():
    transform = PyramidViewTransform()
    with pytest.raises(ValueError, match=r"has no pyramid: set pyramid=dict\(s0=\.\.\.\), or keep PyramidLinkHook"):
        transform(dict(img=noise()))
    spec = PyramidSpec.from_config(PYRAMID)
    transform.set_pyramid(spec)
    assert transform.spec is spec
    transform.set_pyramid(PyramidSpec.from_config(PYRAMID))  # the same again
    other = PyramidSpec.from_config(dict(s0=PYRAMID["s0"]))
    with pytest.raises(ValueError, match=r"and the model have different pyramids, .*remove the transform's `pyramid`"):
        transform.set_pyramid(other)
    assert repr(transform) == "PyramidViewTransform(s0: 32 px, s1: 45 px, s2: 50 px)"
    assert repr(PyramidViewTransform()) == "PyramidViewTransform()"
