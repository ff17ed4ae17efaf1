"""Batch norm statistics before validation are means over batches with fixed weights, and are saved."""

import pytest
import torch
from mmengine.config import Config
from mmengine.dataset import BaseDataset
from mmengine.evaluator import BaseMetric
from mmengine.model import BaseModel
from mmengine.runner import Runner
from torch import nn

import sspyr_mm.registration  # noqa: F401
from sspyr_mm.engine.transfer_hooks import PreciseBNBeforeValHook


class Numbers(BaseDataset):
    """Eight different rows of three numbers."""

    def load_data_list(self):
        rows = [dict(x=torch.arange(3.0) * (i + 1) ** 2) for i in range(8)]
        return [row | dict(width=1 + i % 2, height=2 - i % 2) for i, row in enumerate(rows)]


class Network(BaseModel):
    def __init__(self):
        super().__init__()
        self.bn = nn.BatchNorm1d(3, momentum=0.3)
        self.frozen = nn.BatchNorm1d(3)
        self.seen = []

    def train(self, mode=True):
        super().train(mode)
        self.frozen.eval()
        return self

    def forward(self, x, mode="tensor", **of_no_interest):
        if self.training:
            self.seen.append((mode, torch.is_grad_enabled(), x.clone()))
        y = self.frozen(self.bn(x))
        return {"loss": y.square().sum()} if mode == "loss" else [y]


class Statistics(BaseMetric):
    """Reports the batch norm mean during validation."""

    network = None

    def process(self, data_batch, data_samples):
        self.results.append(self.network.bn.running_mean.clone())

    def compute_metrics(self, results):
        return {"mean": float(results[0].sum())}


def make_runner(tmp_path, *, num_iters=2, batch=None, **changes):
    network = Network()
    metric = Statistics()
    metric.network = network
    loader = dict(
        batch_size=4,
        num_workers=0,
        sampler=dict(type="InfiniteSampler"),
        collate_fn=dict(type="default_collate"),
        dataset=Numbers(),
    )
    if batch:
        loader["batch_sampler"] = batch
    options = dict(
        model=network,
        work_dir=str(tmp_path),
        train_dataloader=loader,
        train_cfg=dict(type="IterBasedTrainLoop", max_iters=4, val_interval=2),
        optim_wrapper=dict(optimizer=dict(type="SGD", lr=0.1)),
        val_dataloader=dict(loader, sampler=dict(type="DefaultSampler", shuffle=False), batch_sampler=None),
        val_cfg=dict(),
        val_evaluator=[metric],
        custom_hooks=[PreciseBNBeforeValHook(num_iters)],
        default_hooks=dict(checkpoint=dict(type="CheckpointHook", by_epoch=False, interval=2)),
        default_scope="mmpretrain",
        experiment_name=str(tmp_path),
        cfg=Config(),
    )
    return Runner(**{**options, **changes})


def test_means_over_batches_in_training_mode_are_in_the_checkpoint(tmp_path):
    runner = make_runner(tmp_path)
    runner.train()
    network = runner.model
    assert [(mode, grad) for mode, grad, _ in network.seen] == 2 * ([("loss", True)] * 2 + [("loss", False)] * 2)
    batches = [x for _, grad, x in network.seen if not grad]
    for step, measured in ((2, batches[:2]), (4, batches[2:])):
        saved = torch.load(tmp_path / f"iter_{step}.pth", weights_only=False)["state_dict"]
        mean = torch.stack([x.mean(0) for x in measured]).mean(0)
        variance = torch.stack([x.var(0) for x in measured]).mean(0)
        torch.testing.assert_close(saved["bn.running_mean"], mean)
        torch.testing.assert_close(saved["bn.running_var"], variance)
        assert torch.equal(saved["frozen.running_mean"], torch.zeros(3))
    shown = runner.message_hub.get_scalar("val/mean").current()
    assert shown == pytest.approx(float(mean.sum()))
    assert network.bn.momentum == 0.3


def test_number_of_batches_is_limited_by_the_data(tmp_path):
    runner = make_runner(tmp_path, num_iters=200)
    runner.train()
    measured = [x for _, grad, x in runner.model.seen if not grad]
    assert len(measured) == 4
    everything = torch.stack([row["x"] for row in Numbers().load_data_list()])
    assert torch.equal(torch.cat(measured[:2])[:, 1].sort().values, everything[:, 1])


def test_batches_are_composed_as_in_training(tmp_path):
    """mmdet's batches separate portrait and landscape images; mixed ones would be padded to squares."""
    runner = make_runner(tmp_path, num_iters=4, batch=dict(type="mmdet.AspectRatioBatchSampler"))
    runner.train()
    measured = [x for _, grad, x in runner.model.seen if not grad]
    index = [x[:, 1].sqrt().round().long() - 1 for x in measured]  # of rows, from their numbers
    assert len(index) == 4 and all(len(set((i % 2).tolist())) == 1 for i in index)
    assert sorted(torch.cat(index[:2]).tolist()) == list(range(8))


def test_invalid_loops_and_numbers_are_rejected(tmp_path):
    runner = make_runner(tmp_path, train_cfg=dict(by_epoch=True, max_epochs=1))
    with pytest.raises(TypeError, match="requires an IterBasedTrainLoop, got EpochBasedTrainLoop"):
        runner.train()
    with pytest.raises(ValueError, match="num_iters must be >= 1, got 0"):
        PreciseBNBeforeValHook(0)
