"""Nearest neighbours equal a plain loop in float64."""

import numpy as np
import pytest
import torch

from sspyr_mm.probes import knn, knn_scores


def expected(features, targets, queries, k, temperature):
    features, queries = (
        x.double().numpy() / np.linalg.norm(x.double().numpy(), axis=1)[:, None] for x in (features, queries)
    )
    rows = []
    for query in queries:
        cosines = features @ query
        nearest = sorted(range(len(features)), key=lambda i: -cosines[i])[:k]
        weights = [np.exp(cosines[i] / temperature) for i in nearest]
        rows.append(sum(w * (targets[i].numpy() == 1) for w, i in zip(weights, nearest, strict=True)) / sum(weights))
    return np.array(rows)


@pytest.mark.parametrize("k", [1, 5, 1000])
def test_scores_are_weighted_shares_of_neighbours(k, monkeypatch):
    monkeypatch.setattr(knn, "_CHUNK", 4)
    torch.manual_seed(0)
    features, queries = torch.randn(30, 8) * 3, torch.randn(9, 8)
    targets = torch.randint(-1, 2, (30, 5), dtype=torch.int8)  # -1: ignored
    found = knn_scores(features, targets, queries, k=k, temperature=0.1)
    assert np.allclose(found, expected(features, targets, queries, k, 0.1), atol=1e-5)
    assert found.max() > 0.1


def test_known_image_has_its_own_labels():
    features, targets = torch.eye(6), torch.eye(6, dtype=torch.int8)
    assert torch.equal(knn_scores(features, targets, 7 * features, k=1), torch.eye(6))
