"""Linear probes of problems with a known result."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score

from sspyr_mm.probes import linear_probe


@pytest.mark.parametrize("multi_label", [True, False])
def test_probe_learns_a_linear_rule_but_not_noise(multi_label):
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


def noisy_problem(seed, num_channels):
    """100 training and 300 test images; the first channels are weakly related to the classes."""
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(400, num_channels, generator=generator)
    noise = 2 * torch.randn(400, 3, generator=generator)
    return features, features[:, :3] + noise


@pytest.mark.parametrize("l2", [1e-3, 1e-1])
@pytest.mark.parametrize("multi_label", [True, False])
def test_classifier_equals_scikit_learn_on_standardised_features(multi_label, l2):
    """The final classifier trains on all training images, and channels may have any scale."""
    features, logits = noisy_problem(0, 20)
    features = features * torch.logspace(-2, 2, 20) + 5
    classes = logits.argmax(1).numpy()
    targets = (logits > 0).long().numpy() if multi_label else np.eye(3, dtype=int)[classes]
    parts = (features[:100], targets[:100]), (features[100:], targets[100:])
    found = linear_probe(*parts, multi_label=multi_label, l2_grid=(l2,)).value

    train = features[:100].double()
    normed = ((features.double() - train.mean(0)) / train.std(0)).numpy()
    options = dict(C=1 / (2 * l2 * 100), tol=1e-10, max_iter=10_000)
    if multi_label:
        columns = [LogisticRegression(**options).fit(normed[:100], t[:100]) for t in targets.T]
        scores = np.stack([column.decision_function(normed[100:]) for column in columns], 1)
        assert found == pytest.approx(100 * average_precision_score(targets[100:], scores))
    else:
        model = LogisticRegression(**options).fit(normed[:100], classes[:100])
        right = model.predict(normed[100:]) == classes[100:]
        assert found == pytest.approx(100 * right.mean())


@pytest.mark.parametrize("seed", range(3))
def test_penalty_is_chosen_on_held_out_images(seed):
    """With more channels than images, a classifier without a penalty overfits."""
    features, logits = noisy_problem(seed, 150)
    targets = (logits > 0).long().numpy()
    parts = (features[:100], targets[:100]), (features[100:], targets[100:])
    found = linear_probe(*parts, multi_label=True, l2_grid=(1e-6, 1.0), seed=seed)
    assert found.l2 == 1.0
    seen = linear_probe(parts[0], parts[0], multi_label=True, l2_grid=(1e-6,), seed=seed)
    assert seen.value == pytest.approx(100)


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


def test_ignored_targets_affect_neither_training_nor_the_metric():
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
