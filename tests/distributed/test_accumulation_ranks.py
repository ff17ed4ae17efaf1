"""A checkpoint within an accumulated step: two resumed ranks, with different images, equal two uninterrupted ones."""

import tempfile

import torch
from mmengine.model import BaseModel
from mmengine.runner import Runner
from small_runs import Calls
from torch.utils.data import DataLoader

from sspyr_mm.engine import AccumulationHook
from sspyr_mm.engine.cpu import CPUDistributedDataParallel


class Model(BaseModel):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layer = torch.nn.Linear(3, 5)

    def forward(self, inputs, mode):
        return {"loss": self.layer(inputs).square().mean()}


def weights(rank, folder, options):
    """Weights after every iteration, of six with a checkpoint after the third, in steps of four."""
    rows = torch.randn(6, 3, generator=torch.Generator().manual_seed(rank))
    model, found = Model(), []
    runner = Runner(
        model,
        folder,
        train_dataloader=DataLoader([{"inputs": row} for row in rows[options.pop("skip") :]], batch_size=1),
        train_cfg=dict(by_epoch=False, max_iters=6),
        optim_wrapper=dict(optimizer=dict(type="SGD", lr=0.1, momentum=0.9), accumulative_counts=4),
        default_hooks=dict(checkpoint=dict(type="CheckpointHook", interval=3, by_epoch=False)),
        log_level="ERROR",
        experiment_name=f"{folder}_{rank}_{len(options)}",
        **options,
    )
    runner.model = CPUDistributedDataParallel(model)
    runner.register_hook(AccumulationHook())
    runner.register_hook(Calls(after_train_iter=lambda _: found.append(model.layer.weight.detach().clone())))
    runner.train()
    return found


def run(rank, world_size):
    folder = [tempfile.mkdtemp()]
    torch.distributed.broadcast_object_list(folder)
    whole = weights(rank, folder[0], {"skip": 0})
    torch.distributed.barrier()
    resumed = weights(rank, folder[0], {"skip": 3, "resume": True, "load_from": f"{folder[0]}/iter_3.pth"})
    return whole, resumed


def test_two_ranks_resume_within_a_step(ranks):
    first, second = ranks.run(2, run)
    whole, resumed = first
    assert len(whole) == 6 and len(resumed) == 3
    assert torch.equal(whole[0], whole[2]) and not torch.equal(whole[2], whole[3])
    for of_rank in (first, second):
        assert all(map(torch.equal, of_rank[0], whole)) and all(map(torch.equal, of_rank[1], whole[3:]))
