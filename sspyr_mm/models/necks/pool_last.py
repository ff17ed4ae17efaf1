"""Pooling of any backbone's features for a linear head."""

from mmengine.model import BaseModule
from mmpretrain.registry import MODELS
from torch import Tensor

from sspyr_mm.models.layers import pool


@MODELS.register_module()
class PoolLast(BaseModule):
    """Averages the last stage over space or tokens, as pre-training does; vectors are unchanged.

    mmpretrain's ``GlobalAveragePooling`` supports only maps, which ViT and ConvNeXt do not return.
    """

    def forward(self, feats: tuple) -> tuple[Tensor]:
        """Pools the features.

        Args:
            feats: Output of a backbone, see :func:`pool`.

        Returns:
            (N, C), in a tuple as mmpretrain's heads expect.
        """
        return (pool(feats),)
