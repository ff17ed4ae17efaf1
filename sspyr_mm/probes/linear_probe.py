"""Linear classifiers on frozen features: a quick measure of a backbone.

Dimensions: N images, C channels, L classes.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from sspyr_mm.evaluation.metrics import mean_average_precision

L2_GRID = (1e-4, 1e-3, 1e-2, 1e-1)  # weight penalties to try; a held-out fifth of the training images chooses the best


@dataclass(frozen=True)
class ProbeResult:
    """Result of a probe."""

    metric: str  # mAP for several labels per image, top-1 for one
    value: float  # in percent
    l2: float  # chosen penalty
    scores: Tensor  # (N, L) logits of the test images, float64


def linear_probe(
    train: tuple[Tensor, Tensor | np.ndarray],
    test: tuple[Tensor, Tensor | np.ndarray],
    *,
    multi_label: bool,
    l2_grid: Sequence[float] = L2_GRID,
    seed: int = 0,
) -> ProbeResult:
    """Fits a logistic regression on standardised features by L-BFGS to convergence, and measures it on test images.

    ``train`` and ``test`` are features (N, C) and targets (N, L), 1, 0, or -1 to ignore. ``multi_label`` selects one
    sigmoid per class instead of one softmax. ``seed`` draws the images that choose a penalty of ``l2_grid``, if it has
    several; if they show no class, it is the highest.
    """
    features, targets = train[0].double(), torch.as_tensor(train[1]).double()
    order = torch.randperm(len(features), generator=torch.Generator().manual_seed(seed))
    held, kept = order[: len(order) // 5], order[len(order) // 5 :]
    by_penalty = {max(l2_grid): 0.0}
    for l2 in l2_grid if len(l2_grid) > 1 and (targets[held] > 0).any() else ():
        scores = _score(_fit(features[kept], targets[kept], l2, multi_label), features[held])
        by_penalty[l2] = measure_scores(scores, targets[held], multi_label)
    l2 = max(by_penalty, key=by_penalty.__getitem__)
    scores = _score(_fit(features, targets, l2, multi_label), test[0].double())
    value = measure_scores(scores, torch.as_tensor(test[1]).double(), multi_label)
    return ProbeResult("mAP" if multi_label else "top-1", value, l2, scores)


def _fit(features: Tensor, targets: Tensor, l2: float, multi_label: bool) -> tuple[Tensor, ...]:
    """Returns mean and standard deviation of the features, and weight (C, L) and bias (L,) of a classifier."""
    mean, std = features.mean(0), features.std(0).clamp_min(1e-8)
    normed = (features - mean) / std
    weight = features.new_zeros(features.shape[1], targets.shape[1], requires_grad=True)
    bias = features.new_zeros(targets.shape[1], requires_grad=True)
    optimizer = torch.optim.LBFGS([weight, bias], max_iter=200, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        logits = normed @ weight + bias
        if multi_label:
            losses = F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
            loss = (losses * (targets >= 0)).sum(1).mean()
        else:
            loss = F.cross_entropy(logits, targets)
        loss = loss + l2 * weight.square().sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    return mean, std, weight.detach(), bias.detach()


def _score(classifier: tuple[Tensor, ...], features: Tensor) -> Tensor:
    mean, std, weight, bias = classifier
    return (features - mean) / std @ weight + bias


def measure_scores(scores: Tensor, targets: Tensor, multi_label: bool) -> float:
    """Returns mAP, or with one label per image top-1 accuracy, of scores (N, L) and targets (N, L), in percent."""
    if multi_label:
        return mean_average_precision(scores, targets)
    return 100 * float((scores.argmax(1) == targets.argmax(1)).double().mean())
