"""Projection of a map as a whole and at every position."""

from mmengine.model import BaseModule
from mmpretrain.registry import MODELS
from torch import Tensor, nn

from sspyr_mm.models.layers import build_mlp


@MODELS.register_module()
class DenseProjector(BaseModule):
    """Two projectors of a map: an MLP on its mean, and the same with 1 x 1 convolutions at every position.

    Args:
        in_channels: Channels of the backbone's last stage.
        hid_channels: Width of the hidden layers.
        out_channels: D, size of an embedding.
        init_cfg: Config of the initialisation; default: torch's own.

    Source: DenseCL, section 3.2 (global and dense projection heads; no norm).
    """

    def __init__(
        self,
        in_channels: int = 2048,
        hid_channels: int = 2048,
        out_channels: int = 128,
        *,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg)
        self.global_mlp = build_mlp(in_channels, hid_channels, out_channels)
        self.dense_mlp = nn.Sequential(
            nn.Conv2d(in_channels, hid_channels, 1), nn.ReLU(inplace=True), nn.Conv2d(hid_channels, out_channels, 1)
        )

    def forward(self, feats: Tensor) -> tuple[Tensor, Tensor]:
        """Projects a map (N, C, H, W) to (N, D) and (N, D, H, W); they are not normalised."""
        return self.global_mlp(feats.mean(dim=(2, 3))), self.dense_mlp(feats)
