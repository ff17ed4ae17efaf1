"""Projectors of the levels of a backbone, for whole images and for the patches of a jigsaw."""

from collections.abc import Sequence

import torch
from mmengine.model import BaseModule
from mmpretrain.registry import MODELS
from torch import Tensor, nn

from sspyr_mm.models.layers import build_mlp


@MODELS.register_module()
class LevelProjectors(BaseModule):
    """Two MLPs per level: one for the features of an image, one for the concatenated features of its patches.

    Args:
        in_channels: Channels of the levels.
        hid_channels: Width of all hidden layers; None: the width of the input.
        out_channels: D, size of an embedding.
        num_patches: M, patches of a jigsaw.
        init_cfg: Config of the initialisation; default: torch's own.

    Source: DetCo, section 3.2 and figure 2. The width of the hidden layers is not published.
    """

    def __init__(
        self,
        in_channels: Sequence[int] = (256, 512, 1024, 2048),
        hid_channels: int | None = 2048,
        out_channels: int = 128,
        *,
        num_patches: int = 9,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg)
        self.in_channels = tuple(in_channels)
        self.num_patches = num_patches
        local = [num_patches * c for c in in_channels]
        self.global_mlps = nn.ModuleList(build_mlp(c, hid_channels or c, out_channels) for c in in_channels)
        self.local_mlps = nn.ModuleList(build_mlp(c, hid_channels or c, out_channels) for c in local)

    def forward(self, images: Tensor, patches: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Projects pooled features; embeddings are not normalised.

        Args:
            images: (B, sum of in_channels), the levels of whole images.
            patches: (B, M, sum of in_channels), those of patches.

        Returns:
            Per level, (B, D) of images and of patches.
        """
        if images.shape[-1] != sum(self.in_channels):
            raise ValueError(
                f"The backbone gives {images.shape[-1]} channels, but neck.in_channels are {self.in_channels}: set "
                "backbone.out_indices=(0, 1, 2, 3) and the channels of its levels"
            )
        wholes = images.split(self.in_channels, dim=-1)
        parts = patches.split(self.in_channels, dim=-1)
        return (
            [mlp(x) for mlp, x in zip(self.global_mlps, wholes, strict=True)],
            [mlp(torch.flatten(x, 1)) for mlp, x in zip(self.local_mlps, parts, strict=True)],
        )
