"""Pooling of the output of a backbone, and its precision."""

import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.ops import roi_align


def last_output(feats: Tensor | tuple) -> Tensor:
    """Returns the last entry of the output of any mmpretrain backbone: a map, tokens or vectors."""
    return feats[-1] if isinstance(feats, (tuple, list)) else feats


def pool(feats: Tensor | tuple) -> Tensor:
    """Pools the output of any mmpretrain backbone to one vector per patch.

    Args:
        feats: Map (N, C, H, W), tokens (N, L, C) or vectors (N, C), or a tuple whose last entry is one of them.

    Returns:
        (N, C): the mean over space or tokens.
    """
    last = last_output(feats)
    if last.ndim == 4:
        return last.mean(dim=(2, 3))
    return last.mean(dim=1) if last.ndim == 3 else last


def pool_cells(maps: Tensor, grid: int) -> Tensor:
    """Averages maps (N, C, H, W) over the cells of a grid, row by row: (N, grid * grid, C) float32."""
    return F.adaptive_avg_pool2d(maps.float(), grid).flatten(2).transpose(1, 2)


def crop_map(feats: Tensor, boxes: Tensor, side: int, *, size: int) -> Tensor:
    """Resamples the part of a map under a box, in float32 or float64.

    Args:
        feats: (N, C, H, W).
        boxes: (N, 4) left, top, right, bottom in pixels of the image.
        side: Side of the image in pixels.
        size: Side of the result.

    Returns:
        (N, C, size, size).

    Source: RoIAlign of Mask R-CNN, aligned, with as many samples as the box has cells.
    """
    with torch.autocast(feats.device.type, enabled=False):
        feats = precise(feats)
        rows = torch.arange(len(feats), device=feats.device, dtype=feats.dtype)[:, None]
        rois = torch.cat([rows, boxes.to(feats.dtype)], dim=1)
        return roi_align(feats, rois, size, feats.shape[-1] / side, sampling_ratio=-1, aligned=True)


def precise(x: Tensor) -> Tensor:
    """Returns a tensor in float32 if its precision is lower; float64 stays."""
    return x if x.dtype == torch.float64 else x.float()
