"""Linear probes of several networks on the same labels, with intervals of their differences."""

import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import t as student_t

from sspyr_mm.benchmarks.comparison.candidates import Candidate
from sspyr_mm.benchmarks.comparison.resampling import draw_counts, resampled_metric
from sspyr_mm.datasets.labelled import LabelledImages
from sspyr_mm.datasets.splits import rank_ids
from sspyr_mm.features.extraction import cached_features
from sspyr_mm.probes import linear_probe

NUM_RESAMPLES = 1000
MIN_TEST_IMAGES = 30
_MIN_IMAGES = 20  # of a subset of the training images


@dataclass(frozen=True)
class Interval:
    """Value and its 95 % interval, in percent."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Measured:
    """Results of one network on one share of the labels."""

    values: NDArray[np.float64]  # (S,) one per label subset, in percent
    resampled: NDArray[np.float64]  # (R,) on resamples of the test images, means over subsets

    @property
    def interval(self) -> Interval:
        """Mean over label subsets, between 0 and 100."""
        found = _interval(self.values, self.resampled)
        return Interval(found.value, max(0.0, found.low), min(100.0, found.high))

    def minus(self, other: "Measured") -> Interval:
        """Returns the difference to another network on the same subsets and test images."""
        return _interval(self.values - other.values, self.resampled - other.resampled)


def _interval(values: NDArray[np.float64], resampled: NDArray[np.float64]) -> Interval:
    """Returns the 95 % interval of the mean of values, one per label subset.

    Its squared length is the sum of those of two intervals: by the percentiles of the resampled test images, and by
    Student's t over the subsets. The former is moved so that the mean of the resamples is the value: the mean average
    precision of resamples is too high, since copies of an image are ranked together.
    """
    value, num = float(values.mean()), len(values)
    below, above = np.abs(np.nanpercentile(resampled, (2.5, 97.5)) - np.nanmean(resampled))
    half = student_t.ppf(0.975, num - 1) * values.std(ddof=1) / num**0.5 if num > 1 else 0.0
    return Interval(value, value - float(np.hypot(below, half)), value + float(np.hypot(above, half)))


def verdict(difference: Interval, num_test: int) -> str:
    """Returns the word for a difference: better or worse if its interval lies on one side of 0, else unclear.

    Intervals of fewer than 30 test images are not reliable: unclear.
    """
    if num_test < MIN_TEST_IMAGES or difference.low <= 0 <= difference.high:
        return "unclear"
    return "better" if difference.low > 0 else "worse"


def draw_subset(train: LabelledImages, percent: int, seed: int, *, at_least: int = 1) -> list[int]:
    """Draws a share of the training images; returns their indices in the order of the set.

    Draws of one seed are nested. With one label per image the share is drawn in each class, ``at_least`` that many.
    """
    index = {image_id: i for i, image_id in enumerate(train.image_ids)}
    ranked = [index[image_id] for image_id in rank_ids(train.image_ids, seed)]
    if train.multi_label:
        return sorted(ranked[: len(ranked) * percent // 100])
    labels = train.targets.argmax(1)
    chosen = []
    for label in range(len(train.classes)):
        members = [i for i in ranked if labels[i] == label]
        chosen += members[: max(at_least, len(members) * percent // 100)]
    return sorted(chosen)


def usable_percents(train: LabelledImages, percents: Sequence[int], seeds: Sequence[int]) -> dict[int, int]:
    """Returns the number of images of each share of the labels, without shares that are too small or show no class.

    Raises ValueError if none is left.
    """
    needed = max(_MIN_IMAGES, 2 * len(train.classes))
    usable = {}
    for percent in sorted(set(percents)):
        subsets = [draw_subset(train, percent, seed) for seed in (seeds if percent < 100 else seeds[:1])]
        if (size := len(subsets[0])) < needed:
            reason = ", two per class" if needed > _MIN_IMAGES else ""
            print(f"--percent {percent} ({size} images) is skipped: needs at least {needed}{reason}", file=sys.stderr)
        elif not all((train.targets[rows] > 0).any() for rows in subsets):
            print(f"--percent {percent} ({size} images) is skipped: no image shows a class", file=sys.stderr)
        else:
            usable[percent] = size
    if not usable:
        raise ValueError(
            f"{len(train.paths)} training images of {len(train.classes)} classes are too few for --percent "
            f"{' '.join(map(str, sorted(set(percents))))}: give more images, or a higher --percent"
        )
    return usable


def compare(
    candidates: Sequence[Candidate],
    train: LabelledImages,
    test: LabelledImages,
    *,
    percents: Sequence[int],
    seeds: Sequence[int],
    size: int,
    cache_dir: str | os.PathLike,
    **loading: Any,
) -> Iterator[dict[int, Measured]]:
    """Probes every network on every label subset; yields its results by percentage, in the order of the networks.

    All networks have the same subsets, test images and resamples, so that their differences have narrow intervals.
    Raises ValueError if an image cannot be decoded or a metric is undefined. ``loading`` are arguments of
    :func:`cached_features`.
    """
    counts = draw_counts(len(test.paths), NUM_RESAMPLES)
    for candidate in candidates:
        learned, measured = (
            cached_features(candidate.encoder, part.paths, size=size, cache_dir=cache_dir, **loading)
            for part in (train, test)
        )
        found = {}
        for percent in percents:
            # All labels are one subset.
            draws = seeds if percent < 100 else seeds[:1]
            values, resampled = [], []
            for seed in draws:
                rows = draw_subset(train, percent, seed)
                result = linear_probe(
                    (learned[torch.tensor(rows)], train.targets[rows]),
                    (measured, test.targets),
                    multi_label=train.multi_label,
                    seed=seed,
                )
                values.append(result.value)
                resampled.append(
                    resampled_metric(result.scores, test.targets, counts, multi_label=train.multi_label).numpy()
                )
            found[percent] = Measured(np.array(values), np.mean(resampled, axis=0))
        yield found
