"""Projection MLP of the momentum methods."""

from collections.abc import Mapping
from typing import Any

from mmengine.model import BaseModule
from mmpretrain.registry import MODELS
from torch import Tensor

from sspyr_mm.models.layers import build_mlp


@MODELS.register_module()
class MLPProjector(BaseModule):
    """Projects pooled features by a two-layer MLP.

    Args:
        in_channels: Channels of the backbone's last stage.
        hid_channels: Width of the hidden layer.
        out_channels: D, size of an embedding.
        norm_cfg: Normalisation of the hidden layer; None for none, as in MoCo v2.
        last_bias: Whether the last layer has a bias.
        init_cfg: Config of the initialisation; default: torch's own.
    """

    def __init__(
        self,
        in_channels: int = 2048,
        hid_channels: int = 2048,
        out_channels: int = 128,
        *,
        norm_cfg: Mapping[str, Any] | None = None,
        last_bias: bool = True,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg)
        self.mlp = build_mlp(in_channels, hid_channels, out_channels, norm_cfg=norm_cfg, last_bias=last_bias)

    def forward(self, feats: Tensor) -> Tensor:
        """Projects features (N, in_channels) to (N, out_channels); they are not normalised."""
        return self.mlp(feats)
