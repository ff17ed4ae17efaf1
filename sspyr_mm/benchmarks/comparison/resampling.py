"""Intervals of results by resampling test images.

Dimensions: R resamples, N test images, L classes.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

_CHUNK = 100  # resamples at once, which bounds memory


def draw_counts(num_images: int, num_resamples: int, *, seed: int = 0) -> Tensor:
    """Draws how often each image occurs in each resample of ``num_images`` images with replacement, (R, N) float64."""
    rng = np.random.default_rng(seed)
    counts = rng.multinomial(num_images, np.full(num_images, 1 / num_images), size=num_resamples)
    return torch.from_numpy(counts).double()


def resampled_metric(scores: Tensor, targets: NDArray[np.int8], counts: Tensor, *, multi_label: bool) -> Tensor:
    """Computes the metric of a probe on every resample, in percent, (R,) float64.

    Equals :func:`mean_average_precision`, or top-1, on each list of images; classes without a positive image in a
    resample are left out of its mean, and a resample without any is NaN.

    Args:
        scores: (N, L).
        targets: (N, L) 1, 0 or -1 (ignored).
        counts: (R, N).
        multi_label: Whether the metric is mAP instead of top-1.
    """
    truth = torch.from_numpy(targets)
    if not multi_label:
        hits = (scores.argmax(1) == truth.argmax(1)).to(counts)
        return 100 * counts @ hits / counts.sum(1)
    parts = [_average_precision(scores, truth, part) for part in counts.split(_CHUNK)]
    return 100 * torch.cat(parts).nanmean(1)


def _average_precision(scores: Tensor, truth: Tensor, counts: Tensor) -> Tensor:
    """Returns the average precision of each class on every resample, (R, L); NaN without a positive."""
    values = []
    for column, target in zip(scores.T, truth.T, strict=True):
        ordered, order = column.sort(descending=True)
        # Equal scores are one step of the curve: it ends at the last of them.
        last = torch.searchsorted(-ordered, -ordered, right=True) - 1
        target = target[order]
        copies = counts[:, order]
        positive = copies * (target == 1)
        hits = positive.cumsum(1)[:, last]
        seen = (copies * (target >= 0)).cumsum(1)[:, last]
        values.append((positive * hits / seen.clamp_min(1)).sum(1) / positive.sum(1))
    return torch.stack(values, 1)
