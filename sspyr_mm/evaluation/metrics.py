"""Metrics of multi-label classification, with entries that don't count.

Dimensions: N images, L classes. Targets are 1 (shown), 0 (not) or -1 (ignored: as if the image were not there, for this
class).
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor


def average_precision(scores: Tensor | np.ndarray, targets: Tensor | np.ndarray) -> Tensor:
    """Non-interpolated average precision of each class, as scikit-learn's ``average_precision_score``.

    Images of equal score count as one step of the curve: the result does not depend on their order.

    Args:
        scores: (N, L), higher is surer.
        targets: (N, L) 1, 0 or -1.

    Returns:
        (L,) float64 in 0..1; NaN for classes without a positive, of which it is not defined.

    Raises:
        ValueError: If shapes differ, a score is NaN, or a target is none of 1, 0, -1.
    """
    curve = _curve(scores, targets)
    total = (curve.positive * curve.precision).sum(0)
    return torch.where(curve.num_positive > 0, total / curve.num_positive, torch.nan)


def voc11_average_precision(scores: Tensor | np.ndarray, targets: Tensor | np.ndarray) -> Tensor:
    """The 11-point average precision of VOC 2007: mean of the best precision at recalls of at least 0, .1, ..., 1.

    Args:
        scores: (N, L), higher is surer.
        targets: (N, L) 1, 0 or -1 (difficult).

    Returns:
        (L,) float64 in 0..1; NaN for classes without a positive.

    Raises:
        ValueError: As :func:`average_precision`.

    Deviation:
        The devkit takes images of equal score in an order that it leaves open; here they are one step of the curve.
    """
    curve = _curve(scores, targets)
    total = torch.zeros_like(curve.precision[0])
    for tenths in range(11):
        # In integers: .3 of 10 positives are 3, whatever floating point makes of it.
        reached = 10 * curve.hits >= tenths * curve.num_positive
        total += (curve.precision * reached).amax(0)
    return torch.where(curve.num_positive > 0, total / 11, torch.nan)


def mean_average_precision(
    scores: Tensor | np.ndarray,
    targets: Tensor | np.ndarray,
    *,
    absent_as_zero: bool = False,
) -> float:
    """Mean over classes of the non-interpolated average precision.

    Args:
        scores: (N, L), higher is surer.
        targets: (N, L) 1, 0 or -1.
        absent_as_zero: Count classes without a positive as 0, as mmpretrain does; default: leave them out.

    Returns:
        Percent.

    Raises:
        ValueError: If no class has a positive, and as :func:`average_precision`.
    """
    return mean_of_classes(average_precision(scores, targets), absent_as_zero=absent_as_zero)


def mean_of_classes(values: Tensor, *, absent_as_zero: bool = False) -> float:
    """Mean of :func:`average_precision` or :func:`voc11_average_precision` in percent.

    Args:
        values: (L,), NaN for classes without a positive.
        absent_as_zero: Whether these count as 0; default: they are left out.

    Returns:
        Percent.

    Raises:
        ValueError: If all are NaN.
    """
    if bool(values.isnan().all()):
        raise ValueError("No class has a positive image: average precision is not defined")
    return 100 * float(values.nan_to_num(0).mean() if absent_as_zero else values.nanmean())


def classification_counts(
    scores: Tensor | np.ndarray,
    targets: Tensor | np.ndarray,
    *,
    threshold: float = 0.5,
    topk: int | None = None,
    absent_as_zero: bool = False,
) -> dict[str, float]:
    """Overall (O) and per-class (C) precision, recall and F1 of decisions.

    CP and CR are means over the classes that have a positive, as :func:`mean_average_precision` is: of others recall is
    not defined. A class that is never predicted has precision 0 and stays in the mean. Over these classes CP and CR
    equal scikit-learn's macro averages with ``zero_division=0``; OP, OR and OF1 equal its micro averages over all
    classes, wrong decisions for absent ones included. CF1 is, as in the multi-label literature, the harmonic mean of
    CP and CR, and not the mean of the classes' F1 (scikit-learn's macro F1).

    Args:
        scores: (N, L) probabilities.
        targets: (N, L) 1, 0 or -1.
        threshold: Scores of at least this are decisions for a class.
        topk: Decide for the k surest classes of each image that are not ignored, instead.
        absent_as_zero: Count classes without a positive as 0 in CP and CR, as mmpretrain does; default: leave them out.

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
        raise ValueError(f"topk must be from 1 to the {scores.shape[1]} classes, got {topk}")
    positive = targets == 1
    right, chosen_per_class, there = (x.sum(0).double() for x in (chosen & positive, chosen, positive))
    num_classes = (there >= 0 if absent_as_zero else there > 0).sum().clamp_min(1)
    figures = {
        # Classes without a positive have nothing right: they add 0 to both sums.
        "C": (
            (right / chosen_per_class.clamp_min(1)).sum() / num_classes,
            (right / there.clamp_min(1)).sum() / num_classes,
        ),
        "O": (
            right.sum() / chosen_per_class.sum().clamp_min(1),
            right.sum() / there.sum().clamp_min(1),
        ),
    }
    result = {}
    for kind, (precision, recall) in figures.items():
        f1 = 2 * precision * recall / (precision + recall).clamp_min(1e-300)
        for name, figure in (("P", precision), ("R", recall), ("F1", f1)):
            result[kind + name] = 100 * float(figure)
    return result


@dataclass(frozen=True)
class _Curve:
    """Precision and recall, class by class, images from the surest on.

    Args:
        positive: (N, L) whether the image shows the class.
        hits: (N, L) positives up to the end of the image's group of equal scores.
        precision: (N, L) float64 there; ignored images don't count.
        num_positive: (L,) positives in all.
    """

    positive: Tensor
    hits: Tensor
    precision: Tensor
    num_positive: Tensor


def _curve(scores: Tensor | np.ndarray, targets: Tensor | np.ndarray) -> _Curve:
    scores, targets = _check(scores, targets)
    ordered, order = scores.sort(dim=0, descending=True)
    targets = targets.gather(0, order)
    positive = targets == 1
    # The row at which each group of equal scores ends: the next end, looking on from every row.
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
            f"scores and targets must be (images, classes) and equal, got {tuple(scores.shape)} and "
            f"{tuple(targets.shape)}"
        )
    if bool(scores.isnan().any()):
        raise ValueError("scores hold NaN: the network's output or its loss has diverged")
    values = targets.unique()
    if not bool(torch.isin(values, values.new_tensor([-1, 0, 1])).all()):
        raise ValueError(f"targets must be 1, 0 or -1 (ignored), got {values[:10].tolist()}")
    return scores, targets
