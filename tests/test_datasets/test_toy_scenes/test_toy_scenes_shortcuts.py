"""Colours and coarse layout do not reveal the classes of toy scenes.

The mAP of a linear probe on such features stays within ``MARGIN`` points of guessing. On the true kind of the scene it
does not, so the probe finds the information that exists.
"""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from sspyr_mm.datasets.toy_scenes import CLASSES, KINDS, Scene, draw_scene

NUM_TRAIN, NUM_VAL = 1500, 1000
# Points of mAP above guessing.
MARGIN = 3.0
MARGIN_KIND = 15.0


@pytest.fixture(scope="module")
def scenes() -> list[Scene]:
    count = NUM_TRAIN + NUM_VAL
    return [draw_scene(np.random.default_rng([21, index]), (96, 96)) for index in range(count)]


@pytest.fixture(scope="module")
def labels(scenes: list[Scene]) -> Tensor:
    present = torch.zeros(len(scenes), len(CLASSES))
    for row, drawn in zip(present, scenes, strict=True):
        row[[item.label for item in drawn.objects]] = 1.0
    return present


def mean_ap(scores: Tensor, labels: Tensor) -> float:
    """Returns the mAP in points; ``scores`` and ``labels`` are (N, K)."""
    return 100.0 * float(average_precision_score(labels.numpy(), scores.numpy(), average="macro"))


def probe(features: np.ndarray, labels: Tensor) -> float:
    """Returns the mAP of the best of several L2-regularised logistic regressions on the held-out rows.

    The penalty is chosen on the held-out rows, which favours the shortcut.
    """
    x = torch.as_tensor(features, dtype=torch.float32)
    x = (x - x[:NUM_TRAIN].mean(0)) / (x[:NUM_TRAIN].std(0) + 1e-4)
    best = 0.0
    for penalty in (1e-3, 1e-2, 1e-1, 1.0):
        weight = torch.zeros(x.shape[1], labels.shape[1], requires_grad=True)
        bias = torch.zeros(labels.shape[1], requires_grad=True)
        optimizer = torch.optim.LBFGS([weight, bias], max_iter=50, line_search_fn="strong_wolfe")

        def closure() -> Tensor:
            optimizer.zero_grad()  # noqa: B023 (called at once)
            logits = x[:NUM_TRAIN] @ weight + bias  # noqa: B023
            loss = binary_cross_entropy_with_logits(logits, labels[:NUM_TRAIN]) * labels.shape[1]
            loss = loss + penalty * weight.square().sum()  # noqa: B023
            loss.backward()
            return loss

        optimizer.step(closure)
        scores = (x[NUM_TRAIN:] @ weight + bias).detach()
        best = max(best, mean_ap(scores, labels[NUM_TRAIN:]))
    return best


def colour_histogram(image: np.ndarray) -> np.ndarray:
    """Returns square roots of 16 bins per channel and of a joint histogram of 4 x 4 x 4 bins, (112,)."""
    single = [np.bincount(image[..., c].ravel() // 16, minlength=16) for c in range(3)]
    coarse = (image // 64).reshape(-1, 3).astype(int)
    joint = np.bincount(coarse @ np.array([16, 4, 1]), minlength=64)
    return np.sqrt(np.concatenate([*single, joint]) / coarse.shape[0])


def tiny_pixels(image: np.ndarray) -> np.ndarray:
    """Returns the image at 8 x 8 pixels, (192,)."""
    return cv2.resize(image, (8, 8), interpolation=cv2.INTER_AREA).ravel() / 255.0


@pytest.fixture(scope="module")
def guessing(labels: Tensor) -> float:
    """Returns the mAP of random scores."""
    generator = torch.Generator().manual_seed(0)
    draws = [torch.rand(labels[NUM_TRAIN:].shape, generator=generator) for _ in range(20)]
    return sum(mean_ap(scores, labels[NUM_TRAIN:]) for scores in draws) / len(draws)


@pytest.mark.slow
@pytest.mark.parametrize("feature", [colour_histogram, tiny_pixels])
def test_colours_and_layout_do_not_reveal_the_classes(
    feature: object, scenes: list[Scene], labels: Tensor, guessing: float
) -> None:
    assert callable(feature)
    features = np.stack([feature(drawn.image) for drawn in scenes])
    assert probe(features, labels) < guessing + MARGIN


@pytest.mark.slow
def test_kind_of_scene_reveals_part_of_the_classes(scenes: list[Scene], labels: Tensor, guessing: float) -> None:
    kinds = np.eye(len(KINDS))[[drawn.kind for drawn in scenes]]
    assert guessing + MARGIN_KIND < probe(kinds, labels) < 60.0
