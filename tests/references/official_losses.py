"""Losses of the authors' code (main_SSPRL.py at b0baf49, train), float64 torch, one sample at a time.

Same arguments as `paper_losses`, except that the correlation learners have no bias. Facts taken from that code:
each of the two codes of scale 0 is predicted by all other crops and the mean is taken; local scales likewise with
the one other view; local scores are averaged over the patches of an image, L2-normalised, mapped by a bias-free
linear layer, divided by the temperature; all four pairs of local view and global code are averaged.
"""

from .paper_losses import codes_of_view, cross_entropy, log_softmax


def official_losses(
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
    """{'loss_pyr_s0': ..., 'loss_cross_s1': ...}, weighted; correlation is {s: weight (K_0, K_s)}."""
    queues = queues or {}
    losses = {}
    global_codes = []
    for s, z in embeddings.items():
        views = list(z)
        if s == 0 and crops is not None:
            views += list(crops)
        num_images, num_patches = z.shape[1:3]
        scale_loss = 0.0
        for code_view in range(2):
            codes = codes_of_view(
                z[code_view],
                prototypes[s],
                epsilon=epsilon,
                num_iterations=num_iterations,
                queue=queues[s][code_view] if s in queues else None,
            )
            if s == 0:
                global_codes.append(codes)
            subloss = 0.0
            for v, view in enumerate(views):
                if v == code_view:
                    continue
                mean = 0.0
                for b in range(num_images):
                    for m in range(num_patches):
                        logits = prototypes[s] @ view[b, m] / temperature
                        mean = mean + cross_entropy(codes[b, m], log_softmax(logits))
                subloss = subloss + mean / (num_images * num_patches)
            scale_loss = scale_loss + subloss / (len(views) - 1)
        losses[f"loss_pyr_s{s}"] = alpha[s] * scale_loss / 2

    for s, z in embeddings.items():
        if s == 0:
            continue
        _, num_images, num_patches, _ = z.shape
        total = 0.0
        for v in range(2):
            for b in range(num_images):
                scores = 0.0
                for m in range(num_patches):
                    scores = scores + prototypes[s] @ z[v, b, m]
                scores = scores / num_patches
                scores = scores / (scores * scores).sum().sqrt()
                log_g = log_softmax(correlation[s] @ scores / temperature)
                for codes in global_codes:
                    total = total + cross_entropy(codes[b, 0], log_g) / num_images
        losses[f"loss_cross_s{s}"] = cross_weight * beta[s] * total / (2 * len(global_codes))
    return losses
