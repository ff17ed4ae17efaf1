"""Pooling of the output of a backbone to one vector."""

from torch import Tensor


def pool(feats: Tensor | tuple) -> Tensor:
    """Pools the output of any mmpretrain backbone to one vector per patch.

    Args:
        feats: Map (N, C, H, W), tokens (N, L, C) or vectors (N, C), or a tuple whose last entry is one of them.

    Returns:
        (N, C): the mean over space or tokens.
    """
    last = feats[-1] if isinstance(feats, (tuple, list)) else feats
    if last.ndim == 4:
        return last.mean(dim=(2, 3))
    return last.mean(dim=1) if last.ndim == 3 else last
