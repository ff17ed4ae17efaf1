"""Small real runs: mmengine's Runner, files on disk, a width-8 ResNet-18, a handful of iterations."""

import itertools
import logging

import torch
from mmengine.config import Config
from mmengine.hooks import Hook

from sspyr_mm.engine import TrainingRunner
from sspyr_mm.engine.config import fill_dataloaders

NUM_IMAGES, BATCH = 22, 4
ITERS = NUM_IMAGES // BATCH  # of an epoch; two images are left over

CONFIG = """
_base_ = [
    "{root}/configs/_base_/models/ssprl_r18_small.py",
    "{root}/configs/_base_/datasets/unlabelled.py",
    "{root}/configs/_base_/schedules/adamw.py",
    "{root}/configs/_base_/ssprl_runtime.py",
]
model = dict(
    pyramid=dict(
        s0=dict(region=32, patch=32, num_prototypes=6, queue_length=8),
        s1=dict(region=52, patch=24, num_prototypes=5, queue_length=30),
    ),
    backbone=dict(stem_channels=8, base_channels=8),
    neck=dict(in_channels=64, hid_channels=16, out_channels=8),
)
train_dataloader = dict(
    batch_size={batch},
    num_workers=0,
    persistent_workers=False,
    pin_memory=False,
    dataset=dict(data_root="{data}"),
)
train_cfg = dict(max_epochs=3)
default_hooks = dict(logger=dict(interval=1), checkpoint=dict(interval=1, max_keep_ckpts=-1))
"""

MOMENTUM_CONFIG = """
_base_ = "{root}/configs/mocov2/r18_small.py"
model = dict(
    views=dict(main=dict(region=32, patch=32)),
    backbone=dict(stem_channels=8, base_channels=8, norm_cfg=dict(group_size=2)),
    neck=dict(in_channels=64, hid_channels=16, out_channels=8),
    head=dict(queue_length=14),
)
train_dataloader = dict(
    batch_size={batch}, num_workers=0, persistent_workers=False, pin_memory=False, dataset=dict(data_root="{data}")
)
train_cfg = dict(max_epochs=3)
default_hooks = dict(logger=dict(interval=1), checkpoint=dict(interval=1, max_keep_ckpts=-1))
"""

_numbers = itertools.count()


class Calls(Hook):
    """Calls functions of the runner; after everything but the hooks that save."""

    priority = "LOWEST"

    def __init__(self, **functions):
        self.functions = functions

    def before_train_epoch(self, runner):
        self._call("before_train_epoch", runner)

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        self._call("before_train_iter", runner)

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        self._call("after_train_iter", runner)

    def _call(self, stage, runner):
        if stage in self.functions:
            self.functions[stage](runner)


def make_runner(config, work_dir, options=None, without=None, **functions):
    """A runner of the config, ``without`` a hook; ``functions`` are called at the stages they are named after."""
    cfg = Config.fromfile(config)
    cfg.merge_from_dict(options or {})
    if without:
        cfg.default_hooks.pop(without)
    cfg.work_dir = str(work_dir)
    # The default name changes once a second; runs of one name share their message hub.
    cfg.experiment_name = f"test_hooks_{next(_numbers)}"
    fill_dataloaders(cfg)
    runner = TrainingRunner.from_cfg(cfg)
    runner.register_hook(Calls(**functions))
    return runner


def train(config, work_dir, options=None, **arguments):
    runner = make_runner(config, work_dir, options, **arguments)
    try:
        runner.train()
    finally:
        loader = getattr(runner._train_loop, "dataloader", None)
        if getattr(loader, "_iterator", None) is not None:
            # Collected in one cycle with the runner, it would wait five seconds for each worker.
            loader._iterator._shutdown_workers()
    return runner


def state(runner):
    return {name: value.clone() for name, value in runner.model.state_dict().items()}


def assert_equal(first, second):
    assert list(first) == list(second)
    different = [name for name in first if not torch.equal(first[name], second[name])]
    assert not different


def warnings_of(records):
    return [message for level, message in records if level == logging.WARNING]
