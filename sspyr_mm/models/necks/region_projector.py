"""Feature pyramid and projection of the region under a box, at every level."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from mmengine.model import BaseModule
from mmpretrain.registry import MODELS
from torch import Tensor, nn
from torchvision.ops import FeaturePyramidNetwork

from sspyr_mm.models.layers import build_norm, crop_map, rows_per_image


@MODELS.register_module()
class RegionProjector(BaseModule):
    """FPN, and one head for all its levels: RoIAlign, convolutions, three linear layers.

    Args:
        in_channels: Channels of the backbone's levels.
        channels: Channels of the FPN and of the convolutions.
        hid_channels: Width of the first two linear layers.
        out_channels: D, size of an embedding.
        num_convs: Number of 3 x 3 convolutions.
        size: Side of the resampled region in cells.
        norm_cfg: Normalisation behind every convolution.
        init_cfg: Config of the initialisation.

    Source: InstanceLoc, section 3.2, and the FPN variant of its code.
    """

    def __init__(
        self,
        in_channels: Sequence[int] = (256, 512, 1024, 2048),
        channels: int = 256,
        hid_channels: int = 1024,
        out_channels: int = 128,
        *,
        num_convs: int = 4,
        size: int = 7,
        norm_cfg: Mapping[str, Any] = {"type": "GroupedBN", "group_size": 32},
        init_cfg: dict | list | None = None,
    ) -> None:
        super().__init__(init_cfg)
        norm = partial(build_norm, norm_cfg)
        self.in_channels = tuple(in_channels)
        self.size = size
        self.fpn = FeaturePyramidNetwork(list(in_channels), channels, norm_layer=norm)
        convs = [
            nn.Sequential(
                nn.Conv2d(channels, channels, 3, padding=1, bias=False), norm(channels), nn.ReLU(inplace=True)
            )
            for _ in range(num_convs)
        ]
        last = nn.Linear(hid_channels, out_channels)
        self.head = nn.Sequential(
            *convs,
            nn.Flatten(),
            nn.Linear(channels * size**2, hid_channels),
            nn.ReLU(inplace=True),
            nn.Linear(hid_channels, hid_channels),
            nn.ReLU(inplace=True),
            last,
        )
        for layer in self.head.modules():
            if isinstance(layer, nn.Linear):
                nn.init.xavier_uniform_(layer.weight)
                nn.init.zeros_(layer.bias)
        nn.init.normal_(last.weight, std=0.01)

    def forward(self, feats: Sequence[Tensor], boxes: Sequence[Tensor], side: int) -> list[Tensor]:
        """Projects one region per image and level; embeddings are not normalised.

        Args:
            feats: Levels (B, C_i, H_i, W_i).
            boxes: Per level, (B, 4) in pixels.
            side: Side of the images in pixels.

        Returns:
            Per level, (B, D).
        """
        if (given := tuple(x.shape[1] for x in feats)) != self.in_channels:
            raise ValueError(
                f"The backbone gives levels of {given} channels, but neck.in_channels are {self.in_channels}: set "
                "backbone.out_indices=(0, 1, 2, 3) and the channels of its levels"
            )
        levels = self.fpn({str(i): x for i, x in enumerate(feats)}).values()
        regions = [crop_map(x, b, side, size=self.size) for x, b in zip(levels, boxes, strict=True)]
        # The levels of an image are consecutive rows, which share the group of the image in norm layers.
        stacked = torch.stack(regions, dim=1)
        with rows_per_image(len(regions)):
            z = self.head(stacked.flatten(0, 1))
        return list(z.unflatten(0, stacked.shape[:2]).unbind(1))
