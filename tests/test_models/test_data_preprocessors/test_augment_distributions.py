"""What the augmentation draws: the distributions of torchvision's transforms, and independence."""

import itertools
import math

import numpy as np
import pytest
import torch
from scipy.stats import chisquare, ks_1samp, ks_2samp, uniform
from small_augment import PAPER, SPEC
from torchvision.transforms import ColorJitter, GaussianBlur, RandomCrop

from sspyr_mm.models.data_preprocessors.augment_params import draw_params
from sspyr_mm.views import AugmentSpec

ALPHA = 1e-4  # a right implementation fails one test in ten thousand; seeds are fixed
NUM_IMAGES = 2500


@pytest.fixture(scope="module")
def drawn():
    """Parameters of many images, per group (B, V, M, ...)."""
    params = draw_params(range(NUM_IMAGES), SPEC.groups, PAPER)
    shaped = {}
    for group in SPEC.groups:
        p = params[group.name]
        shape = (group.num_views, NUM_IMAGES, group.num_patches)
        shaped[group.name] = {
            name: np.swapaxes(value.reshape(*shape, *value.shape[1:]), 0, 1)
            for name, value in vars(p).items()
            if isinstance(value, np.ndarray)
        }
    return shaped


def all_patches(drawn, name):
    groups = [d[name] for d in drawn.values()]
    return np.concatenate([g.reshape(-1, *g.shape[3:]) for g in groups])


@pytest.mark.parametrize("bit", [0, 31, 32, 62])
def test_every_bit_of_a_seed_changes_the_parameters(bit):
    """Seeds of images have 63 bits."""
    one, other = (draw_params([seed], SPEC.groups, PAPER) for seed in (7, 7 ^ 1 << bit))
    for group in SPEC.groups:
        assert not np.array_equal(one[group.name].factors, other[group.name].factors)


def test_colour_factors_are_distributed_as_torchvisions(drawn):
    torch.manual_seed(0)
    jitter = ColorJitter(0.8, 0.8, 0.8, 0.2)
    theirs = np.array(
        [
            ColorJitter.get_params(jitter.brightness, jitter.contrast, jitter.saturation, jitter.hue)[1:]
            for _ in range(4000)
        ]
    )
    for group in drawn.values():
        ours = group["factors"].reshape(-1, 4)
        for op in range(4):
            assert ks_2samp(ours[:, op], theirs[:, op]).pvalue > ALPHA
    ours = all_patches(drawn, "factors")
    np.testing.assert_allclose(ours.min(0), [0.2, 0.2, 0.2, -0.2], atol=2e-3)
    np.testing.assert_allclose(ours.max(0), [1.8, 1.8, 1.8, 0.2], atol=2e-3)
    # All 77,500 against torchvision's ranges: deviations of less than a hundredth show.
    ranges = [jitter.brightness, jitter.contrast, jitter.saturation, jitter.hue]
    for op, (low, high) in enumerate(ranges):
        assert ks_1samp(ours[:, op], uniform(low, high - low).cdf).pvalue > ALPHA


def test_strengths_above_one_stop_at_zero():
    """As torchvision: the range is [max(0, 1 - s), 1 + s]."""
    config = AugmentSpec(0.5, 1, (1.5, 0, 2, 0.5), 0, 0, (1, 1))
    factors = draw_params(range(200), SPEC.groups, config)["s2"].factors
    jitter = ColorJitter(1.5, 0, 2, 0.5)
    expected = [jitter.brightness, (1, 1), jitter.saturation, jitter.hue]
    for op, (low, high) in enumerate(expected):
        assert ks_1samp(factors[:, op], uniform(low, max(1e-9, high - low)).cdf).pvalue > ALPHA or (
            low == high and (factors[:, op] == low).all()
        )


def test_the_order_of_operations_is_uniform_over_all_permutations(drawn):
    for group in drawn.values():
        orders = group["order"].reshape(-1, 4)
        assert (np.sort(orders, axis=1) == np.arange(4)).all()
        ranks = {p: i for i, p in enumerate(itertools.permutations(range(4)))}
        counts = np.bincount([ranks[tuple(o)] for o in orders.tolist()], minlength=24)
        assert chisquare(counts).pvalue > ALPHA


@pytest.mark.parametrize(("name", "probability"), [("flip", 0.5), ("jitter", 0.8), ("gray", 0.2), ("blur", 0.5)])
def test_operations_are_drawn_with_their_probability(drawn, name, probability):
    for group in drawn.values():
        coins = group[name].reshape(-1)
        counts = np.array([coins.sum(), (~coins).sum()])
        expected = coins.size * np.array([probability, 1 - probability])
        assert chisquare(counts, expected).pvalue > ALPHA


