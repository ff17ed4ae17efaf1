"""A queue as a plain list of rows, per view."""

import torch


class QueueListReference:
    """Keeps the last `length` rows of each of two views; takes part once it holds `length`."""

    def __init__(self, length):
        self.length = length
        self.rows = [[], []]

    def push(self, embeddings):
        """(2, N, D)."""
        for v in range(2):
            self.rows[v] = [*self.rows[v], *embeddings[v].detach().double()][-self.length :]

    @property
    def is_full(self):
        return len(self.rows[0]) == self.length

    def stacked(self):
        """(2, L, D)."""
        return torch.stack([torch.stack(rows) for rows in self.rows])
