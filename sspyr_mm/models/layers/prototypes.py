"""Prototypes of one scale."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Prototypes(nn.Module):
    """K learned unit vectors; scores are inner products with them.

    State: ``weight`` (K, D), a parameter. Gradient steps change their length; :meth:`normalize_` restores it.

    Args:
        num_prototypes: K, >= 1.
        dim: D, size of an embedding.

    Raises:
        ValueError: If there is no prototype.

    Source: Algorithm 1, C_s; no bias.
    """

    def __init__(self, num_prototypes: int, dim: int) -> None:
        super().__init__()
        if num_prototypes < 1:
            raise ValueError(f"num_prototypes must be >= 1, got {num_prototypes}; to train without a scale, remove it")
        self.weight = nn.Parameter(F.normalize(torch.randn(num_prototypes, dim), dim=1))

    @property
    def num_prototypes(self) -> int:
        """K."""
        return self.weight.shape[0]

    @torch.no_grad()
    def normalize_(self) -> None:
        """Scales every prototype to unit length, in place."""
        self.weight.copy_(F.normalize(self.weight, dim=1))

    def forward(self, embeddings: Tensor) -> Tensor:
        """Computes scores, before any temperature.

        Args:
            embeddings: (..., D), L2-normalised.

        Returns:
            (..., K).
        """
        return F.linear(embeddings, self.weight)
