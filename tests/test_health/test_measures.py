"""Measures equal those of a float64 implementation, and have their extreme values where they should."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from sspyr_mm.health import GroupHealth, judge, measure_features, measure_group
from sspyr_mm.health.measures import code_entropy, deviation, effective_rank, position_information, position_share


def entropy(p):
    p = p[p > 0]
    return float(-(p * np.log(p)).sum())


def test_deviation_is_the_standard_deviation_of_unit_vectors():
    z = F.normalize(torch.randn(50, 8), dim=1)
    expected = np.sqrt(z.double().numpy().var(0).sum())
    assert deviation(z).item() == pytest.approx(expected, abs=1e-6)
    assert deviation(z[:1].expand(9, 8)).item() == pytest.approx(0, abs=1e-3)
    assert deviation(torch.cat([z, -z])).item() == pytest.approx(1)


def test_effective_rank_counts_dimensions():
    basis = torch.linalg.qr(torch.randn(16, 16))[0]
    assert effective_rank(basis[:5]).item() == pytest.approx(5, abs=1e-4)
    assert effective_rank(basis[:1].expand(7, 16)).item() == pytest.approx(1, abs=1e-4)
    z = torch.randn(40, 12) * torch.linspace(0.1, 3, 12)
    values = np.linalg.svd(z.double().numpy(), compute_uv=False)
    assert effective_rank(z).item() == pytest.approx(np.exp(entropy(values / values.sum())), abs=1e-4)
    assert effective_rank(torch.zeros(4, 3)).isfinite()


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_embeddings_that_are_not_finite_have_no_rank_and_no_verdict(value):
    """DivergenceHook reports them."""
    group, z = GroupHealth("main"), F.normalize(torch.randn(2, 9, 4), dim=-1)
    z[:, 2, 0] = value
    measure_group(group, z, None)
    assert group.values["rank"].isnan()
    assert judge({name: float(x) for name, x in group.values.items()}, "advice") is None


def test_code_entropy_is_between_one_hot_and_uniform():
    assert code_entropy(torch.eye(6)).item() == 0
    assert code_entropy(torch.full((2, 5, 6), 1 / 6)).item() == pytest.approx(1)
    codes = torch.softmax(torch.randn(2, 7, 6), -1)
    expected = np.mean([entropy(row) for row in codes.flatten(0, 1).double().numpy()]) / np.log(6)
    assert code_entropy(codes).item() == pytest.approx(expected, abs=1e-6)


def test_position_information_is_that_of_independent_and_of_determined_prototypes():
    rng = np.random.default_rng(0)
    independent = np.bincount(rng.integers(0, 4 * 10, 4000), minlength=40).reshape(4, 10)
    assert position_information(torch.from_numpy(independent)).item() < 0.005
    # Without the correction, few samples would seem informative.
    few = torch.from_numpy(np.bincount(rng.integers(0, 40, 200), minlength=40).reshape(4, 10))
    joint = few.double() / few.sum()
    plain = (torch.log(joint / (joint.sum(0) * joint.sum(1, keepdim=True))) * joint).nan_to_num().sum() / np.log(4)
    assert plain > 0.04 and position_information(few).item() < plain / 2
    determined = torch.eye(4).repeat(1, 2) * 500  # two prototypes for every cell
    assert position_information(determined).item() == pytest.approx(1, abs=0.01)
    assert position_information(torch.tensor([[3, 0], [3, 0]])).item() == 0


@pytest.mark.parametrize("weight", [0.0, 0.5, 2.0, 1e6])
def test_position_share_is_the_adjusted_r_squared_of_a_regression_on_the_position(weight):
    rng = np.random.default_rng(0)
    z = rng.normal(size=(40, 9, 16)) + weight * rng.normal(size=(9, 16))
    z /= np.linalg.norm(z, axis=-1, keepdims=True)
    rows, places = z.reshape(-1, 16), np.tile(np.eye(9), (40, 1))
    left = rows - places @ np.linalg.lstsq(places, rows, rcond=None)[0]
    r_squared = 1 - (left**2).sum() / ((rows - rows.mean(0)) ** 2).sum()
    expected = max(0, 1 - (1 - r_squared) * (len(rows) - 1) / (len(rows) - 9))
    assert position_share(torch.from_numpy(z)).item() == pytest.approx(expected, abs=1e-6)
    assert (expected > 0.999) == (weight == 1e6) and (expected < 0.01) == (weight == 0)


def test_equal_embeddings_have_no_position_share():
    assert position_share(F.normalize(torch.ones(8, 9, 16), dim=-1)).item() == 0
    assert position_share(torch.full((8, 9, 16), torch.nan)).isnan()


def test_prototypes_are_counted_over_two_periods():
    group = GroupHealth("s1", num_cells=2)
    z = F.normalize(torch.randn(2, 6, 4), dim=-1)
    codes = torch.eye(5)[torch.tensor([[0, 3, 0, 3, 0, 3], [0, 3, 0, 3, 0, 4]])]
    measure_group(group, z, codes)
    assert group.counts.tolist() == [[6, 0, 0, 0, 0], [0, 0, 0, 5, 1]]
    assert not group.is_counted and "position" not in group.values
    measure_group(group, z, codes)
    assert group.is_counted and group.num_codes == 24 and group.values["used"] == 3
    assert group.values["position"] > 0.8
    others = torch.eye(5)[torch.tensor([[1, 2, 1, 2, 1, 2], [1, 2, 1, 2, 1, 2]])]
    measure_group(group, z, others)  # 24 codes are a period: 4 per prototype
    assert group.num_codes == 36 and group.values["used"] == 5 and "position" in group.values
    measure_group(group, z, others)
    measure_group(group, z, others)  # the first period is forgotten
    assert group.num_codes == 36 and group.is_counted and group.values["used"] == 2
    assert group.counts.tolist() == [[0, 18, 0, 0, 0], [0, 0, 18, 0, 0]] and group.values["position"] > 0.8


def test_many_prototypes_keep_their_position_sign():
    """A count from zero would end the sign before it lasts for the patience of the hook."""
    group, codes = GroupHealth("s1", num_cells=4), torch.eye(64)[torch.arange(64) % 4][None].expand(2, -1, -1)
    z = F.normalize(torch.randn(2, 64, 8), dim=-1)
    values = []
    for _ in range(20):
        measure_group(group, z, codes)
        values.append(group.values.get("position", torch.tensor(0)).item())
    assert values[0] == 0 and min(values[1:]) > 0.9


@pytest.mark.parametrize(("num_images", "is_measured"), [(1, False), (3, False), (4, True)])
def test_few_images_have_no_spread(num_images, is_measured):
    """One image per process is alike in any run."""
    group = GroupHealth("s1", num_cells=2)
    measure_group(group, F.normalize(torch.randn(2, 2 * num_images, 4), dim=-1), None)
    assert ({"deviation", "rank"} <= group.values.keys()) == is_measured and "alignment" in group.values
    found = measure_features(torch.randn(num_images, 3, 4, 4), torch.randn(num_images, 8, 2, 2))
    assert ("image_rank" in found) == is_measured and "contrast" in found


def test_values_of_embeddings():
    group = GroupHealth("main")
    z = F.normalize(torch.randn(2, 300, 16), dim=-1)
    measure_group(group, z, None)
    assert group.values.keys() == {"deviation", "rank", "alignment"}
    assert group.values["alignment"].item() == pytest.approx((z[0] * z[1]).sum(1).mean().item())
    assert group.values["rank"].item() == pytest.approx(effective_rank(z[0, :256]).item())
    measure_group(group, z[:1].expand(2, 300, 16), None)
    assert group.values["alignment"].item() == pytest.approx(1)


@pytest.mark.parametrize("kind", ["map", "tokens"])
def test_maps_are_measured_by_image_and_by_cell(kind):
    maps = torch.randn(20, 8, 3, 3)
    given = maps if kind == "map" else maps.flatten(2).transpose(1, 2)
    patches = torch.randn(20, 3, 6, 6) * 2 + 5
    found = measure_features(patches, given)
    assert found["contrast"].item() == pytest.approx(patches.numpy().std((2, 3)).mean(), rel=1e-4)
    images = F.normalize(maps.mean((2, 3)), dim=1)
    assert found["image_rank"].item() == pytest.approx(effective_rank(images).item(), abs=1e-4)
    assert found["image_deviation"].item() == pytest.approx(deviation(images).item(), abs=1e-6)
    cells = F.normalize(maps.flatten(2).transpose(1, 2), dim=-1)
    expected = np.mean([np.sqrt(c.double().numpy().var(0).sum()) for c in cells])
    assert found["cell_deviation"].item() == pytest.approx(expected, abs=1e-6)
    assert 1 < found["cell_rank"] <= 8
    alike = measure_features(patches, maps.mean((2, 3), keepdim=True).expand(20, 8, 3, 3))
    assert alike["cell_deviation"].item() == pytest.approx(0, abs=1e-3)
    assert alike["image_rank"].item() == pytest.approx(found["image_rank"].item(), abs=1e-3)


def test_vectors_have_no_cells():
    patches = torch.zeros(9, 3, 4, 4)
    for maps in (torch.randn(9, 4), torch.randn(9, 4, 1, 1)):
        assert measure_features(patches, maps).keys() == {"contrast", "image_rank", "image_deviation"}
