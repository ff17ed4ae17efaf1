"""A loss, gradient or buffer that is NaN on one rank: all ranks discard the step, and stop together."""

import functools
import math
import tempfile

import pytest
import torch
from mmengine.model import BaseModel
from mmengine.runner import Runner
from small_runs import Calls
from torch.utils.data import DataLoader

from sspyr_mm.engine.cpu import CPUDistributedDataParallel
from sspyr_mm.engine.hooks import divergence_hook
from sspyr_mm.engine.step_guard import StepGuard

AT = 4  # iteration, from 0


class Model(BaseModel):
    """One weight; a loss, its gradient or a buffer becomes NaN on one rank."""

    def __init__(self, rank, what, count):
        super().__init__()
        self.rank, self.what, self.bad, self.calls = rank, what, range(AT, AT + count), 0
        self.weight = torch.nn.Parameter(torch.ones(1))
        self.register_buffer("mean", torch.zeros(1))

    def forward(self, inputs, mode):
        bad = self.rank == 1 and self.calls in self.bad
        self.calls += 1
        self.mean.fill_(math.nan if bad and self.what == "buffer" else self.calls)
        # The gradient is averaged over ranks; NaN in a term without gradient, and a buffer, stay on their rank.
        loss = (self.weight * inputs.float() * (math.nan if bad and self.what == "gradient" else 1)).mean()
        return {"loss_a": loss, "loss_b": loss.detach() * (math.nan if bad and self.what == "loss" else 1)}


def train(rank, world_size, what, count, deferred):
    """State before and after the step, final weight, iterations and message of this rank."""
    guard, divergence_hook.StepGuard = StepGuard, functools.partial(StepGuard, deferred=deferred)
    model = Model(rank, what, count)
    with tempfile.TemporaryDirectory() as folder:
        runner = Runner(
            model,
            folder,
            train_dataloader=DataLoader([{"inputs": torch.ones(())}] * 12, batch_size=1),
            train_cfg=dict(by_epoch=True, max_epochs=2),
            optim_wrapper=dict(optimizer=dict(type="SGD", lr=0.1, momentum=0.9)),
            default_hooks=dict(logger=dict(type="LoggerHook", interval=3), checkpoint=None),
            experiment_name=f"divergence_{what}_{count}_{deferred}_{rank}",
            log_level="ERROR",
        )
        runner.model = CPUDistributedDataParallel(model, broadcast_buffers=False)
        runner.register_hook(divergence_hook.DivergenceHook())
        states = []
        runner.register_hook(Calls(after_train_iter=lambda _: states.append((float(model.weight), float(model.mean)))))
        try:
            runner.train()
            message = None
        except divergence_hook.DivergenceError as error:
            message = str(error)
        finally:
            divergence_hook.StepGuard = guard
        return states, runner.iter, message


@pytest.mark.parametrize("deferred", [False, True], ids=["host", "device"])
@pytest.mark.parametrize("what", ["loss", "gradient", "buffer"])
def test_all_ranks_discard_a_step_that_is_not_finite_on_one(ranks, what, deferred):
    first, second = ranks.run(2, train, what, 1, deferred)
    assert first == second
    states, iterations, message = first
    assert iterations == 24 and message is None
    assert states[AT] == states[AT - 1]
    weights = [weight for weight, _ in states]
    assert len(set(weights)) == 23 and all(math.isfinite(weight) for weight in weights)


@pytest.mark.parametrize("deferred", [False, True], ids=["host", "device"])
@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("loss", f"the last at iteration {AT + 3}: loss_b is nan on rank 1; "),
        ("buffer", f"the last at iteration {AT + 3}: a gradient or buffer is not finite, the loss is; "),
    ],
)
def test_ranks_stop_together(ranks, what, message, deferred):
    results = ranks.run(2, train, what, 24, deferred)
    assert results[0] == results[1]
    states, iterations, stopped = results[0]
    # The next step of the optimizer, within its iteration, is the place where the host reads the verdict on a GPU.
    assert iterations == AT + 2 + deferred and f"3 steps in a row were not finite, {message}" in stopped
    assert {state for state in states[AT - 1 :]} == {states[AT - 1]}
