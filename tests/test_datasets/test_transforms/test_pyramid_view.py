"""Content of regions, and the numbers that they depend on."""

import math
import random
import re

import numpy as np
import pytest
import torch
from encoded_images import random_image
from mmengine.dataset import default_collate
from torch.utils.data import DataLoader, Dataset

from sspyr_mm.datasets import PackPyramidInputs, PyramidViewTransform
from sspyr_mm.models.data_preprocessors.augment_params import draw_params
from sspyr_mm.models.data_preprocessors.pyramid_augment import PyramidAugment
from sspyr_mm.pyramid import PyramidSpec

PYRAMID = dict(
    s0=dict(region=32, patch=32, num_prototypes=3, alpha=1.0, area=(0.14, 1.0)),
    s1=dict(region=45, grid=2, patch=16, num_prototypes=3, alpha=0.25, beta=0.25),
    s2=dict(region=50, grid=3, patch=12, num_prototypes=3, alpha=0.25, beta=0.25),
)


def ramps(height=256, width=256):
    """Returns an image whose red is the column and green the row."""
    image = np.zeros((height, width, 3), np.uint8)
    image[..., 0] = np.arange(width) * 255 // max(1, width - 1)
    image[..., 1] = (np.arange(height) * 255 // max(1, height - 1))[:, None]
    return image


def view(image, pyramid=PYRAMID, *, seed=0, epoch=0, sample_idx=0):
    transform = PyramidViewTransform(pyramid)
    transform.set_epoch(epoch, seed=seed)
    return transform(dict(img=image, sample_idx=sample_idx))


# ---- what regions show


def test_regions_cover_the_area_of_their_scale():
    """The pixels show area and aspect ratio, which are in the range of the scale up to rounding."""
    spec = PyramidSpec.from_config(PYRAMID)
    for sample_idx in range(40):
        regions = view(ramps(), sample_idx=sample_idx)["regions"]
        for group in spec.groups:
            for region in regions[group.name].astype(float):
                # Inner pixels: those of the border are half a source pixel off.
                inner = region[4:-4, 4:-4]
                width = np.ptp(inner[..., 0]) / (inner.shape[1] - 1) * group.region / 255
                height = np.ptp(inner[..., 1]) / (inner.shape[0] - 1) * group.region / 255
                low, high = group.area
                assert low - 0.05 < width * height < high + 0.05
                assert 3 / 4 - 0.06 < width / height < 4 / 3 + 0.06


@pytest.mark.parametrize("shape", [(20, 24), (1, 50), (50, 1), (1, 1), (31, 500)])
def test_small_and_narrow_images_are_enlarged(shape):
    image = random_image(*shape) // 4 + np.array([0, 64, 128], np.uint8)  # a range for each channel
    results = view(image)
    spec = PyramidSpec.from_config(PYRAMID)
    for group in spec.groups:
        region = results["regions"][group.name]
        assert region.shape == (group.num_regions, group.region, group.region, 3)
        assert (region >= image.min((0, 1))).all() and (region <= image.max((0, 1))).all()


@pytest.mark.parametrize("channels", [None, 1, 3, 4])
def test_greyscale_and_alpha_arrays_become_rgb(channels):
    base = random_image()
    image = {None: base[..., 0], 1: base[..., :1], 3: base, 4: np.dstack([base, base[..., 0]])}[channels]
    expected = base if channels in (3, 4) else np.repeat(base[..., :1], 3, axis=2)
    for name, region in view(image)["regions"].items():
        np.testing.assert_array_equal(region, view(expected)["regions"][name])


# ---- shared and independent regions


def test_shared_region_is_cropped_once_and_others_are_independent():
    regions = view(ramps())["regions"]
    assert {name: len(r) for name, r in regions.items()} == {"s0": 2, "s1": 1, "s2": 1}
    assert np.abs(regions["s0"][0].astype(int) - regions["s0"][1]).max() > 10
    swapped = {name: {**cfg, "shared_region": name == "s0"} for name, cfg in PYRAMID.items()}
    regions = view(ramps(), swapped)["regions"]
    assert {name: len(r) for name, r in regions.items()} == {"s0": 1, "s1": 2, "s2": 2}
    assert np.abs(regions["s1"][0].astype(int) - regions["s1"][1]).max() > 2


def test_multi_crops_are_separate_regions():
    config = dict(PYRAMID, s0={**PYRAMID["s0"], "multi_crop": dict(num_views=6, patch=12)})
    regions = view(ramps(), config)["regions"]
    assert regions["s0_crops"].shape == (6, 12, 12, 3)
    corners = {tuple(crop[0, 0, :2]) for crop in regions["s0_crops"]}
    assert len(corners) == 6
    spans = np.ptp(regions["s0_crops"][..., :2].reshape(6, -1, 2).astype(float), axis=1) / 255
    assert (spans.prod(1) < 0.16).all() and (spans.prod(1) > 0.03).all()


def test_regions_of_views_and_scales_do_not_depend_on_each_other():
    positions = {"s0": [], "s0'": [], "s1": [], "s2": []}
    for sample_idx in range(400):
        regions = view(ramps(64, 64), sample_idx=sample_idx)["regions"]
        for name, region in zip(positions, [*regions["s0"], *regions["s1"], *regions["s2"]], strict=True):
            positions[name].append(float(region[..., 0].mean()))
    correlation = np.corrcoef(list(positions.values())) - np.eye(4)
    assert np.abs(correlation).max() < 4 / math.sqrt(400)


def test_patch_m_of_both_views_shows_the_same_cell():
    """Every pixel of patch m of V and of V' is in cell m of one region, also after flips on the device."""
    augment = PyramidAugment(PYRAMID, mean=(0, 0, 0), std=(255, 255, 255), jitter_prob=0,
                             gray_prob=0, blur_prob=0)  # fmt: skip
    spec = PyramidSpec.from_config(PYRAMID)
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
                for v in range(2):
                    patch = patches[scale.name][v, image, m].numpy() * 255
                    red, green = patch[0], patch[1]
                    # Colours are positions: those of different cells overlap by at most one pixel.
                    assert low[0] - 0.01 <= red.min() and red.max() <= high[0] + 0.01
                    assert low[1] - 0.01 <= green.min() and green.max() <= high[1] + 0.01
                    mirrored = red[0, 0] > red[0, -1]
                    assert mirrored == flips[v, image, m]
                    seen_flips.add((v, bool(mirrored)))
                    assert green[0, 0] < green[-1, 0]  # never upside down
                    # A crop keeps the pixels, without resampling.
                    upright = red[:, ::-1] if mirrored else red
                    assert np.isin(np.round(upright[0]), np.round(cell[..., 0])).all()
            # The assertions above need cells that differ.
            corners = region[:: group.cell, :: group.cell, :2][: scale.grid, : scale.grid]
            assert (np.diff(corners[..., 0], axis=1) > 20).all()
            assert (np.diff(corners[..., 1], axis=0) > 20).all()
    assert len(seen_flips) == 4


# ---- random numbers


class Images(Dataset):
    """Passes one image through the transform."""

    def __init__(self, transform):
        self.transform = transform

    def __len__(self):
        return 8

    def __getitem__(self, idx):
        results = self.transform(dict(img=random_image(seed=0), sample_idx=idx))
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
    assert len(set(seeds)) == 24  # every sample has another view in every epoch
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


def test_every_seed_epoch_and_sample_has_another_view_seed():
    seeds = {
        view(random_image(8, 8), seed=s, epoch=e, sample_idx=i)["view_seed"]
        for s in range(4)
        for e in range(4)
        for i in range(4)
    }
    assert len(seeds) == 64
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_without_an_epoch_calls_differ_and_follow_torchs_generator():
    transform = PyramidViewTransform(PYRAMID)
    torch.manual_seed(0)
    first = [transform(dict(img=random_image()))["view_seed"] for _ in range(3)]
    torch.manual_seed(0)
    assert [transform(dict(img=random_image()))["view_seed"] for _ in range(3)] == first
    assert len(set(first)) == 3


@pytest.mark.parametrize("persistent", [False, True])
def test_without_an_epoch_views_differ_between_workers_and_epochs(persistent):
    seen = epochs(2, set_epoch=False, num_workers=2, persistent_workers=persistent)
    seeds = [int(seed) for epoch in seen for seed, _ in epoch]
    assert len(set(seeds)) == 16


def test_global_generators_are_not_used():
    before, ours = np.random.get_state()[1].copy(), random.getstate()
    view(random_image())
    np.testing.assert_array_equal(np.random.get_state()[1], before)
    assert random.getstate() == ours


def test_host_and_device_draw_different_numbers():
    """Both use ``view_seed``, but the position of a crop must not determine its colours."""
    seed = view(random_image())["view_seed"]
    device = np.random.Generator(np.random.Philox(seed)).random(1000)
    rng = random.Random(seed)
    assert not np.isclose(device[:, None], [rng.random() for _ in range(100)], rtol=0, atol=1e-12).any()


# ---- keys and errors


def test_keys_are_added_and_removed():
    given = dict(img=random_image(), sample_idx=2, img_path="a.jpg", ori_shape=(64, 80))
    results = PyramidViewTransform(PYRAMID)(dict(given))
    assert set(results) == {"sample_idx", "img_path", "ori_shape", "regions", "view_seed"}
    assert list(results["regions"]) == ["s0", "s1", "s2"]
    assert isinstance(results["view_seed"], int)
    for region in results["regions"].values():
        assert region.flags.c_contiguous and region.dtype == np.uint8


def test_regions_are_packed_and_collated():
    transform, pack = PyramidViewTransform(PYRAMID), PackPyramidInputs()
    results = [
        transform(dict(img=random_image(seed=i), sample_idx=i, img_path=f"{i}.jpg", ori_shape=(64, 80)))
        for i in range(3)
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
        transform(dict(img=random_image()))
    spec = PyramidSpec.from_config(PYRAMID)
    transform.set_views(spec.views)
    assert transform.views is spec.views
    transform.set_views(PyramidSpec.from_config(PYRAMID).views)  # an equal one
    other = PyramidSpec.from_config(dict(s0=PYRAMID["s0"]))
    with pytest.raises(ValueError, match=r"and the model have different pyramids, .*remove the transform's `pyramid`"):
        transform.set_views(other.views)
    assert repr(transform) == "PyramidViewTransform(s0: 32 px, s1: 45 px, s2: 50 px)"
    assert repr(PyramidViewTransform()) == "PyramidViewTransform()"
