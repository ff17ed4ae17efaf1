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
    persistent.

    Args:
        length: L, rows per view over all ranks, >= 1.
        dim: D, size of an embedding.
        num_views: V.
        seed: Seed of random unit vectors that fill the queue at first; None: it is empty.

    Source: official code, ``main_SSPRL.py`` (queues of 1920 and 5000 embeddings).
    Deviation: a separate fill count keeps rows of zeros out of Sinkhorn; rows are overwritten in place.
    """

    embeddings: Tensor

    def __init__(self, length: int, dim: int, num_views: int = NUM_VIEWS, *, seed: int | None = None) -> None:
        super().__init__()
        if length < 1:
            raise ValueError(f"length must be >= 1, got {length}; for no queue set queue_length=0 in the pyramid")
        start = torch.zeros(num_views, length, dim)
        if seed is not None:  # of the queue, not of the rank: it is the same on all of them
            start = F.normalize(torch.randn(start.shape, generator=torch.Generator().manual_seed(seed)), dim=-1)
        self.register_buffer("embeddings", start)
        # A Python number: reading a tensor's value would make the host wait for the device in every step.
        self.num_pushed = 0

    @property
    def length(self) -> int:
        """L, rows per view."""
        return self.embeddings.shape[1]

    @property
    def is_full(self) -> bool:
        """Whether every row holds a pushed embedding."""
        return self.num_pushed >= self.length

    @torch.no_grad()
    def push(self, embeddings: Tensor) -> None:
        """Overwrites the oldest rows.

        Args:
            embeddings: (V, N, D), the same on every rank. If N > L, the last L rows are kept.
        """
        new = embeddings[:, -self.length :].to(self.embeddings.dtype)
        # Same layout as if all N rows had been written one by one.
        start = (self.num_pushed + embeddings.shape[1] - new.shape[1]) % self.length
        head = min(new.shape[1], self.length - start)
        self.embeddings[:, start : start + head] = new[:, :head]
        self.embeddings[:, : new.shape[1] - head] = new[:, head:]
        self.num_pushed += embeddings.shape[1]

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
        self.num_pushed = int(state)
