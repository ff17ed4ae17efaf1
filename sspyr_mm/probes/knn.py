"""Classification by nearest neighbours, with one or several labels per image."""

import torch
from torch import Tensor
from torch.nn import functional as F

_CHUNK = 1024
"""Queries that are compared at a time."""


def knn_scores(features: Tensor, targets: Tensor, queries: Tensor, *, k: int = 20, temperature: float = 0.07) -> Tensor:
    """Scores each class by the k nearest of labelled features, weighted by ``exp(cosine / temperature)``.

    Args:
        features: (N, C), labelled.
        targets: (N, L): 1 shown; 0 or -1 otherwise.
        queries: (Q, C).
        k: Number of neighbours; all N if there are fewer.
        temperature: Temperature of the weights.

    Returns:
        (Q, L) from 0 to 1: the share of the weights of the neighbours that show the class.

    Source: Wu et al., Unsupervised Feature Learning via Non-Parametric Instance Discrimination, equation 9.
    Deviation: several labels per image, and weights relative to their sum.
    """
    shown = (targets > 0).to(features.dtype)
    keys = F.normalize(features, dim=1)
    scores = []
    for chunk in F.normalize(queries, dim=1).split(_CHUNK):
        cosines, nearest = (chunk @ keys.T).topk(min(k, len(keys)), dim=1)
        weights = torch.softmax(cosines / temperature, dim=1)
        scores.append(torch.einsum("qk,qkl->ql", weights, shown[nearest]))
    return torch.cat(scores)
