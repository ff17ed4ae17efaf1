"""Metrics of resampled test images, and intervals of them."""

import numpy as np
import pytest
import torch

from sspyr_mm.benchmarks.comparison.compare import Measured, verdict
from sspyr_mm.benchmarks.comparison.resampling import draw_counts, resampled_metric
from sspyr_mm.evaluation.metrics import mean_average_precision
from sspyr_mm.probes import linear_probe


@pytest.mark.parametrize("ties", [False, True])
def test_mean_average_precision_equals_that_of_the_listed_images(ties):
    rng = np.random.default_rng(0)
    scores = torch.from_numpy(rng.normal(size=(40, 3)))
    if ties:
        scores = scores.round()
    targets = rng.choice([-1, 0, 1], p=[0.1, 0.6, 0.3], size=(40, 3)).astype(np.int8)
    counts = draw_counts(40, 150)
    assert counts.sum(1).eq(40).all() and counts.eq(0).any()
    found = resampled_metric(scores, targets, counts, multi_label=True)
    for row, value in zip(counts[::7], found[::7], strict=True):
        images = torch.arange(40).repeat_interleave(row.long())
        assert value.item() == pytest.approx(mean_average_precision(scores[images], targets[images.numpy()]))


def test_accuracy_equals_that_of_the_listed_images():
    rng = np.random.default_rng(0)
    scores = torch.from_numpy(rng.normal(size=(30, 4)))
    labels = rng.integers(4, size=30)
    counts = draw_counts(30, 20)
    found = resampled_metric(scores, np.eye(4, dtype=np.int8)[labels], counts, multi_label=False)
    for row, value in zip(counts.long().numpy(), found, strict=True):
        images = np.repeat(np.arange(30), row)
        assert value.item() == pytest.approx(100 * np.mean(scores.argmax(1).numpy()[images] == labels[images]))


def test_classes_that_a_resample_lacks_are_left_out():
    scores = torch.tensor([[3.0, 1.0], [2.0, 2.0], [1.0, 3.0]])
    targets = np.array([[1, 0], [0, 0], [0, 1]], np.int8)
    counts = torch.tensor([[2.0, 1.0, 0.0], [0.0, 3.0, 0.0]])
    values = resampled_metric(scores, targets, counts, multi_label=True)
    assert values[0] == 100 and values[1].isnan()


def test_interval_of_accuracy_is_that_of_the_binomial_distribution():
    rng = np.random.default_rng(0)
    hits = rng.random(900) < 0.7
    scores = torch.from_numpy(np.stack([hits, ~hits], 1).astype(float))
    targets = np.tile(np.array([1, 0], np.int8), (900, 1))
    resampled = resampled_metric(scores, targets, draw_counts(900, 1000), multi_label=False).numpy()
    share = hits.mean()
    interval = Measured(np.array([100 * share]), resampled).interval
    half = 196 * (share * (1 - share) / 900) ** 0.5
    assert interval.value == pytest.approx(100 * share)
    assert (interval.low, interval.high) == pytest.approx((interval.value - half, interval.value + half), abs=0.35)


def test_interval_is_moved_by_the_bias_of_the_resamples():
    interval = Measured(np.array([11.0]), np.linspace(15, 25, 1001)).interval
    assert (interval.value, interval.low, interval.high) == pytest.approx((11, 11 - 4.75, 11 + 4.75))


def test_interval_has_the_spread_of_the_label_draws():
    """Student's t with 2 degrees of freedom, 4.303, added in quadrature to the interval over test images."""
    values = np.array([10.0, 11.0, 12.0])
    interval = Measured(values, np.full(9, 11.0)).interval
    assert interval.high - 11 == pytest.approx(4.303 / 3**0.5, rel=1e-3) and interval.low == pytest.approx(
        22 - interval.high
    )
    both = Measured(values, np.linspace(6, 16, 1001)).interval
    assert both.high - 11 == pytest.approx((4.75**2 + (4.303 / 3**0.5) ** 2) ** 0.5, rel=1e-3)
    # A draw that is hard for both networks is no difference.
    assert Measured(values, np.full(9, 11.0)).minus(Measured(values - 3, np.full(9, 8.0))).high == pytest.approx(3)


