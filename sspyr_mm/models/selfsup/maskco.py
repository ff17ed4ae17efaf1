"""MaskCo, a reconstruction: contrast of a masked region with the same region of another view."""

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from mmpretrain.registry import MODELS
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.resnet import Bottleneck

from sspyr_mm.models.layers import build_norm, crop_map, precise
from sspyr_mm.models.selfsup.dense_contrast import last_map
from sspyr_mm.models.selfsup.momentum_contrast import GROUP, Encoder, MoCoV2


@MODELS.register_module()
class MaskCo(MoCoV2):
    """Masked contrast: a region hidden in the query is recognised by its surroundings.

    **Reconstruction from the abstract and figure 3; the authors published no code.** The query's box is filled with the
    mean colour. A prediction head, which the momentum encoder does not have, maps its features to those of images
    without a mask. The regions under the box of both views are pooled, projected and contrasted.

    Args:
        views: Config of the views; the group ``main`` has ``overlap``.
        backbone: Config of a backbone that returns a map.
        neck: Config of an :class:`MLPProjector`.
        head: Config of a :class:`ContrastHead`.
        data_preprocessor: Config of :class:`PyramidAugment`.
        channels: Channels of the backbone's last map, a multiple of 4.
        norm_cfg: Normalisation of the prediction head.
        num_blocks: Bottleneck blocks of the prediction head, which starts as the identity.
        size: Side of the resampled region in cells.
        **kwargs: Arguments of :class:`ViewModel`.

    Source: Zhao et al., arXiv 2108.07954, abstract and figure 3.
    """

    def __init__(
        self,
        views: Mapping[str, Any],
        backbone: dict,
        neck: dict,
        head: dict,
        data_preprocessor: dict | None = None,
        *,
        channels: int = 2048,
        norm_cfg: Mapping[str, Any] = {"type": "GroupedBN", "group_size": 32},
        num_blocks: int = 2,
        size: int = 3,
        **kwargs: Any,
    ) -> None:
        super().__init__(views, backbone, neck, head, data_preprocessor, **kwargs)
        self.size = size
        norm = partial(build_norm, norm_cfg)
        blocks = [Bottleneck(channels, channels // 4, norm_layer=norm) for _ in range(num_blocks)]
        for block in blocks:
            nn.init.zeros_(block.bn3.weight)
        self.mask_predictor = nn.Sequential(*blocks)

    def embed(self, encoder: Encoder, images: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Embeds the regions of one view of a batch: masked ones by the trained encoder, whole ones by the momentum's.

        Args:
            encoder: ``backbone`` and ``neck``.
            images: ``main`` (B, 1, 3, P, P) and ``main_boxes`` (B, 1, 4).

        Returns:
            ``main``: (B, D) of unit length.
        """
        patches, boxes = images[GROUP].flatten(0, 1), images[f"{GROUP}_boxes"][:, 0]
        is_query = encoder is not self.momentum
        feats = self.encode(mask(patches, boxes) if is_query else patches, encoder["backbone"], reduce=last_map)
        if is_query:
            feats = self.mask_predictor(feats)
        region = crop_map(feats, boxes, patches.shape[-1], size=self.size)
        return {"main": F.normalize(precise(encoder["neck"](region.mean(dim=(2, 3)))), dim=1)}


def mask(patches: Tensor, boxes: Tensor) -> Tensor:
    """Fills boxes with zero, the mean colour of normalised patches.

    Args:
        patches: (N, 3, P, P).
        boxes: (N, 4) in pixels; pixels whose centre is inside are filled.

    Returns:
        (N, 3, P, P).
    """
    centre = torch.arange(patches.shape[-1], device=patches.device) + 0.5
    left, top, right, bottom = boxes[..., None].unbind(1)
    rows, columns = (centre > top) & (centre < bottom), (centre > left) & (centre < right)
    return patches.masked_fill((rows[:, :, None] & columns[:, None])[:, None], 0)