@pytest.mark.parametrize("name", ["flip", "jitter", "gray", "blur"])
@pytest.mark.parametrize("probability", [0.0, 1.0])
def test_probabilities_of_0_and_1_are_certain(name, probability):
    values = dict(flip_prob=0.5, jitter_prob=0.5, gray_prob=0.5, blur_prob=0.5)
    config = AugmentSpec(**{**values, f"{name}_prob": probability}, jitter=(0.8, 0.8, 0.8, 0.2), blur_sigma=(0.1, 2))
    coins = getattr(draw_params(range(50), SPEC.groups, config)["s2"], name)
    assert (coins == bool(probability)).all()


def test_sigma_is_uniform_as_torchvisions(drawn):
    torch.manual_seed(0)
    theirs = [GaussianBlur.get_params(0.1, 2.0) for _ in range(4000)]
    for group in drawn.values():
        assert ks_2samp(group["sigma"].reshape(-1), theirs).pvalue > ALPHA
    assert ks_1samp(all_patches(drawn, "sigma"), uniform(0.1, 1.9).cdf).pvalue > ALPHA


def test_offsets_are_uniform_over_all_places_as_torchvisions(drawn):
    torch.manual_seed(0)
    for group in SPEC.groups:
        slack = group.cell - group.patch
        cell = torch.empty(3, group.cell, group.cell)
        size = (group.patch, group.patch)
        theirs = np.array([RandomCrop.get_params(cell, size)[:2] for _ in range(2000)])
        for axis, name in enumerate(("offset_y", "offset_x")):
            offsets = drawn[group.name][name].reshape(-1)
            counts = np.bincount(offsets, minlength=slack + 1)
            assert counts.size == slack + 1 == theirs[:, axis].max() + 1
            if slack:
                assert chisquare(counts).pvalue > ALPHA


def flat(group):
    """All parameters of a patch as numbers, (B, V, M, 15 - 4 + 4)."""
    parts = [group[k][..., None] for k in ("offset_y", "offset_x", "flip", "jitter")]
    parts += [group["factors"], group["order"]]
    parts += [group[k][..., None] for k in ("gray", "blur", "sigma")]
    return np.concatenate([p.astype(float) for p in parts], axis=-1)


def worst_correlation(first, second):
    """Largest |correlation| of any parameter of one with any of the other, constant ones left out."""
    columns = [x[:, x.std(0) > 0] for x in (first, second)]
    scaled = [(x - x.mean(0)) / x.std(0) for x in columns]
    return np.abs(scaled[0].T @ scaled[1] / len(first)).max()


def test_patches_views_and_scales_are_independent(drawn):
    numbers = {name: flat(group) for name, group in drawn.items()}
    pairs = {
        "patches of an image": (numbers["s1"][:, 0, 0], numbers["s1"][:, 0, 3]),
        "patches of another scale": (numbers["s2"][:, 1, 4], numbers["s2"][:, 1, 8]),
        "views": (numbers["s1"][:, 0, 2], numbers["s1"][:, 1, 2]),
        "views of scale 0": (numbers["s0"][:, 0, 0], numbers["s0"][:, 1, 0]),
        "multi-crops": (numbers["s0_crops"][:, 0, 0], numbers["s0_crops"][:, 2, 0]),
        "scales": (numbers["s0"][:, 0, 0], numbers["s1"][:, 0, 0]),
        "other scales": (numbers["s1"][:, 0, 0], numbers["s2"][:, 0, 0]),
        "images": (numbers["s1"][:-1, 0, 0], numbers["s1"][1:, 0, 0]),
    }
    for what, (first, second) in pairs.items():
        # 225 correlations of 2,500 pairs: beyond 5 standard deviations by chance once in 10,000 runs.
        assert worst_correlation(first, second) < 5 / math.sqrt(NUM_IMAGES), what


def test_parameters_of_a_patch_are_independent_of_each_other(drawn):
    numbers = flat(drawn["s2"])[:, 0, 4]
    without_order = np.delete(numbers, range(8, 12), axis=1)  # a permutation is not independent
    correlation = np.corrcoef(without_order.T) - np.eye(without_order.shape[1])
    assert np.abs(correlation).max() < 5 / math.sqrt(NUM_IMAGES)
