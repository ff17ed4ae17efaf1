"""Detection and segmentation: a protocol's config filled in for a network, data and machine, and run."""

import os
import sys
from collections.abc import Mapping
from pathlib import Path

import torch
from mmengine.config import Config

from sspyr_mm.benchmarks.base_protocol import Job, Outcome, Settings
from sspyr_mm.benchmarks.dense.dense_data import DenseData, DensePart
from sspyr_mm.benchmarks.dense.transfer import backbone_settings
from sspyr_mm.benchmarks.protocols import Dense
from sspyr_mm.benchmarks.training.process import default_processes, run_config
from sspyr_mm.benchmarks.training.recipes import apply_options, load_recipe, rescale_schedule, resize_transforms
from sspyr_mm.benchmarks.training.worker import NOTHING_FOUND
from sspyr_mm.checkpoints import BackboneCheckpoint
from sspyr_mm.checkpoints.formats.targets import TARGETS
from sspyr_mm.datasets.names import voc_colours
from sspyr_mm.files import whole_file
from sspyr_mm.machine import num_cores

__all__ = ["BATCH", "make_config", "run_dense"]

BATCH = 16
"""Images per step. Source: paper, both protocols."""
_CHECKPOINTS = 10
"""How often a run is saved, at least every thousand steps."""


def run_dense(protocol: Dense, job: Job) -> Outcome:
    """Trains and measures.

    Args:
        protocol: How.
        job: Network, a ResNet; data, seed, folder and settings. A run that was stopped is resumed.

    Returns:
        Figures in percent, the numbers of the run, and the folder of its predictions.

    Raises:
        ValueError: If the batch cannot be divided.
        ChildProcessError: If the run fails; the message shows the end of its log.
    """
    checkpoint, batch = job.network.checkpoint, job.settings.batch_size or BATCH
    num_processes = default_processes(batch)
    weights = os.path.join(os.path.abspath(job.folder), "backbone.pth")
    data = job.data.write_annotations(os.path.join(job.folder, "annotations"))
    cfg = make_config(
        protocol.config, checkpoint, data, weights=weights, num_processes=num_processes, settings=job.settings
    )
    cfg.work_dir = os.path.join(job.folder, "final")
    cfg.randomness.seed = job.seed
    state = TARGETS["mmdet"].translate(checkpoint.backbone, checkpoint.state_dict)
    with whole_file(weights) as partial:
        torch.save({"state_dict": state}, partial)
    print(
        f"{data.name} {protocol.name}: {cfg.train_cfg.max_iters} steps of {batch} images, "
        f"{num_processes} process(es); log: {cfg.work_dir}/log.txt",
        file=sys.stderr,
        flush=True,
    )
    metrics = run_config(cfg, num_processes)
    Path(weights).unlink(missing_ok=True)  # the same command, started twice, has removed it
    used = {
        "config": protocol.config,
        "processes": num_processes,
        "iterations": cfg.train_cfg.max_iters,
        "batch": cfg.train_dataloader.batch_size * num_processes,
        "optimizer": dict(cfg.optim_wrapper.optimizer),
    }
    predictions = os.path.join(os.path.relpath(job.folder, job.work_dir), "final", "predictions")
    return Outcome(_figures(protocol, metrics), used, {"predictions": predictions})


def _figures(protocol: Dense, metrics: Mapping[str, float]) -> dict[str, float]:
    """The evaluator's figures in percent."""
    if NOTHING_FOUND in metrics:
        return {protocol.metric: 0.0}
    return {
        name.removeprefix("coco/"): protocol.scale * value
        for name, value in metrics.items()
        if value >= 0  # COCO's -1: of a size that no test image shows
    }


