"""A loss that is NaN on one rank, or a buffer, stops all of them at the same iteration with the same message."""

import math
import tempfile

import pytest
import torch
from mmengine.model import BaseModel
from mmengine.runner import Runner
from torch.utils.data import DataLoader

from sspyr_mm.engine.hooks import DivergenceError, DivergenceHook

AT = 4  # iteration, from 0


class Model(BaseModel):
    """One weight; a loss or a buffer becomes NaN on one rank."""

    def __init__(self, rank, what):
        super().__init__()
        self.rank, self.what, self.calls = rank, what, 0
        self.weight = torch.nn.Parameter(torch.ones(1))
        self.register_buffer("mean", torch.zeros(1))

    def forward(self, inputs, mode):
        bad = self.rank == 1 and self.calls == AT
        self.calls += 1
        if bad and self.what == "buffer":
            self.mean.fill_(math.nan)
        loss = (self.weight * inputs.float()).mean()
        # Gradients as DDP would average them: those of this rank alone do not reach the others.
        return {"loss_a": loss, "loss_b": loss.detach() * (math.nan if bad and self.what == "loss" else 1)}

    def train_step(self, data, optim_wrapper):
        return super().train_step({"inputs": data}, optim_wrapper)


def train(rank, world_size, what):
    """(Iteration, message) at which this rank stopped."""
    with tempfile.TemporaryDirectory() as folder:
        runner = Runner(
            Model(rank, what),
            folder,
            train_dataloader=DataLoader(torch.ones(12), batch_size=1),
            train_cfg=dict(by_epoch=True, max_epochs=2),
            optim_wrapper=dict(optimizer=dict(type="SGD", lr=0.1)),
            default_hooks=dict(logger=dict(type="LoggerHook", interval=3), checkpoint=None),
            experiment_name=f"divergence_{what}_{rank}",
            log_level="ERROR",
        )
        runner.register_hook(DivergenceHook())
        try:
            runner.train()
        except DivergenceError as error:
            return runner.iter, str(error)
        return runner.iter, None


@pytest.mark.parametrize(
    ("what", "stopped", "message"),
    [
        ("loss", 5, "loss_b became nan at iteration 5 on rank 1 (epoch 1, learning rate 0.1, last finite value"),
        ("buffer", 12, "mean is not finite"),
    ],
)
def test_ranks_stop_together(ranks, what, stopped, message):
    results = ranks.run(2, train, what)
    assert results[0] == results[1]
    assert results[0][0] == stopped and message in results[0][1]
