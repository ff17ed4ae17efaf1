"""Batch norm over groups of images, as if each group were on its own GPU."""

import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from mmengine.dist import all_reduce, get_world_size
from mmengine.registry import MODELS
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from sspyr_mm.views.checks import check_count

_rows = 1
"""Consecutive rows of a batch that belong to one image; a plain global, on which torch.compile specialises."""


def current_rows_per_image() -> int:
    """Returns the number set by :func:`rows_per_image`."""
    return _rows


@contextmanager
def rows_per_image(count: int) -> Iterator[None]:
    """Tells grouped norm layers that ``count`` consecutive rows of a batch belong to one image."""
    global _rows
    before, _rows = _rows, count
    try:
        yield
    finally:
        _rows = before


# In mmengine's registry, like its other norm layers: mmcv builds them in any scope.
@MODELS.register_module("GroupedBN")
class GroupedBatchNorm(_BatchNorm):
    """Batch norm with separate batch statistics for every group of images of a process.

    In training a batch of B images is split into ``ceil(B / group_size)`` nearly equal groups in batch order;
    :func:`rows_per_image` sets the rows per image, 1 by default. The running averages move towards the mean of the
    groups' statistics. In evaluation it equals batch norm. Parameters and buffers have batch norm's names.

    State: per rank, until :func:`average_statistics` is called.

    Args:
        num_features: C.
        group_size: Images per group, >= 1.
        eps: Constant that is added to the variance.
        momentum: Share of the new statistics in the running averages.

    Source: MoCo's ``colab/moco_cifar10_demo.ipynb``; K. He in facebookresearch/moco issues 19 and 47 (groups of 32).
    """

    _abbr_ = "bn"

    def __init__(self, num_features: int, group_size: int = 32, *, eps: float = 1e-5, momentum: float = 0.1) -> None:
        check_count("group_size", group_size, remedy="; MoCo uses 32 images")
        super().__init__(num_features, eps=eps, momentum=momentum)
        self.group_size = group_size

    def _check_input_dim(self, input: Tensor) -> None:
        if input.ndim < 2:
            raise ValueError(f"Expected (N, C, ...), got {tuple(input.shape)}")

    def forward(self, input: Tensor) -> Tensor:
        """Normalises (N, C, ...)."""
        num_images, rest = divmod(len(input), _rows)
        if rest:
            raise ValueError(f"{len(input)} rows are not a multiple of {_rows} rows per image")
        if self.training and input.numel() == input.shape[1]:
            raise ValueError(
                "Batch norm needs more than one value per channel, got a batch of one image whose map is 1 x 1: set "
                "train_dataloader.batch_size=2 or more"
            )
        num_groups = math.ceil(num_images / self.group_size)
        if not self.training or num_groups < 2:
            return super().forward(input)
        mean, var = self.running_mean, self.running_var
        if mean is None or var is None or self.momentum is None or self.num_batches_tracked is None:
            raise ValueError("GroupedBN needs running averages with a fixed momentum")
        means, vars_ = (x.expand(num_groups, -1).clone() for x in (mean, var))
        size, larger = divmod(num_images, num_groups)
        sizes = [(size + (i < larger)) * _rows for i in range(num_groups)]
        parts = [
            F.batch_norm(x, means[i], vars_[i], self.weight, self.bias, True, self.momentum, self.eps)
            for i, x in enumerate(input.split(sizes))
        ]
        with torch.no_grad():
            self.num_batches_tracked.add_(1)
            # Differences: with momentum 0 the averages are bitwise unchanged.
            mean.add_((means - mean).mean(0))
            var.add_((vars_ - var).mean(0))
        return torch.cat(parts)


@torch.no_grad()
def average_statistics(model: nn.Module) -> None:
    """Averages the running averages of all grouped norm layers over ranks, with one collective.

    Args:
        model: Model whose layers are changed in place.

    Deviation: in MoCo, every process keeps the running averages of its own images, and those of the first are saved.
    """
    if get_world_size() == 1:
        return
    layers = [m for m in model.modules() if isinstance(m, GroupedBatchNorm)]
    buffers = [b for layer in layers for b in (layer.running_mean, layer.running_var) if b is not None]
    if not buffers:
        return
    flat = torch.cat(buffers)
    all_reduce(flat, op="mean")
    torch._foreach_copy_(buffers, list(flat.split([len(b) for b in buffers])))
