"""Sinkhorn-Knopp codes: samples spread evenly over prototypes, solved over the batch of all ranks.

Shapes: N samples of this rank (may differ between ranks, may be 0), K prototypes.
"""

from collections.abc import Sequence

import torch
from mmengine.dist import all_gather
from mmpretrain.registry import TASK_UTILS
from torch import Tensor


def _logsumexp_over_ranks(local: Tensor) -> Tensor:
    """Computes the log of the sum over ranks of ``exp(local)``; collective.

    Args:
        local: (L,) logarithms, ``-inf`` where this rank adds nothing.

    Returns:
        (L,) equal on every rank.
    """
    return torch.logsumexp(torch.stack(all_gather(local)), dim=0)


@torch.no_grad()
def sinkhorn(scores: Sequence[Tensor], *, epsilon: float = 0.05, num_iterations: int = 3) -> list[Tensor]:
    """Solves several independent assignment problems at once.

    Each iteration first gives every prototype the same mass, then every sample. Logarithms in float64 (float32 on
    devices without it) keep the result accurate for scores of any size: with ``epsilon = 0.001`` the exponents reach
    thousands, where float32 has few decimal places left.

    Collective: every rank must call it with the same number of problems of the same K each, but any N. One collective
    per iteration serves all problems, and none is in a branch that depends on data.

    Args:
        scores: P tensors (N_p, K_p), any floating type: ``z @ C.T`` of this rank.
        epsilon: Divisor of the scores, > 0; smaller values give sharper codes.
        num_iterations: Number of iterations, >= 1.

    Returns:
        P tensors (N_p, K_p) float32, rows sum to 1.

    Source: Algorithm 1 of the paper (S-K); SwAV (arXiv 2006.09882), section 3.1 and listing 1.
    Deviation: log domain instead of ``exp(scores / epsilon)``, which overflows in float16 and for small epsilon; sums
    over ranks are computed in every iteration, unconditionally.
    """
    dtype = torch.float32 if scores[0].device.type == "mps" else torch.float64
    log_q = [s.to(dtype) / epsilon for s in scores]
    sizes = [s.shape[1] for s in scores]
    for _ in range(num_iterations):
        local = torch.cat([torch.logsumexp(q, dim=0) for q in log_q])
        mass = _logsumexp_over_ranks(local).split(sizes)
        log_q = [torch.log_softmax(q - m, dim=1) for q, m in zip(log_q, mass, strict=True)]
    return [q.exp().float() for q in log_q]


@TASK_UTILS.register_module()
class SinkhornAssigner:
    """Converts scores to codes. Stateless.

    Args:
        epsilon: Sharpness of the codes, > 0. Small batches need less: for nearly equal rows, 0.05 gives uniform codes.
        num_iterations: Number of Sinkhorn iterations, >= 1.

    Raises:
        ValueError: If an argument is out of its range.

    Source: paper section 3.2, epsilon 0.05 and 3 iterations.
    """

    def __init__(self, epsilon: float = 0.05, num_iterations: int = 3) -> None:
        if not epsilon > 0:
            raise ValueError(f"epsilon must be > 0, got {epsilon}; usual values are 0.05 (large batches) to 0.005")
        if not isinstance(num_iterations, int) or num_iterations < 1:
            raise ValueError(f"num_iterations must be an integer >= 1, got {num_iterations!r}; the usual value is 3")
        self.epsilon = epsilon
        self.num_iterations = num_iterations

    def assign(self, scores: Tensor) -> Tensor:
        """Computes the codes of one batch; collective over ranks, N may differ between them.

        Args:
            scores: (N, K) scores of this rank, any floating type and magnitude.

        Returns:
            (N, K) float32 codes without gradient, rows sum to 1.

        Raises:
            ValueError: If ``scores`` is not a matrix with at least one prototype.
        """
        return self.assign_many([scores])[0]

    def assign_many(self, scores: Sequence[Tensor]) -> list[Tensor]:
        """Computes the codes of several independent problems with the collectives of one.

        Args:
            scores: P tensors (N_p, K_p).

        Returns:
            P tensors (N_p, K_p) float32 codes.

        Raises:
            ValueError: As :meth:`assign`.
        """
        for s in scores:
            if s.ndim != 2 or s.shape[1] < 1 or not s.is_floating_point():
                raise ValueError(f"scores must be floating point (N, K) with K >= 1, got {s.dtype} {tuple(s.shape)}")
        return sinkhorn(scores, epsilon=self.epsilon, num_iterations=self.num_iterations)