def test_interval_of_a_percentage_stays_between_0_and_100():
    interval = Measured(np.array([99.0, 100.0, 98.0]), np.linspace(90, 110, 101)).interval
    assert interval.high == 100 and 80 < interval.low < 95


def test_difference_of_networks_cancels_what_they_share():
    rng = np.random.default_rng(0)
    shared = rng.normal(scale=5, size=1000)
    first = Measured(np.array([31.0]), 31 + shared + rng.normal(scale=0.1, size=1000))
    second = Measured(np.array([30.0]), 30 + shared)
    difference = first.minus(second)
    assert difference.value == 1 and 0.7 < difference.low < 0.9 and 1.1 < difference.high < 1.3
    differences = (difference, second.minus(first), first.minus(first))
    assert [verdict(one, 30) for one in differences] == ["better", "worse", "unclear"]
    assert [verdict(one, 29) for one in differences] == ["unclear"] * 3


@pytest.mark.slow
@pytest.mark.parametrize("num_test", [300, 2000])
def test_intervals_contain_the_difference_of_equally_good_networks(num_test):
    """Docs, "Does a checkpoint help": draws of 28 labels, whose spread exceeds that of 2,000 test images."""
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(4, 8))

    def draw(num):
        labels = rng.integers(4, size=num)
        signal = centres[labels] + 1.5 * rng.normal(size=(num, 8))
        return [torch.from_numpy(signal + rng.normal(size=(num, 8))) for _ in range(2)], labels

    hits = 0
    for number in range(40):
        (first, second), labels = draw(2800)
        tests, test_labels = draw(num_test)
        onehot, test_onehot = (np.eye(4, dtype=np.int8)[part] for part in (labels, test_labels))
        counts = draw_counts(num_test, 300, seed=number)
        measured = []
        for features, test_features in ((first, tests[0]), (second, tests[1])):
            values, resampled = [], []
            for seed in range(5):
                rows = np.random.default_rng([number, seed]).permutation(2800)[:28]
                result = linear_probe(
                    (features[rows], onehot[rows]), (test_features, test_onehot), multi_label=False, seed=seed
                )
                values.append(result.value)
                resampled.append(resampled_metric(result.scores, test_onehot, counts, multi_label=False).numpy())
            measured.append(Measured(np.array(values), np.mean(resampled, axis=0)))
        difference = measured[0].minus(measured[1])
        hits += difference.low <= 0 <= difference.high
    assert hits >= 36


@pytest.mark.slow
def test_intervals_of_differences_contain_the_true_difference():
    """Docs, "Does a checkpoint help": two networks of mAP 29.3 and 26.0, 200 test sets of 400 images."""
    rng = np.random.default_rng(0)

    def draw(num):
        targets = (rng.random((num, 10)) < 0.1).astype(np.int8)
        first = rng.normal(size=(num, 10))
        second = 0.9 * first + 0.45 * rng.normal(size=(num, 10)) + 0.9 * targets
        return torch.from_numpy(first + targets), torch.from_numpy(second), targets

    first, second, targets = draw(400_000)
    wholes = [mean_average_precision(scores, targets) for scores in (first, second)]
    hits, hits_of_values = 0, 0
    for number in range(200):
        first, second, targets = draw(400)
        counts = draw_counts(400, 300, seed=number)
        measured = [
            Measured(
                np.array([mean_average_precision(scores, targets)]),
                resampled_metric(scores, targets, counts, multi_label=True).numpy(),
            )
            for scores in (first, second)
        ]
        difference = measured[0].minus(measured[1])
        hits += difference.low <= wholes[0] - wholes[1] <= difference.high
        interval = measured[0].interval
        hits_of_values += interval.low <= wholes[0] <= interval.high
    assert (hits / 200, hits_of_values / 200) == (pytest.approx(0.945, abs=0.03), pytest.approx(0.825, abs=0.05))
