"""Recomputes batch norm statistics before validation."""

from itertools import islice
from typing import Any

import torch
from mmengine.dataset import DefaultSampler
from mmengine.dist import all_reduce
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import IterBasedTrainLoop, Runner
from mmpretrain.registry import HOOKS
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.data import DataLoader


@HOOKS.register_module()
class PreciseBNBeforeValHook(Hook):
    """Replaces running averages of batch norm by means over training batches, before every validation.

    Running averages belong to weights that change from step to step. Like Detectron2's precise BN, this hook runs
    training batches through the network in training mode, so that layers after proposals see those of training.
    mmpretrain's ``PreciseBNHook`` runs prediction instead, and reads the loader of training, which restarts its order.

    Source: Wu and Johnson, "Rethinking 'Batch' in BatchNorm", section 3.

    Args:
        num_iters: Number of batches, of the training loader's size; fewer if the data set has fewer.
    """

    def __init__(self, num_iters: int = 200) -> None:
        if num_iters < 1:
            raise ValueError(f"num_iters must be >= 1, got {num_iters}")
        self.num_iters = num_iters

    def before_train(self, runner: Runner) -> None:
        """Raises TypeError if the training loop counts epochs."""
        if not isinstance(runner.train_loop, IterBasedTrainLoop):
            raise TypeError(
                f"PreciseBNBeforeValHook requires an IterBasedTrainLoop, got {type(runner.train_loop).__name__}: set "
                "train_cfg=dict(type='IterBasedTrainLoop', max_iters=N)"
            )

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: dict | None = None
    ) -> None:
        """Computes the statistics if validation is next, and before the checkpoint is saved, which then contains them.

        Collective in a distributed run.
        """
        loop, step = runner.train_loop, runner.iter + 1
        due = step >= loop.val_begin and step % loop.val_interval == 0
        if due or step == runner.max_iters:
            self._measure(runner)

    @torch.no_grad()
    def _measure(self, runner: Runner) -> None:
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        layers = [
            module
            for module in model.modules()
            if isinstance(module, _BatchNorm) and module.training and module.track_running_stats
        ]
        if not layers:
            return
        momenta = [layer.momentum for layer in layers]
        for layer in layers:
            layer.reset_running_stats()
            layer.momentum = None  # torch then weights all batches equally
        runner.logger.info(f"Precise BN: {len(layers)} layers, at most {self.num_iters} batches")
        for batch in islice(_batches(runner), self.num_iters):
            with runner.optim_wrapper.optim_context(runner.model):
                model(**model.data_preprocessor(batch, True), mode="loss")
        for layer, momentum in zip(layers, momenta, strict=True):
            layer.momentum = momentum
            for statistic in (layer.running_mean, layer.running_var):  # SyncBN's are already equal
                all_reduce(statistic, "mean")


def _batches(runner: Runner) -> DataLoader:
    """Returns a separate loader of shuffled training batches.

    Batches are composed as in training: mmdet's batch sampler separates portrait and landscape images; mixed batches
    would be padded to squares, and zeros would enter the statistics.
    """
    train = runner.train_dataloader
    size = train.batch_size or train.batch_sampler.batch_size
    sampler = DefaultSampler(train.dataset, shuffle=True, seed=runner.iter)
    # The last, smaller batch of the data set is kept, as it may be the only one.
    batches = type(train.batch_sampler)(sampler, size, False)
    return DataLoader(
        train.dataset,
        batch_sampler=batches,
        num_workers=train.num_workers,
        collate_fn=train.collate_fn,
        worker_init_fn=train.worker_init_fn,
    )
