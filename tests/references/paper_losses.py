"""Losses of Algorithm 1 of the supplementary, float64 torch, one sample at a time.

Letters: B images, M patches of an image, K prototypes, D channels, L queue length.

Everything is a dict keyed by scale index. The queues and the multi-crop views are not in the paper: queues
follow SwAV (stored embeddings join Sinkhorn, not the loss), and of multi-crop views each of the two codes is
predicted by the mean over the other crops, the two codes being summed as in L_pyr.
"""

import torch

from .sinkhorn import sinkhorn_reference


def codes_of_view(embeddings, prototypes, *, epsilon, num_iterations, queue=None):
    """(B, M, D) embeddings -> (B, M, K) codes, constants of the loss; all patches of a scale are pooled."""
    num_images, num_patches, dim = embeddings.shape
    pooled = embeddings.detach().double().reshape(num_images * num_patches, dim)
    if queue is not None:
        pooled = torch.cat([pooled, queue.detach().double()])
    scores = pooled @ prototypes.detach().double().t()
    codes = torch.from_numpy(sinkhorn_reference(scores.numpy(), epsilon, num_iterations))
    return codes[: num_images * num_patches].reshape(num_images, num_patches, -1)


def log_softmax(logits):
    """(K,) -> (K,), written out."""
    shifted = logits - logits.detach().max()
    return shifted - torch.log(torch.exp(shifted).sum())


def cross_entropy(codes, log_probs):
    """- sum_k q_k log p_k of one sample."""
    return -(codes * log_probs).sum()


def paper_losses(
    embeddings,
    prototypes,
    correlation,
    *,
    alpha,
    beta,
    cross_weight=1.0,
    temperature=0.1,
    epsilon=0.05,
    num_iterations=3,
    queues=None,
    crops=None,
):
    """All terms of L = L_pyr + lambda L_cross.

    Args:
        embeddings: {s: (2, B, M_s, D)} float64 unit vectors: V_s and V'_s.
        prototypes: {s: (K_s, D)} float64.
        correlation: {s: (weight (K_0, K_s), bias (K_0,))} float64, s >= 1.
        alpha: {s: weight}.
        beta: {s: weight}, s >= 1.
        queues: {s: (2, L, D)}, only those that take part.
        crops: (C, B, 1, D) further views of scale 0, or None.

    Returns:
        {'loss_pyr_s0': ..., 'loss_cross_s1': ...}, weighted.
    """
    queues = queues or {}
    codes, losses = {}, {}
    for s, z in embeddings.items():
        codes[s] = [
            codes_of_view(
                z[v],
                prototypes[s],
                epsilon=epsilon,
                num_iterations=num_iterations,
                queue=queues[s][v] if s in queues else None,
            )
            for v in range(2)
        ]

    for s, z in embeddings.items():
        _, num_images, num_patches, _ = z.shape
        total = 0.0
        for v in range(2):
            others = [z[1 - v]]
            if s == 0 and crops is not None:
                others += list(crops)
            for other in others:
                for b in range(num_images):
                    for m in range(num_patches):
                        log_p = log_softmax(prototypes[s] @ other[b, m] / temperature)
                        term = cross_entropy(codes[s][v][b, m], log_p)
                        total = total + term / (num_images * num_patches * len(others))
        losses[f"loss_pyr_s{s}"] = alpha[s] * total

    for s, z in embeddings.items():
        if s == 0:
            continue
        _, num_images, num_patches, _ = z.shape
        weight, bias = correlation[s]
        total = 0.0
        for v in range(2):
            for b in range(num_images):
                average = 0.0
                for m in range(num_patches):
                    log_p = log_softmax(prototypes[s] @ z[v, b, m] / temperature)
                    average = average + torch.exp(log_p) / num_patches
                log_g = log_softmax(weight @ average + bias)
                total = total + cross_entropy(codes[0][v][b, 0], log_g) / num_images
        losses[f"loss_cross_s{s}"] = cross_weight * beta[s] * total
    return losses
