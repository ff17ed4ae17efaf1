"""Hooks for detection and segmentation."""

import os
from itertools import islice
from typing import Any

import mmcv
import torch
from mmengine.dataset import DefaultSampler
from mmengine.dist import all_reduce, get_world_size
from mmengine.hooks import Hook
from mmengine.runner import IterBasedTrainLoop, Runner
from mmengine.structures import BaseDataElement
from mmpretrain.registry import HOOKS
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.data import DataLoader

from sspyr_mm.engine.hooks.model_access import unwrapped
from sspyr_mm.models.state_check import check_complete

__all__ = ["CompleteWeightsHook", "PreciseBNBeforeValHook", "PredictionImagesHook"]


@HOOKS.register_module()
class CompleteWeightsHook(Hook):
    """Makes ``init_cfg=dict(type='Pretrained', ...)`` reject a file that lacks a tensor of the module.

    mmengine loads such a file non-strictly: with unknown names, the network trains from random weights, and only a log
    line reports it. Works with the models of mmpretrain, mmdet and mmseg.
    """

    def before_run(self, runner: Runner) -> None:
        """Registers the check for every module with pretrained weights, which are loaded afterwards."""
        for module in runner.model.modules():
            given = getattr(module, "init_cfg", None)
            configs = given if isinstance(given, (list, tuple)) else [given]
            if any(isinstance(c, dict) and c.get("type") == "Pretrained" for c in configs):
                module._register_load_state_dict_pre_hook(check_complete, with_module=True)


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
        """Computes the statistics if validation is next, before a checkpoint, which then contains them. Collective."""
        loop, step = runner.train_loop, runner.iter + 1
        due = step >= loop.val_begin and step % loop.val_interval == 0
        if due or step == runner.max_iters:
            self._measure(runner)

    @torch.no_grad()
    def _measure(self, runner: Runner) -> None:
        model: Any = unwrapped(runner)
        norms = (module for module in model.modules() if isinstance(module, _BatchNorm))
        layers = [layer for layer in norms if layer.training and layer.track_running_stats]
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


@HOOKS.register_module(["PredictionImagesHook", "PredictionPicturesHook"])  # the second: name until version 0.2
class PredictionImagesHook(Hook):
    """Draws predictions and ground truth of a few validation images with the runner's own visualiser.

    Files are ``WORK_DIR/predictions/NUMBER_NAME.jpg`` and ``NUMBER_NAME_truth.jpg``; each validation overwrites them.
    The images are the same for every network, spread evenly over the data set.

    Args:
        num_images: Number of images; fewer if the data set has fewer.
    """

    def __init__(self, num_images: int = 8) -> None:
        if num_images < 1:
            raise ValueError(f"num_images must be >= 1, got {num_images}")
        self.num_images = num_images
        self._files: dict[str, str] = {}

    def before_val(self, runner: Runner) -> None:
        """Chooses images of the first process, the only one that draws.

        Raises:
            TypeError: If the visualiser is not one of mmdet's or mmseg's.
        """
        if not hasattr(runner.visualizer, "add_datasample"):
            raise TypeError(
                f"PredictionImagesHook needs mmdet's or mmseg's visualiser, got {type(runner.visualizer).__name__}: "
                "set visualizer=dict(type='DetLocalVisualizer') or 'SegLocalVisualizer'"
            )
        dataset, ranks = runner.val_dataloader.dataset, get_world_size()
        seen = range(0, len(dataset), ranks)
        count = min(self.num_images, len(seen))
        self._files = {}
        for number in range(count):
            index = seen[number * len(seen) // count]
            path = dataset.get_data_info(index)["img_path"]
            name = os.path.splitext(os.path.basename(path))[0]
            self._files[path] = os.path.join(runner.work_dir, "predictions", f"{index:06d}_{name}")

    def after_val_iter(
        self, runner: Runner, batch_idx: int, data_batch: object = None, outputs: list[BaseDataElement] | None = None
    ) -> None:
        """Draws the chosen images among the outputs."""
        for sample in outputs or []:
            if stem := self._files.get(sample.img_path):
                image = mmcv.imread(sample.img_path, channel_order="rgb")
                for file, truth in ((f"{stem}.jpg", False), (f"{stem}_truth.jpg", True)):
                    _draw(runner, image, sample, file, truth=truth)


def _draw(runner: Runner, image: object, sample: BaseDataElement, file: str, *, truth: bool) -> None:
    try:
        runner.visualizer.add_datasample(
            "prediction", image, data_sample=sample, draw_gt=truth, draw_pred=not truth, out_file=file
        )
    except Exception as error:  # a failed drawing must not cost the run its results
        runner.logger.warning(f"{file} is not drawn: {type(error).__name__}: {error}")
