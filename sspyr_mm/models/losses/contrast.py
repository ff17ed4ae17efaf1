"""Losses of the momentum methods: contrast with a queue of negatives, and regression.

Dimensions: N queries, L negatives, D channels.
"""

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

_CHUNK_BYTES = 2**26
"""Largest size of the logits of a chunk of queries; a step needs about four times as much."""


def info_nce(queries: Tensor, keys: Tensor, negatives: Tensor, *, temperature: float) -> Tensor:
    """Computes the mean cross-entropy of identifying the key of a query among the negatives.

    ``mean_i log(exp(q_i.k_i / T) + sum_j exp(q_i.n_j / T)) - q_i.k_i / T``. Logits of many queries are computed in
    chunks, and again in the backward pass, so that they need about 256 MB at a time.

    Args:
        queries: (N, D) of unit length, float32.
        keys: (N, D) of unit length, no gradient.
        negatives: (L, D) of unit length, no gradient.
        temperature: T, > 0.

    Returns:
        Scalar; ln(1 + L) if all embeddings are equal.

    Source: MoCo, equation 1.
    """
    rows = max(1, _CHUNK_BYTES // (4 * (len(negatives) + 1)))
    if len(queries) <= rows:
        return _summed(queries, keys, negatives, temperature) / len(queries)
    parts = [
        checkpoint(_summed, q, k, negatives, temperature, use_reentrant=False)
        for q, k in zip(queries.split(rows), keys.split(rows), strict=True)
    ]
    return torch.stack(parts).sum() / len(queries)


def _summed(queries: Tensor, keys: Tensor, negatives: Tensor, temperature: float) -> Tensor:
    positive = (queries * keys).sum(1) / temperature
    # Not one matrix with the positives: its copy, and that of its division, would each be as large.
    others = F.linear(queries / temperature, negatives).logsumexp(1)
    return (torch.logaddexp(others, positive) - positive).sum()


def regression(predictions: Tensor, targets: Tensor) -> Tensor:
    """Computes the mean squared distance of normalised vectors, ``2 - 2 cos``.

    Args:
        predictions: (N, D).
        targets: (N, D), no gradient.

    Returns:
        Scalar in [0, 4]; 2 for unrelated vectors.

    Source: BYOL, equation 2.
    """
    return (2 - 2 * F.cosine_similarity(predictions, targets, dim=1)).mean()
