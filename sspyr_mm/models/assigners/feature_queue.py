"""Embeddings of earlier steps: samples for Sinkhorn, or negatives."""

import torch
from mmengine.dist import get_rank, get_world_size
from torch import Tensor, nn
from torch.nn import functional as F

from sspyr_mm.views.view_spec import NUM_VIEWS


class FeatureQueue(nn.Module):
    """Ring buffer of embeddings, one per view, replicated on every rank.

    It is replicated, not sharded: every rank pushes the gathered batch, so that rank 0's checkpoint contains the whole
    queue and training can resume on any number of ranks. State: the buffer and the number of rows ever pushed, both
    persistent and on the device, so that a step can be discarded without waiting for it.

    Args:
        length: L, rows per view over all ranks, >= 1.
        dim: D, size of an embedding.
        num_views: V.
        seed: Seed of random unit vectors that fill the queue at first; None: it is empty.

    Source: official code, ``main_SSPRL.py`` (queues of 1920 and 5000 embeddings).
    Deviation: a separate fill count keeps rows of zeros out of Sinkhorn; rows are overwritten in place.
    """

    embeddings: Tensor
    count: Tensor
    """Number of rows ever pushed; in a state dict, it is the extra state."""

    def __init__(self, length: int, dim: int, num_views: int = NUM_VIEWS, *, seed: int | None = None) -> None:
        super().__init__()
        if length < 1:
            raise ValueError(f"length must be >= 1, got {length}; for no queue set queue_length=0 in the pyramid")
        start = torch.zeros(num_views, length, dim)
        if seed is not None:  # of the queue, not of the rank: it is the same on all of them
            start = F.normalize(torch.randn(start.shape, generator=torch.Generator().manual_seed(seed)), dim=-1)
        self.register_buffer("embeddings", start)
        self.register_buffer("count", torch.zeros((), dtype=torch.int64), persistent=False)
        self._stays_full = False

    @property
    def length(self) -> int:
        """L, rows per view."""
        return self.embeddings.shape[1]

    @property
    def num_pushed(self) -> int:
        """Number of rows ever pushed; waits for the device."""
        return int(self.count)

    @property
    def is_full(self) -> bool:
        """Whether every row holds a pushed embedding; waits for the device until the queue was filled twice."""
        if self._stays_full:
            return True
        pushed = self.num_pushed
        self._stays_full = pushed >= 2 * self.length  # later: a discarded step takes back what it has pushed
        return pushed >= self.length

    @torch.no_grad()
    def push(self, embeddings: Tensor) -> None:
        """Overwrites the oldest rows.

        Args:
            embeddings: (V, N, D), the same on every rank. If N > L, the last L rows are kept.
        """
        new = embeddings[:, -self.length :].to(self.embeddings.dtype)
        # Same layout as if all N rows had been written one by one.
        start = self.count + embeddings.shape[1] - new.shape[1]
        places = (start + torch.arange(new.shape[1], device=start.device)) % self.length
        self.embeddings.index_copy_(1, places, new)
        self.count += embeddings.shape[1]

    def shard(self) -> Tensor:
        """Returns the rows that this rank contributes to a collective Sinkhorn: each row is on one rank.

        Returns:
            (V, L / world size, D), (V, 0, D) while the queue is not full.
        """
        if not self.is_full:
            return self.embeddings[:, :0]
        return self.embeddings[:, get_rank() :: get_world_size()]

    def get_extra_state(self) -> Tensor:
        """Returns the fill count, as a tensor since tools move all values of a state dict between devices."""
        return torch.tensor(self.num_pushed)

    def set_extra_state(self, state: Tensor) -> None:
        """Restores the fill count."""
        self.count.fill_(int(state))
        self._stays_full = int(state) >= self.length
