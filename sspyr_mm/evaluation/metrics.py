"""Metrics of multi-label classification, with ignored entries.

Dimensions: N images, L classes. Targets are 1 (shown), 0 (not) or -1 (ignored: as if the image were not there, for this
class).
"""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor


def average_precision(scores: Tensor | np.ndarray, targets: Tensor | np.ndarray) -> Tensor:
    """Computes the non-interpolated average precision of each class, like scikit-learn's ``average_precision_score``.

    Images with equal scores count as one step of the curve, so that the result does not depend on their order.

    Args:
        scores: (N, L), higher for a more likely class.
        targets: (N, L) 1, 0 or -1.

    Returns:
        (L,) float64 in 0..1; NaN for classes without a positive, for which it is undefined.

    Raises:
        ValueError: If shapes differ, a score is NaN, or a target is not 1, 0 or -1.
    """
    curve = _curve(scores, targets)
    total = (curve.positive * curve.precision).sum(0)
    return torch.where(curve.num_positive > 0, total / curve.num_positive, torch.nan)


def voc11_average_precision(scores: Tensor | np.ndarray, targets: Tensor | np.ndarray) -> Tensor:
    """Computes the 11-point average precision of VOC 2007: mean of the best precision at recalls >= 0, .1, ..., 1.

    Shapes and errors are those of :func:`average_precision`.

    Deviation:
        In the devkit the order of images with equal scores is undefined; here they are one step of the curve.
    """
    curve = _curve(scores, targets)
    total = torch.zeros_like(curve.precision[0])
    for tenths in range(11):
        # In integers: .3 of 10 positives are 3, without floating-point rounding.
        reached = 10 * curve.hits >= tenths * curve.num_positive
        total += (curve.precision * reached).amax(0)
    return torch.where(curve.num_positive > 0, total / 11, torch.nan)


def mean_average_precision(
    scores: Tensor | np.ndarray, targets: Tensor | np.ndarray, *, absent_as_zero: bool = False
) -> float:
    """Computes the mean over classes of :func:`average_precision`, in percent; see :func:`mean_of_classes`."""
    return mean_of_classes(average_precision(scores, targets), absent_as_zero=absent_as_zero)


def mean_of_classes(values: Tensor, *, absent_as_zero: bool = False) -> float:
    """Computes the mean of per-class average precisions (L,) in percent; raises ValueError if all are NaN.

    NaN, for classes without a positive, is ignored, or counts as 0 with ``absent_as_zero``, like in mmpretrain.
    """
    if bool(values.isnan().all()):
        raise ValueError("No class has a positive image: average precision is undefined")
    return 100 * float(values.nan_to_num(0).mean() if absent_as_zero else values.nanmean())


def classification_counts(
    scores: Tensor | np.ndarray,
    targets: Tensor | np.ndarray,
    *,
    threshold: float = 0.5,
    topk: int | None = None,
    absent_as_zero: bool = False,
) -> dict[str, float]:
    """Computes overall (O) and per-class (C) precision, recall and F1 of decisions.

    CP and CR equal scikit-learn's macro averages with ``zero_division=0`` over the classes that have a positive: for
    others recall is undefined. OP, OR and OF1 equal its micro averages over all classes. As in the multi-label
    literature, CF1 is the harmonic mean of CP and CR, not the mean of the F1 of the classes (scikit-learn's macro F1).

    Args:
        scores: (N, L) probabilities.
        targets: (N, L) 1, 0 or -1.
        threshold: Lowest score that counts as a decision for a class.
        topk: Number of classes to decide for per image, by score and without ignored ones, instead of a threshold.
        absent_as_zero: Whether to count classes without a positive as 0 in CP and CR, like mmpretrain.

    Returns:
        ``CP``, ``CR``, ``CF1``, ``OP``, ``OR``, ``OF1`` in percent; all 0 if no class has a positive.

    Raises:
        ValueError: As :func:`average_precision`, and if ``topk`` is not in 1..L.
    """
    scores, targets = _check(scores, targets)
    counted = targets >= 0
    if topk is None:
        chosen = (scores >= threshold) & counted
    elif 1 <= topk <= scores.shape[1]:
        surest = scores.masked_fill(~counted, -torch.inf).topk(topk, dim=1).indices
        chosen = torch.zeros_like(counted).scatter_(1, surest, True) & counted
    else:
        raise ValueError(f"topk must be between 1 and {scores.shape[1]}, the number of classes, got {topk}")
    positive = targets == 1
    right, chosen_per_class, there = (x.sum(0).double() for x in (chosen & positive, chosen, positive))
    num_classes = (there >= 0 if absent_as_zero else there > 0).sum().clamp_min(1)
    # Classes without a positive have no true positives: they add 0 to both sums over classes.
    precisions, recalls = right / chosen_per_class.clamp_min(1), right / there.clamp_min(1)
    metrics = {
        "C": (precisions.sum() / num_classes, recalls.sum() / num_classes),
        "O": (right.sum() / chosen_per_class.sum().clamp_min(1), right.sum() / there.sum().clamp_min(1)),
    }
    result = {}
    for kind, (precision, recall) in metrics.items():
        f1 = 2 * precision * recall / (precision + recall).clamp_min(1e-300)
        for name, value in (("P", precision), ("R", recall), ("F1", f1)):
            result[kind + name] = 100 * float(value)
    return result


class _Curve(NamedTuple):
    """Precision and recall per class, images by descending score."""

    positive: Tensor  # (N, L) whether the image shows the class
    hits: Tensor  # (N, L) number of positives up to the last image of the same score
    precision: Tensor  # (N, L) float64 up to there, without ignored images
    num_positive: Tensor  # (L,)


def _curve(scores: Tensor | np.ndarray, targets: Tensor | np.ndarray) -> _Curve:
    scores, targets = _check(scores, targets)
    ordered, order = scores.sort(dim=0, descending=True)
    targets = targets.gather(0, order)
    positive = targets == 1
    # The row at which the group of equal scores of each row ends.
    rows = torch.arange(len(scores), device=scores.device)[:, None]
    ends = torch.ones_like(positive)
    ends[:-1] = ordered[:-1] != ordered[1:]
    end = torch.where(ends, rows, len(scores)).flip(0).cummin(0).values.flip(0)
    hits = positive.cumsum(0).gather(0, end)
    counted = (targets >= 0).cumsum(0).gather(0, end)
    return _Curve(positive, hits, hits.double() / counted.clamp_min(1), positive.sum(0))


def _check(scores: Tensor | np.ndarray, targets: Tensor | np.ndarray) -> tuple[Tensor, Tensor]:
    scores = torch.as_tensor(scores)
    targets = torch.as_tensor(targets, device=scores.device)
    if scores.ndim != 2 or scores.shape != targets.shape or not len(scores):
        raise ValueError(
            f"scores and targets must both have the shape (images, classes), got {tuple(scores.shape)} and "
            f"{tuple(targets.shape)}"
        )
    if bool(scores.isnan().any()):
        raise ValueError("scores contain NaN: the network has diverged")
    values = targets.unique()
    if not bool(torch.isin(values, values.new_tensor([-1, 0, 1])).all()):
        raise ValueError(f"targets must be 1, 0 or -1 (ignored), got {values[:10].tolist()}")
    return scores, targets
