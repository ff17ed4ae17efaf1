"""Probe and metric: against scikit-learn's definition, written out, and on problems with a known answer."""

import numpy as np
import pytest
import torch

from sspyr_mm.evaluation import linear_probe, mean_average_precision


def average_precision(scores, targets):
    """Non-interpolated: the mean, over positives, of precision at the positive's rank."""
    order = np.argsort(-scores, kind="stable")
    hits = targets[order]
    precision = np.cumsum(hits) / np.arange(1, len(hits) + 1)
    return precision[hits == 1].mean()


def test_map_is_the_non_interpolated_average_precision():
    rng = np.random.default_rng(0)
    scores, targets = rng.normal(size=(200, 7)), (rng.random((200, 7)) < 0.2).astype(int)
    expected = 100 * np.mean([average_precision(scores[:, c], targets[:, c]) for c in range(7)])
    measured = mean_average_precision(torch.tensor(scores), torch.tensor(targets))
    assert measured == pytest.approx(expected, abs=1e-6)


def test_map_leaves_out_classes_without_a_positive():
    scores = torch.tensor([[3.0, 1.0], [2.0, 2.0], [1.0, 3.0]])
    targets = torch.tensor([[0, 0], [1, 0], [0, 0]])
    assert mean_average_precision(scores, targets) == pytest.approx(50.0)
    with pytest.raises(ValueError, match="No class has a positive image"):
        mean_average_precision(scores, torch.zeros_like(targets))


@pytest.mark.parametrize("multi_label", [True, False])
def test_probe_finds_a_linear_rule_and_only_that(multi_label):
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(600, 10, generator=generator) * torch.logspace(-2, 2, 10) + 5
    signal = (features - features.mean(0)) / features.std(0)
    if multi_label:
        targets = (signal[:, :3] > 0).long().numpy()
        noise = (torch.randn(600, 3, generator=generator) > 0).long().numpy()
    else:
        targets = np.eye(3, dtype=int)[signal[:, :3].argmax(1).numpy()]
        noise = np.eye(3, dtype=int)[torch.randint(3, (600,), generator=generator).numpy()]

    def probe(labels):
        parts = (features[:400], labels[:400]), (features[400:], labels[400:])
        return linear_probe(*parts, multi_label=multi_label)

    good, bad = probe(targets), probe(noise)
    assert good.metric == ("mAP" if multi_label else "top-1")
    assert good.value > 95
    assert bad.value < (62 if multi_label else 45)


def test_penalty_is_chosen_without_the_test_images():
    generator = torch.Generator().manual_seed(1)
    features = torch.randn(100, 60, generator=generator)
    targets = (features[:, :1] + 0.5 * torch.randn(100, 1, generator=generator) > 0).long()
    train = (features[:50], targets[:50].numpy())
    results = {
        linear_probe(train, (features[50:], labels), multi_label=True).l2
        for labels in (targets[50:].numpy(), 1 - targets[50:].numpy())
    }
    assert len(results) == 1
