"""Batch norm's statistics of fixed weights, before they are measured."""

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

    Running averages are of weights that change from step to step. As Detectron2's precise BN this one passes training
    batches through the network as training does, so that layers behind proposals see those of training. mmpretrain's
    ``PreciseBNHook`` predicts instead, and reads the training loop's own loader, whose order starts again by that.

    Source: Wu and Johnson, "Rethinking 'Batch' in BatchNorm", section 3.

    Args:
        num_iters: Batches, of the training loader's size; fewer where the data set has fewer.
    """

    def __init__(self, num_iters: int = 200) -> None:
        if num_iters < 1:
            raise ValueError(f"num_iters must be >= 1, got {num_iters}")
        self.num_iters = num_iters

    def before_train(self, runner: Runner) -> None:
        """Checks that the loop counts iterations.

        Raises:
            TypeError: If it counts epochs.
        """
        if not isinstance(runner.train_loop, IterBasedTrainLoop):
            raise TypeError(
                f"PreciseBNBeforeValHook is for an IterBasedTrainLoop, got {type(runner.train_loop).__name__}: set "
                "train_cfg=dict(type='IterBasedTrainLoop', max_iters=N)"
            )

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: dict | None = None
    ) -> None:
        """Measures the statistics if validation is next; before the checkpoint is written, which is to have them.

        Collective where it is distributed.
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
            layer.momentum = None  # torch then averages all batches alike
        runner.logger.info(f"Precise BN: {len(layers)} layers, at most {self.num_iters} batches")
        for batch in islice(_batches(runner), self.num_iters):
            with runner.optim_wrapper.optim_context(runner.model):
                model(**model.data_preprocessor(batch, True), mode="loss")
        for layer, momentum in zip(layers, momenta, strict=True):
            layer.momentum = momentum
            for statistic in (layer.running_mean, layer.running_var):  # SyncBN's are equal already
                all_reduce(statistic, "mean")


def _batches(runner: Runner) -> DataLoader:
    """Shuffled training batches, from a loader of their own.

    Put together as training's: mmdet's sampler of batches keeps portrait and landscape images apart, without which
    batches are padded to squares and zeros would be part of the statistics.
    """
    train = runner.train_dataloader
    size = train.batch_size or train.batch_sampler.batch_size
    sampler = DefaultSampler(train.dataset, shuffle=True, seed=runner.iter)
    # The last batch of a data set that is used up stays, as it may be the only one.
    batches = type(train.batch_sampler)(sampler, size, False)
    return DataLoader(
        train.dataset,
        batch_sampler=batches,
        num_workers=train.num_workers,
        collate_fn=train.collate_fn,
        worker_init_fn=train.worker_init_fn,
    )
