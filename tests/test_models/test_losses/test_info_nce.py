"""InfoNCE against a float64 implementation, and its known values."""

import math

import pytest
import torch
from references.contrast import nce, nce_gradient
from torch.nn import functional as F

from sspyr_mm.models.losses import info_nce


def unit(*shape, seed):
    return F.normalize(torch.randn(shape, generator=torch.Generator().manual_seed(seed)), dim=-1)


@pytest.mark.parametrize("temperature", [0.07, 0.2, 1.0])
@pytest.mark.parametrize(("num", "length"), [(5, 7), (1, 1), (6, 30)])
def test_value_and_gradient_equal_the_reference(num, length, temperature):
    queries, keys, negatives = unit(num, 8, seed=0), unit(num, 8, seed=1), unit(length, 8, seed=2)
    queries.requires_grad_()
    loss = info_nce(queries, keys, negatives, temperature=temperature)
    loss.backward()
    assert loss.item() == pytest.approx(nce(queries, keys, negatives, temperature).item(), rel=1e-6)
    wanted = nce_gradient(queries, keys, negatives, temperature)
    torch.testing.assert_close(queries.grad.double(), wanted, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("rows", [1, 3, 4, 10])
def test_chunks_of_queries_change_nothing(monkeypatch, rows):
    queries, keys, negatives = unit(10, 8, seed=0), unit(10, 8, seed=1), unit(13, 8, seed=2)
    results = []
    for limit in (2**28, 4 * 14 * rows):
        monkeypatch.setattr("sspyr_mm.models.losses.contrast._CHUNK_BYTES", limit)
        given = queries.clone().requires_grad_()
        loss = info_nce(given, keys, negatives, temperature=0.2)
        loss.backward()
        results.append((loss.detach(), given.grad))
    torch.testing.assert_close(results[0], results[1], atol=1e-6, rtol=1e-6)


def test_equal_embeddings_cost_the_logarithm_of_the_candidates():
    same = torch.eye(1, 128).expand(4, -1)
    loss = info_nce(same, same, same[:1].expand(65536, -1), temperature=0.2)
    assert loss.item() == pytest.approx(math.log(1 + 65536), abs=1e-3)
    assert loss.item() == pytest.approx(11.0904, abs=1e-3)


def test_known_values_with_a_random_queue():
    """Unrelated keys: ln L + 1 / (2 D T^2); in the first step queries and keys are alike: 1 / T less."""
    negatives = unit(65536, 128, seed=0)
    unrelated = info_nce(unit(64, 128, seed=1), unit(64, 128, seed=2), negatives, temperature=0.2)
    assert unrelated.item() == pytest.approx(math.log(65536) + 1 / (2 * 128 * 0.2**2), abs=0.1)
    alike = unit(64, 128, seed=1)
    assert info_nce(alike, alike, negatives, temperature=0.2).item() == pytest.approx(6.19, abs=0.03)