def make_config(
    recipe: str,
    checkpoint: BackboneCheckpoint,
    data: DenseData,
    *,
    weights: str,
    num_processes: int,
    settings: Settings,
) -> Config:
    """Fills in a protocol's config.

    Args:
        recipe: The protocol's config, a file below ``configs/benchmarks``.
        checkpoint: The backbone.
        data: Training and test images.
        weights: File of its weights, under mmdet's names.
        num_processes: Devices.
        settings: What differs from the protocol.

    Raises:
        ValueError: If the batch can't be divided, or an option has no place.
    """
    cfg = load_recipe(recipe)
    cfg.merge_from_dict({"model": backbone_settings(cfg, checkpoint, weights)})
    (_set_coco if cfg.default_scope == "mmdet" else _set_voc)(cfg, data)
    _set_batch(cfg, settings.batch_size or BATCH, num_processes)
    if settings.iterations is not None:
        _set_iterations(cfg, settings.iterations)
    if settings.size is not None:
        _set_size(cfg, settings.size)
    steps = cfg.train_cfg.max_iters
    cfg.default_hooks.checkpoint.update(interval=max(1, min(1000, steps // _CHECKPOINTS)), max_keep_ckpts=2)
    apply_options(cfg, settings.options)
    return cfg


def _set_coco(cfg: Config, data: DenseData) -> None:
    for loader, part in (
        (cfg.train_dataloader, data.train),
        (cfg.val_dataloader, data.test),
        (cfg.test_dataloader, data.test),
    ):
        loader.dataset.update(
            data_root=data.root,
            ann_file=part.annotations[0],
            data_prefix=dict(img=part.images),
            # mmdet's visualiser takes tuples only, of COCO's own 80 colours if none are given.
            metainfo=dict(classes=data.classes, palette=[tuple(c) for c in voc_colours(len(data.classes))]),
        )
    for evaluator in (cfg.val_evaluator, cfg.test_evaluator):
        evaluator.ann_file = os.path.join(data.root, data.test.annotations[0])
    for head in (cfg.model.roi_head.bbox_head, cfg.model.roi_head.mask_head):
        head.num_classes = len(data.classes)


def _set_voc(cfg: Config, data: DenseData) -> None:
    sets = cfg.train_dataloader.dataset.datasets
    names = ("background", *data.classes)
    pipeline = sets[0].pipeline
    common = dict(
        type="mmseg.BaseSegDataset", data_root=data.root, metainfo=dict(classes=names, palette=voc_colours(len(names)))
    )
    parts = [
        dict(
            common,
            data_prefix=dict(img_path=data.train.images, seg_map_path=masks),
            ann_file=file,
            **_suffixes(data.train),
            pipeline=pipeline,
        )
        for file, masks in zip(data.train.annotations, data.train.masks, strict=True)
    ]
    cfg.train_dataloader.dataset.datasets = parts
    for loader in (cfg.val_dataloader, cfg.test_dataloader):
        prefix = dict(img_path=data.test.images, seg_map_path=data.test.masks[0])
        loader.dataset = dict(
            common,
            data_prefix=prefix,
            ann_file=data.test.annotations[0],
            **_suffixes(data.test),
            pipeline=loader.dataset.pipeline,
        )
    for head in (cfg.model.decode_head, cfg.model.auxiliary_head):
        head.num_classes = len(names)


def _suffixes(part: DensePart) -> dict[str, str]:
    return dict(zip(("img_suffix", "seg_map_suffix"), part.suffixes, strict=True))


def _set_batch(cfg: Config, batch: int, num_processes: int) -> None:
    if batch % num_processes:
        raise ValueError(
            f"{batch} images a step can't be divided among {num_processes} processes: choose a number of processes "
            "that divides them"
        )
    cfg.train_dataloader.batch_size = batch // num_processes
    cfg.optim_wrapper.optimizer.lr *= batch / BATCH
    workers = min(4, max(1, num_cores() // 2))
    for loader in (cfg.train_dataloader, cfg.val_dataloader, cfg.test_dataloader):
        loader.num_workers = workers


def _set_iterations(cfg: Config, iterations: int) -> None:
    rescale_schedule(cfg, iterations)
    if "precise_bn" in cfg.default_hooks:
        hook = cfg.default_hooks.precise_bn
        hook.num_iters = max(1, min(hook.num_iters, iterations))


def _set_size(cfg: Config, size: int) -> None:
    """Every side in proportion: to 800 pixels of detectors, to the crop of segmenters."""
    crop = cfg.model.data_preprocessor.get("size")
    factor = size / (crop[0] if crop else 800)
    if crop:
        cfg.model.data_preprocessor.size = (size, size)
    train = cfg.train_dataloader.dataset
    pipelines = [part.pipeline for part in train.datasets] if crop else [train.pipeline]
    pipelines += [cfg.val_dataloader.dataset.pipeline, cfg.test_dataloader.dataset.pipeline]
    each_once = {id(pipeline): pipeline for pipeline in pipelines}.values()
    resize_transforms([t for pipeline in each_once for t in pipeline], factor)
