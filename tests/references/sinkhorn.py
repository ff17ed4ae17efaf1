"""Sinkhorn codes of SwAV, one process, float64 numpy."""

import math

import numpy as np


def _logsumexp(values):
    top = max(values)
    return top + math.log(sum(math.exp(value - top) for value in values))


def sinkhorn_reference(scores, epsilon=0.05, num_iterations=3):
    """Log-domain codes for scores of any size, one normalisation written out at a time.

    Args:
        scores: (N, K) similarities, before any division.

    Returns:
        (N, K) float64, rows sum to 1.
    """
    log_q = np.asarray(scores, dtype=np.float64) / epsilon
    num_samples, num_prototypes = log_q.shape
    log_q = log_q - _logsumexp(log_q.ravel().tolist())
    for _ in range(num_iterations):
        for k in range(num_prototypes):  # every prototype holds 1/K of the mass
            log_q[:, k] -= _logsumexp(log_q[:, k].tolist()) + math.log(num_prototypes)
        for n in range(num_samples):  # every sample holds 1/N of the mass
            log_q[n] -= _logsumexp(log_q[n].tolist()) + math.log(num_samples)
    return np.exp(log_q + math.log(num_samples))


def sinkhorn_linear_reference(scores, epsilon=0.05, num_iterations=3):
    """The same as in the authors' code, in the linear domain; for moderate scores / epsilon only."""
    mass = np.exp(np.asarray(scores, dtype=np.float64) / epsilon)
    num_samples, num_prototypes = mass.shape
    mass /= mass.sum()
    for _ in range(num_iterations):
        mass /= mass.sum(axis=0, keepdims=True) * num_prototypes
        mass /= mass.sum(axis=1, keepdims=True) * num_samples
    return mass * num_samples
