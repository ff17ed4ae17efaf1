"""Probes of problems with a known answer."""

import numpy as np
import pytest
import torch

from sspyr_mm.evaluation import linear_probe


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


def test_ignored_targets_neither_teach_nor_count():
    generator = torch.Generator().manual_seed(2)
    features = torch.randn(400, 6, generator=generator)
    targets = (features[:, :2] > 0).to(torch.int8).numpy()
    wrong = torch.rand(400, 2, generator=generator).numpy() < 0.4
    lied, ignored = targets.copy(), targets.copy()
    lied[wrong] = 1 - targets[wrong]
    ignored[wrong] = -1

    def probe(labels):
        parts = (features[:300], labels[:300]), (features[300:], labels[300:])
        return linear_probe(*parts, multi_label=True).value

    assert probe(ignored) > 97 > 90 > probe(lied)
