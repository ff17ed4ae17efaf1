"""Two DDP ranks with half the batch each train as one process with the whole batch.

GroupNorm throughout: SyncBN does not exist on the CPU.
"""

import pytest
import torch
from torch.nn.parallel import DistributedDataParallel

from sspyr_mm.engine.optimizers import ForeachLARS
from sspyr_mm.models import SSPRL

B = 4  # images over all ranks
NUM_STEPS = 3
OPTIMIZERS = {
    "sgd": lambda params: torch.optim.SGD(params, lr=0.1, momentum=0.9),
    "lars": lambda params: ForeachLARS(params, lr=5.0, weight_decay=1e-4),
}
# Batches of 4 and 16 rows: scale 0's queue takes part from the third step on, scale 1's from the second.
QUEUES = {"s0": 6, "s1": 10}


def build_model(variant, queues, crops, recompute=None):
    torch.manual_seed(0)
    gn = dict(type="GN", num_groups=2)
    pyramid = dict(
        s0=dict(region=32, patch=32, num_prototypes=6, alpha=1.0, queue_length=queues.get("s0", 0)),
        s1=dict(grid=2, region=48, patch=24, num_prototypes=5, alpha=0.25, beta=0.25, queue_length=queues.get("s1", 0)),
    )
    if crops:
        pyramid["s0"]["multi_crop"] = dict(num_views=3, patch=24)
    model = SSPRL(
        pyramid,
        backbone=dict(type="ResNet", depth=18, stem_channels=8, base_channels=8, norm_cfg=gn),
        neck=dict(type="PyramidProjector", in_channels=64, hid_channels=16, out_channels=8, norm_cfg=gn),
        head=dict(type="SSPRLHead", embed_dims=8, variant=variant),
        recompute=recompute,
    )
    model.init_weights()
    return model


def make_patches(step, model):
    """The whole batch of a step: per group (V, B, M, 3, P, P)."""
    rng = torch.Generator().manual_seed(step)
    return {
        g.name: torch.randn(g.num_views, B, g.num_patches, 3, g.patch, g.patch, generator=rng)
        for g in model.pyramid.groups
    }


def train(rank, world_size, variant, optimizer_name, queues, crops, recompute=None):
    """Losses per step, the trained state, and how far each weight has moved."""
    model = build_model(variant, queues, crops, recompute)
    start = {name: p.detach().clone() for name, p in model.named_parameters()}
    wrapped = DistributedDataParallel(model) if world_size > 1 else model
    optimizer = OPTIMIZERS[optimizer_name](model.parameters())
    per_rank = B // world_size
    history = []
    for step in range(NUM_STEPS):
        patches = {name: x[:, rank * per_rank : (rank + 1) * per_rank] for name, x in make_patches(step, model).items()}
        losses = wrapped(patches, None, mode="loss")
        optimizer.zero_grad()
        sum(value for name, value in losses.items() if name.startswith("loss")).backward()
        optimizer.step()
        model.head.normalize_()
        history.append({name: value.item() for name, value in losses.items()})
    moved = {n: (p.detach() - start[n]).abs().max().item() for n, p in model.named_parameters()}
    return history, model.state_dict(), moved


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize(
    ("variant", "queues", "crops"),
    [("paper", {}, False), ("paper", QUEUES, False), ("official", QUEUES, True)],
    ids=["paper", "paper_queues", "official_queues_crops"],
)
def test_equals_one_process(ranks, variant, queues, crops, optimizer):
    check_equal_to_one_process(ranks, (variant, optimizer, queues, crops))


@pytest.mark.parametrize("recompute", ["scale", "stage"])
def test_equals_one_process_where_activations_are_computed_again(ranks, recompute):
    check_equal_to_one_process(ranks, ("paper", "lars", QUEUES, True), recompute)


def check_equal_to_one_process(ranks, args, recompute=None):
    results = ranks.run(2, train, *args, recompute)
    history, state, moved = train(0, 1, *args)
    for step, wanted in enumerate(history):
        for name, value in wanted.items():
            mean = (results[0][0][step][name] + results[1][0][step][name]) / 2
            assert mean == pytest.approx(value, abs=1e-5), (step, name)
    assert results[0][0] != results[1][0]
    for _, of_rank, _ in results:
        for name, wanted in state.items():
            tolerance = 2e-3 * moved[name] if name in moved else 1e-5
            torch.testing.assert_close(of_rank[name], wanted, rtol=0, atol=max(tolerance, 1e-7))
    # Every weight was trained, far more than it may differ.
    assert all(distance > 1e-5 for distance in moved.values()), moved
