"""Prediction of scale 0's codes from the patches of a finer scale."""

from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

CorrelationInput = Literal["probabilities", "scores"]
"""Quantity averaged over the patches of an image: softmax of the scores (paper), or the scores (official)."""


class CorrelationLearner(nn.Module):
    """g_s: one linear layer from K_s to K_0, followed by a log-softmax over K_0.

    Args:
        num_prototypes: K_s of the finer scale.
        num_targets: K_0.
        source: Input of the layer. ``probabilities`` (paper):
            ``log_softmax(W mean_m softmax(scores / tau) + b)``. ``scores`` (official):
            ``log_softmax(W normalise(mean_m scores) / tau)`` with unit-length rows of W and no bias.
        temperature: tau, > 0.

    Raises:
        ValueError: If ``source`` is unknown.

    Source: Algorithm 1, g_{phi,s} and Avg; official code, ``l2g_ptypes``.
    """

    def __init__(
        self,
        num_prototypes: int,
        num_targets: int,
        *,
        source: CorrelationInput = "probabilities",
        temperature: float = 0.1,
    ) -> None:
        super().__init__()
        if source not in get_args(CorrelationInput):
            raise ValueError(f"source must be one of {get_args(CorrelationInput)}, got {source!r}")
        self.source = source
        self.temperature = temperature
        self.linear = nn.Linear(num_prototypes, num_targets, bias=source == "probabilities")
        self.normalize_()

    @torch.no_grad()
    def normalize_(self) -> None:
        """Scales the rows of W to unit length, in place, if ``source`` is ``scores``."""
        if self.source == "scores":
            self.linear.weight.copy_(F.normalize(self.linear.weight, dim=1))

    def forward(self, scores: Tensor) -> Tensor:
        """Predicts the log-distribution over scale 0's prototypes.

        Args:
            scores: (..., M, K_s) scores of the M patches of each image, before temperature.

        Returns:
            (..., K_0) log-probabilities.
        """
        if self.source == "probabilities":
            return F.log_softmax(self.linear((scores / self.temperature).softmax(-1).mean(-2)), dim=-1)
        return F.log_softmax(self.linear(F.normalize(scores.mean(-2), dim=-1)) / self.temperature, dim=-1)
