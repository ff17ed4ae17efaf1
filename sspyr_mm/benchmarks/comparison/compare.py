"""Linear probes of several networks on the same labels, with intervals of their differences."""

import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from sspyr_mm.benchmarks.classification.features import cached_features
from sspyr_mm.benchmarks.classification.linear_probe import linear_probe
from sspyr_mm.benchmarks.comparison.candidates import Candidate
from sspyr_mm.benchmarks.comparison.resampling import draw_counts, resampled_metric
from sspyr_mm.datasets.labelled import LabelledImages
from sspyr_mm.datasets.splits import rank_ids

NUM_RESAMPLES = 1000
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

    values: tuple[float, ...]  # one per label subset, in percent
    resampled: NDArray[np.float64]  # (R,) means over subsets, which are resampled as the test images are

    @property
    def interval(self) -> Interval:
        """Mean over label subsets."""
        return _interval(float(np.mean(self.values)), self.resampled)

    def minus(self, other: "Measured") -> Interval:
        """Returns the difference to another network on the same subsets and test images."""
        value = float(np.mean(self.values) - np.mean(other.values))
        return _interval(value, self.resampled - other.resampled)


def _interval(value: float, resampled: NDArray[np.float64]) -> Interval:
    """Returns the 95 % interval of resampled values, moved so that their mean is the value.

    The mean average precision of resamples is too high, since copies of an image are ranked together.
    """
    low, high = np.nanpercentile(resampled, (2.5, 97.5)) - np.nanmean(resampled) + value
    return Interval(value, float(low), float(high))


def verdict(difference: Interval) -> str:
    """Returns the word for a difference: better or worse if its interval lies on one side of 0, else unclear."""
    if difference.low > 0:
        return "better"
    return "worse" if difference.high < 0 else "unclear"


def draw_subset(train: LabelledImages, percent: int, seed: int) -> list[int]:
    """Draws a share of the training images; returns their indices in the order of the set.

    Draws of one seed are nested. With one label per image the share is drawn in each class, at least one image.
    """
    index = {image_id: i for i, image_id in enumerate(train.image_ids)}
    ranked = [index[image_id] for image_id in rank_ids(train.image_ids, seed)]
    if train.multi_label:
        return sorted(ranked[: len(ranked) * percent // 100])
    labels = train.targets.argmax(1)
    chosen = []
    for label in range(len(train.classes)):
        members = [i for i in ranked if labels[i] == label]
        chosen += members[: max(1, len(members) * percent // 100)]
    return sorted(chosen)


def usable_percents(train: LabelledImages, percents: Sequence[int]) -> dict[int, int]:
    """Returns the number of images of each share of the labels, without shares that are too small.

    Raises ValueError if none is left.
    """
    sizes = {percent: len(draw_subset(train, percent, 0)) for percent in sorted(set(percents))}
    needed = max(_MIN_IMAGES, 2 * len(train.classes))
    usable = {percent: size for percent, size in sizes.items() if size >= needed}
    for percent in sizes.keys() - usable.keys():
        print(f"{percent} % of the labels is left out: {sizes[percent]} images, fewer than {needed}", file=sys.stderr)
    if not usable:
        raise ValueError(
            f"{len(train.paths)} training images are too few for {len(train.classes)} classes: a subset needs {needed} "
            "images. Give more images, or a higher --percent"
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
    rng = np.random.default_rng(0)
    chosen_seeds = rng.integers(len(seeds), size=(NUM_RESAMPLES, len(seeds)))
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
            by_seed = np.stack(resampled, axis=1)  # (R, subsets)
            picks = chosen_seeds % len(draws)
            found[percent] = Measured(tuple(values), np.take_along_axis(by_seed, picks, axis=1).mean(1))
        yield found
