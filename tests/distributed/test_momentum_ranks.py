"""Momentum methods: one process with 8 images in groups of 4 equals two ranks with 4 images each.

This covers shuffling, groups of batch norm, momentum encoder and the order of the queues.
"""

import pytest
import torch
from instruments.counters import OperatorCounter
from small_contrast import MODELS_BY_NAME, batch_of, build, part_of, relative_distance, total
from torch.nn.parallel import DistributedDataParallel

NUM_IMAGES = 8
NUM_STEPS = 3


def run_steps(rank, world_size, name):
    """Losses of each step, gradients of the last one, and the state."""
    model = build(name).double()  # batch norm of few values amplifies rounding
    wrapped = DistributedDataParallel(model, broadcast_buffers=False) if world_size > 1 else model
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    history = []
    for step in range(NUM_STEPS):
        inputs = part_of(batch_of(step, NUM_IMAGES, model), rank, world_size)
        losses = wrapped(inputs, None, mode="loss")
        optimizer.zero_grad()
        total(losses).backward()
        optimizer.step()
        model.finish_step(0.9)
        history.append({name: value.item() for name, value in losses.items()})
    gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    return history, gradients, model.state_dict()


@pytest.mark.parametrize("name", MODELS_BY_NAME)
def test_two_ranks_equal_one_process(ranks, name):
    history, gradients, state = run_steps(0, 1, name)
    results = ranks.run(2, run_steps, name)
    for step, wanted in enumerate(history):
        for key, value in wanted.items():
            if key == "collapse_ratio_main":
                continue  # a deviation within the batch of a rank, for the log alone
            mean = sum(r[0][step][key] for r in results) / 2
            assert mean == pytest.approx(value, abs=1e-8), (step, key)
    assert gradients and not any(key.startswith("momentum.") for key in gradients)
    for key, wanted in gradients.items():
        assert relative_distance(results[0][1][key], wanted) < 1e-6, key
    for result in results:
        for key, wanted in state.items():
            assert relative_distance(result[2][key].double(), wanted.double()) < 1e-6, key
            assert torch.equal(result[2][key], results[0][2][key]), f"{key} differs between ranks"


def orders(rank, world_size):
    model = build().double()
    inputs = part_of(batch_of(0, NUM_IMAGES, model), rank, world_size)
    model.loss(inputs)
    return model._keys["main"]


def test_every_rank_holds_the_keys_of_all_images_in_their_order(ranks):
    """The images of a group of batch norm come from both ranks: keys depend on the order, not on the rank."""
    first, second = ranks.run(2, orders)
    assert torch.equal(first, second)
    torch.testing.assert_close(first, orders(0, 1), atol=1e-9, rtol=0)


def count_collectives(rank, world_size, name):
    """Collectives of a step without DDP's, and the bytes that this rank gives."""
    model = build(name)
    inputs = part_of(batch_of(0, NUM_IMAGES, model), rank, world_size)
    with OperatorCounter() as counter:
        total(model.loss(inputs)).backward()
        model.finish_step(0.9)
    return counter.counts.collectives, counter.counts.bytes_given


@pytest.mark.parametrize(
    ("name", "num_inputs", "num_keys"),
    [
        ("MoCoV2", 1, 1),
        ("DenseMoCo", 1, 4),  # image, pooled map, positions, features
        ("Bootstrap", 0, 0),
        ("DetCo", 2, 8),  # four levels of whole images and of jigsaws
        ("InsLoc", 2, 4),  # images and boxes; four levels
        ("MaskCo", 2, 1),  # images and boxes
    ],
)
def test_collectives_per_step(ranks, name, num_inputs, num_keys):
    """Seeds, inputs and keys are gathered once each, and statistics of batch norm are averaged in one collective."""
    first, second = ranks.run(2, count_collectives, name)
    assert first == second
    gathered = num_inputs + num_keys + (num_inputs > 0)
    assert first[0] == [*["c10d.allgather_"] * gathered, "c10d.allreduce_"]


def test_bytes_given_per_step(ranks):
    """Seeds in int64; images, keys, and statistics of every batch norm of both encoders, in float32."""
    model = build()
    statistics = [b.numel() for name, b in model.named_buffers() if name.endswith(("running_mean", "running_var"))]
    size = NUM_IMAGES // 2
    given = 8 * size + 4 * (size * 3 * 32 * 32 + size * 8 + sum(statistics))
    assert ranks.run(2, count_collectives, "MoCoV2")[0][1] == given
