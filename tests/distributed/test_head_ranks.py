"""The head on several ranks equals one process with the whole batch, queues included."""

import pytest
import torch
from instruments.counters import OperatorCounter
from torch.nn import functional as F

from sspyr_mm.models import SSPRLHead

B, D = 6, 8  # images over all ranks
QUEUES = {"s0": 9, "s1": 20}  # longer than a batch of 6, shorter than one of 24


def make_pyramid(num_scales=2, *, queues=QUEUES, crops=True):
    pyramid = {
        f"s{s}": dict(
            grid=s + 1,
            region=32 * (s + 1),
            patch=32,
            num_prototypes=7 - s,
            alpha=1.0 if s == 0 else 0.25,
            beta=0.0 if s == 0 else 0.25,
            queue_length=(queues or {}).get(f"s{s}", 0),
        )
        for s in range(num_scales)
    }
    if crops:
        pyramid["s0"]["multi_crop"] = dict(num_views=6, patch=16)
    return pyramid


def make_embeddings(step, num_scales=2, *, crops=True):
    """The whole batch of a step."""
    rng = torch.Generator().manual_seed(step)
    shapes = {f"s{s}": (2, B, (s + 1) ** 2, D) for s in range(num_scales)}
    if crops:
        shapes["s0_crops"] = (6, B, 1, D)
    return {n: F.normalize(torch.randn(s, generator=rng), dim=-1) for n, s in shapes.items()}


def make_head(pyramid, variant="paper", **kwargs):
    torch.manual_seed(0)
    return SSPRLHead(pyramid, D, variant=variant, **kwargs)


def run_steps(rank, world_size, steps, pyramid, variant, state=None):
    """Losses of each step, gradient of C and g of the last one, and the state afterwards."""
    head = make_head(pyramid, variant)
    if state is not None:
        head.load_state_dict(state)
    per_rank = B // world_size
    history = []
    for step in steps:
        head.zero_grad()
        embeddings = {name: z[:, rank * per_rank : (rank + 1) * per_rank] for name, z in make_embeddings(step).items()}
        losses = head.loss(embeddings)
        sum(value for name, value in losses.items() if name.startswith("loss")).backward()
        history.append({name: value.item() for name, value in losses.items()})
    gradients = {name: parameter.grad for name, parameter in head.named_parameters()}
    return history, gradients, head.state_dict()


def check_equal_to_one_process(results, expected):
    """Means over ranks against one process; the queues of every rank against its queues."""
    history, gradients, state = expected
    for step, wanted in enumerate(history):
        for name, value in wanted.items():
            mean = sum(r[0][step][name] for r in results) / len(results)
            assert mean == pytest.approx(value, abs=2e-6), (step, name)
    for name, wanted in gradients.items():
        mean = sum(r[1][name] for r in results) / len(results)
        torch.testing.assert_close(mean, wanted, rtol=1e-4, atol=1e-6)
    for result in results:
        for name, wanted in state.items():
            torch.testing.assert_close(result[2][name], wanted, rtol=0, atol=0)


@pytest.mark.parametrize("variant", ["paper", "official"])
@pytest.mark.parametrize("queues", [None, QUEUES], ids=["no_queues", "queues"])
@pytest.mark.parametrize("world_size", [2, 3])
def test_losses_gradients_and_queues(ranks, world_size, queues, variant):
    args = (range(4), make_pyramid(queues=queues), variant)
    results = ranks.run(world_size, run_steps, *args)
    check_equal_to_one_process(results, run_steps(0, 1, *args))
    # So that the lines above say something: ranks have data of their own.
    assert results[0][0] != results[1][0]


@pytest.mark.parametrize("variant", ["paper", "official"])
@pytest.mark.parametrize("saved_after", [1, 3])
def test_queues_saved_on_two_ranks_are_restored_on_one_and_three(ranks, saved_after, variant):
    pyramid = make_pyramid()
    _, _, state = ranks.run(2, run_steps, range(saved_after), pyramid, variant)[0]
    whole = run_steps(0, 1, range(saved_after + 2), pyramid, variant)
    expected = (whole[0][saved_after:], *whole[1:])
    args = (range(saved_after, saved_after + 2), pyramid, variant, state)
    check_equal_to_one_process([run_steps(0, 1, *args)], expected)
    check_equal_to_one_process(ranks.run(3, run_steps, *args), expected)


def count_collectives(rank, world_size, num_scales, queues, num_iterations, active):
    """Collectives of each of three steps, forward and backward, and the bytes this rank gives in the last."""
    pyramid = make_pyramid(num_scales, queues=queues, crops=False)
    head = make_head(pyramid, assigner=dict(num_iterations=num_iterations))
    head.use_queues(active)
    counts = []
    for step in range(3):
        embeddings = make_embeddings(step, num_scales, crops=False)
        with OperatorCounter() as counter:
            losses = head.loss({n: z[:, rank * 3 : rank * 3 + 3] for n, z in embeddings.items()})
            sum(v for n, v in losses.items() if n.startswith("loss")).backward()
        counts.append(len(counter.counts.collectives))
    return counts, counter.counts.bytes_given


@pytest.mark.parametrize("num_scales", [1, 3])
@pytest.mark.parametrize("num_iterations", [3, 5])
@pytest.mark.parametrize(
    ("queues", "active", "more"),
    [
        (None, True, 0),
        ({"s0": 9}, True, 1),
        ({"s0": 9, "s1": 20, "s2": 50}, True, 1),
        ({"s0": 9, "s1": 20, "s2": 50}, False, 0),
    ],
    ids=["no_queues", "one_queue", "queues", "queues_not_started"],
)
def test_collectives_per_step(ranks, num_scales, num_iterations, queues, active, more):
    """One per Sinkhorn iteration, one more with queues, whatever the number of scales and the fill."""
    results = ranks.run(2, count_collectives, num_scales, queues, num_iterations, active)
    assert [counts for counts, _ in results] == [[num_iterations + more] * 3] * 2
    # Sinkhorn: sums of K prototypes and two views in float64; queues: the batch's embeddings in float32.
    scales = make_head(make_pyramid(num_scales, queues=queues, crops=False)).spec.scales
    given = num_iterations * sum(2 * s.num_prototypes for s in scales) * 8
    if active and queues:
        queued = [s.num_patches for s in scales if s.name in queues]
        given += sum(2 * 3 * num_patches for num_patches in queued) * D * 4
    assert [bytes_given for _, bytes_given in results] == [given] * 2
