"""Shuffling of images over processes, so that a query and its key share no batch statistics."""

import torch
from mmengine.dist import all_gather, get_rank, get_world_size
from torch import Tensor


class BatchShuffle:
    """A random order of the images of all ranks, from their seeds: no broadcast, no state.

    The order is the same for any number of ranks with the same global batch. Collective: every method and the
    constructor gather a tensor from all ranks, which have equal batch sizes.

    Args:
        seeds: (B,) int64, seeds of the images of this rank.

    Source: MoCo, section 3.3 (shuffling BN).
    """

    def __init__(self, seeds: Tensor) -> None:
        self._order = _gathered(seeds).argsort()
        self._size = len(seeds)

    def shuffle(self, images: Tensor) -> Tensor:
        """Shuffles images (B, ...) across ranks and returns this rank's share (B, ...)."""
        return _gathered(images)[self._order[self._mine]]

    def restore(self, keys: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the keys (B, ...) of this rank's images, and those of all ranks in the original order."""
        restored = torch.empty_like(gathered := _gathered(keys))
        restored[self._order] = gathered
        return restored[self._mine], restored

    @property
    def _mine(self) -> slice:
        return slice(get_rank() * self._size, (get_rank() + 1) * self._size)


def _gathered(x: Tensor) -> Tensor:
    return torch.cat(all_gather(x)) if get_world_size() > 1 else x
