"""Ranks agree to stop, in time whatever an iteration takes, at the same iteration and without waiting in vain."""

from types import SimpleNamespace

import pytest
import torch

from sspyr_mm.engine.saving import interrupt_hook

NUM_STEPS = 60


def step_until_stopped(rank, world_size, seconds, told_at):
    """Steps at which this rank looked, and the one at which it stopped; rank 1 is told, rank 0 has another clock."""
    now, looks = [100.0 * rank], []
    hook, runner = interrupt_hook.InterruptHook(), SimpleNamespace(model=torch.nn.Linear(1, 1))
    real_time, real_reduce = interrupt_hook.time, interrupt_hook.all_reduce

    def all_reduce(answer, op):
        looks.append(step)
        real_reduce(answer, op)

    interrupt_hook.time = SimpleNamespace(monotonic=lambda: now[0])
    interrupt_hook.all_reduce = all_reduce
    try:
        for step in range(NUM_STEPS):
            now[0] += seconds[min(step, len(seconds) - 1)] * (1 + 5 * rank)
            hook._requested = rank == 1 and step >= told_at
            if hook._agreed(runner):
                return looks, step
        return looks, None
    finally:
        interrupt_hook.time, interrupt_hook.all_reduce = real_time, real_reduce


@pytest.mark.parametrize(
    ("seconds", "told_at", "looks"),
    [
        ([4.0], 7, [0, 1, 2, 3, 4, 5, 6, 7]),  # each takes long
        ([0.5], 10, [0, 1, 5, 9, 13]),  # four in two seconds
        ([30.0, 30.0, 0.5], 6, [0, 1, 2, 6]),  # a slow start
        ([0.001], 5, [0, 1]),  # at most a hundred apart: not within this test
    ],
)
def test_signals_are_checked_at_intervals(ranks, seconds, told_at, looks):
    results = ranks.run(2, step_until_stopped, seconds, told_at)
    assert results[0] == results[1]
    assert results[0][0] == looks
    assert results[0][1] == (looks[-1] if looks[-1] >= told_at else None)
