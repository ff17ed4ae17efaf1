"""A frozen backbone: images in, one vector each out."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from sspyr_mm.models.layers import pool


class FrozenEncoder(nn.Module):
    """A backbone in evaluation mode with the normalisation it was trained with.

    Args:
        backbone: Any mmpretrain backbone.
        mean: Per channel (RGB), in 0-255.
        std: Per channel (RGB), in 0-255.
        identity: Key of stored features, such as the hash of its checkpoint.
        decoding: Options of ``LoadRGBImage`` it was trained with.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        backbone: nn.Module,
        mean: Sequence[float],
        std: Sequence[float],
        *,
        identity: str,
        decoding: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.identity = identity
        self.decoding = dict(decoding or {})
        self.register_buffer("mean", torch.tensor(mean).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(3, 1, 1), persistent=False)
        self.eval().requires_grad_(False)

    def train(self, mode: bool = True) -> "FrozenEncoder":
        """Stays in evaluation mode."""
        return super().train(False)

    @torch.inference_mode()
    def forward(self, images: Tensor) -> Tensor:
        """Features of a batch.

        Args:
            images: (N, 3, H, W) uint8, RGB.

        Returns:
            (N, C) float32: the last stage, averaged over space or tokens.
        """
        return pool(self.backbone((images.float() - self.mean) / self.std)).float()
