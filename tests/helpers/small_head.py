"""A small pyramid, embeddings for it, and one step of the head against Algorithm 1 and the authors' code in float64."""

import pytest
import torch
from references.official_losses import official_losses
from references.paper_losses import paper_losses
from torch.nn import functional as F

B, D, NUM_CROPS = 3, 8, 6
GRIDS = {0: 1, 1: 2, 2: 3}
PROTOTYPES = {0: 7, 1: 5, 2: 6}
ALPHA = {0: 1.0, 1: 0.25, 2: 0.4}
BETA = {1: 0.3, 2: 0.55}
QUEUES = {0: 7, 1: 20, 2: 70}  # batches of 3, 12 and 27 rows: full after 3, 2 and 3 steps
SOLVER = dict(epsilon=0.05, num_iterations=3)
LOSSES = {"paper": paper_losses, "official": official_losses}


def make_pyramid(num_scales, *, crops=False, queues=False, shared=False):
    pyramid = {}
    for s in range(num_scales):
        pyramid[f"s{s}"] = dict(
            grid=GRIDS[s],
            region=32 * GRIDS[s],
            patch=32,
            num_prototypes=6 if shared else PROTOTYPES[s],
            alpha=ALPHA[s],
            beta=BETA.get(s, 0.0),
            queue_length=QUEUES[s] if queues else 0,
        )
    if crops:
        pyramid["s0"]["multi_crop"] = dict(num_views=NUM_CROPS, patch=16)
    return pyramid


def make_embeddings(num_scales, *, crops=False, seed=0):
    rng = torch.Generator().manual_seed(seed)
    shapes = {f"s{s}": (2, B, GRIDS[s] ** 2, D) for s in range(num_scales)}
    if crops:
        shapes["s0_crops"] = (NUM_CROPS, B, 1, D)
    return {n: F.normalize(torch.randn(s, generator=rng), dim=-1) for n, s in shapes.items()}


def float64_leaf(tensor):
    return tensor.detach().double().clone().requires_grad_()


def reference_of(head, embeddings, variant, queues, options):
    """Losses and, with names as in `gradients_of`, the float64 leaves they depend on."""
    leaves = {f"z/{name}": float64_leaf(z) for name, z in embeddings.items()}
    for name, prototypes in head.prototypes.items():
        leaves[f"C/{name}"] = float64_leaf(prototypes.weight)
    correlation = {}
    for name, learner in head.correlation.items():
        for part, parameter in learner.linear.named_parameters():
            leaves[f"g/{name}/{part}"] = float64_leaf(parameter)
        weight, bias = leaves[f"g/{name}/weight"], leaves.get(f"g/{name}/bias")
        correlation[int(name[1:])] = (weight, bias) if variant == "paper" else weight
    scales = [int(name[1:]) for name in embeddings if name != "s0_crops"]
    losses = LOSSES[variant](
        {s: leaves[f"z/s{s}"] for s in scales},
        {s: leaves.get(f"C/s{s}", leaves["C/s0"]) for s in scales},
        correlation,
        alpha=ALPHA,
        beta=BETA,
        queues={int(n[1:]): q.stacked() for n, q in queues.items() if q.is_full},
        crops=leaves.get("z/s0_crops"),
        **options,
    )
    return losses, leaves


def gradients_of(head, embeddings):
    """Gradients under the names of `reference_of`."""
    gradients = {f"z/{name}": z.grad for name, z in embeddings.items()}
    for name, prototypes in head.prototypes.items():
        gradients[f"C/{name}"] = prototypes.weight.grad
    for name, learner in head.correlation.items():
        for part, parameter in learner.linear.named_parameters():
            gradients[f"g/{name}/{part}"] = parameter.grad
    return gradients


def check_step(head, embeddings, variant, queues, *, cross_weight=1.0, temperature=0.1, **solver):
    """One step: every term to 1e-5, every gradient to 1e-4 of its norm; returns the losses."""
    options = dict(cross_weight=cross_weight, temperature=temperature, **(solver or SOLVER))
    expected, leaves = reference_of(head, embeddings, variant, queues, options)
    embeddings = {name: z.clone().requires_grad_() for name, z in embeddings.items()}
    head.zero_grad()
    output = head.loss(embeddings)
    losses = {name: value for name, value in output.items() if name.startswith("loss")}
    assert set(losses) == set(expected)
    for name, loss in losses.items():
        assert loss.dtype == torch.float32
        assert loss.item() == pytest.approx(expected[name].item(), abs=1e-5), name
    sum(losses.values()).backward()
    sum(expected.values()).backward()
    gradients = gradients_of(head, embeddings)
    assert set(gradients) == set(leaves)
    for name, gradient in gradients.items():
        wanted = leaves[name].grad
        assert wanted.norm() > 1e-4, name
        difference = (gradient.double() - wanted).norm() / wanted.norm()
        assert difference < 1e-5, f"{name}: relative error {difference:.1e}"
    return output
