"""Features of any backbone for a linear head."""

from mmengine.model import BaseModule
from mmpretrain.registry import MODELS
from torch import Tensor

from sspyr_mm.models.layers import pool


@MODELS.register_module()
class PoolLast(BaseModule):
    """Averages the last stage over space or tokens, as pre-training does; vectors pass.

    mmpretrain's ``GlobalAveragePooling`` takes maps only, which ViT and ConvNeXt do not give.
    """

    def forward(self, feats: tuple) -> tuple[Tensor]:
        """Pools.

        Args:
            feats: What a backbone returns, see :func:`pool`.

        Returns:
            (N, C), in a tuple as heads of mmpretrain want it.
        """
        return (pool(feats),)
