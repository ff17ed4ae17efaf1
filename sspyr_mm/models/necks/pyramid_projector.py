"""One projection MLP per scale, onto the unit sphere."""

from collections.abc import Mapping
from typing import Any

from mmengine.model import BaseModule
from mmpretrain.registry import MODELS
from torch import Tensor, nn
from torch.nn import functional as F

from sspyr_mm.models.layers import build_mlp
from sspyr_mm.pyramid import PyramidSpec


@MODELS.register_module()
class PyramidProjector(BaseModule):
    """Linear, norm, ReLU, Linear and L2 normalisation, with separate weights at every scale.

    Args:
        pyramid: Config of the pyramid, or a spec.
        in_channels: Channels of the backbone's last stage.
        hid_channels: Width of the hidden layer.
        out_channels: D, size of an embedding.
        norm_cfg: Normalisation of the hidden layer. ``BN`` means ``BN1d``: the input has no spatial axes.
        init_cfg: Config of the initialisation; default: torch's own, as in the official code.

    Source: paper, section B (2-layer MLP, 128-dim); official code, ``projection_head``.
    """

    def __init__(
        self,
        pyramid: PyramidSpec | Mapping[str, Any],
        in_channels: int = 2048,
        hid_channels: int = 2048,
        out_channels: int = 128,
        *,
        norm_cfg: Mapping[str, Any] = {"type": "SyncBN"},
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg)
        scales = PyramidSpec.from_config(pyramid).scales
        self.projectors = nn.ModuleDict(
            {s.name: build_mlp(in_channels, hid_channels, out_channels, norm_cfg=norm_cfg) for s in scales}
        )

    def forward(self, feats: Tensor, scale_name: str) -> Tensor:
        """Computes the embeddings of one group.

        Args:
            feats: (N, in_channels) pooled features.
            scale_name: Scale of the group, ``s0``, ``s1``, ...

        Returns:
            (N, D) of unit length, float32 whatever the precision of the MLP.
        """
        return F.normalize(self.projectors[scale_name](feats).float(), dim=1)
