"""Runs detection and segmentation: completes a protocol's config for a network, data and machine, and trains it."""

import os
from collections.abc import Mapping
from pathlib import Path

import torch
from mmengine.config import Config, ConfigDict

from sspyr_mm.benchmarks.base_protocol import Job, Outcome, Settings
from sspyr_mm.benchmarks.dense.dense_data import DenseData, DensePart
from sspyr_mm.benchmarks.dense.transfer import backbone_settings, images_per_process
from sspyr_mm.benchmarks.protocols import Dense
from sspyr_mm.benchmarks.training.process import default_processes, run_config
from sspyr_mm.benchmarks.training.recipes import apply_options, load_recipe, rescale_schedule, resize_transforms
from sspyr_mm.benchmarks.training.worker import NOTHING_FOUND
from sspyr_mm.checkpoints import BackboneCheckpoint
from sspyr_mm.checkpoints.formats.targets import TARGETS
from sspyr_mm.datasets.names import voc_colours
from sspyr_mm.files import whole_file
from sspyr_mm.machine import num_cores

_BATCH = 16  # images per step. Source: paper, both protocols.
_CHECKPOINTS = 10  # minimum number of checkpoints of a run; one is saved at least every thousand steps


def run_dense(protocol: Dense, job: Job) -> Outcome:
    """Trains and evaluates a detector or segmenter; resumes an interrupted run.

    Raises ChildProcessError with the end of the log if the run fails.
    """
    checkpoint, batch = job.network.checkpoint, job.settings.batch_size or _BATCH
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
    steps = cfg.train_cfg.max_iters
    title = f"{data.name} {protocol.name}: {steps} steps of {batch} images, {num_processes} process(es)"
    metrics = run_config(cfg, num_processes, title)
    Path(weights).unlink(missing_ok=True)  # a concurrent run of the same command has removed it
    used = {
        "config": protocol.config,
        "processes": num_processes,
        "iterations": steps,
        "batch": cfg.train_dataloader.batch_size * num_processes,
        "optimizer": dict(cfg.optim_wrapper.optimizer),
    }
    predictions = os.path.join(os.path.relpath(job.folder, job.work_dir), "final", "predictions")
    return Outcome(_in_percent(protocol, metrics), used, {"predictions": predictions})


def _in_percent(protocol: Dense, metrics: Mapping[str, float]) -> dict[str, float]:
    if NOTHING_FOUND in metrics:
        return {protocol.metric: 0.0}
    return {
        name.removeprefix("coco/"): protocol.scale * value
        for name, value in metrics.items()
        if value >= 0  # COCO reports -1 for object sizes that no test image shows
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
    """Completes the config of a protocol, a file below ``configs/benchmarks``, for a ResNet.

    ``weights`` is the file of its weights, under mmdet's names. Raises ValueError if the processes cannot share the
    batch equally, or an option does not fit the config.
    """
    cfg = load_recipe(recipe)
    cfg.merge_from_dict({"model": backbone_settings(cfg, checkpoint, weights)})
    (_set_coco if cfg.default_scope == "mmdet" else _set_voc)(cfg, data)
    batch = settings.batch_size or _BATCH
    cfg.train_dataloader.batch_size = images_per_process(batch, num_processes)
    cfg.optim_wrapper.optimizer.lr *= batch / _BATCH
    for loader in (cfg.train_dataloader, cfg.val_dataloader, cfg.test_dataloader):
        loader.num_workers = min(4, max(1, num_cores() // 2))
    if settings.iterations is not None:
        rescale_schedule(cfg, settings.iterations)
        if hook := cfg.default_hooks.get("precise_bn"):
            hook.num_iters = max(1, min(hook.num_iters, settings.iterations))
    if settings.size is not None:
        _set_size(cfg, settings.size)
    steps = cfg.train_cfg.max_iters
    cfg.default_hooks.checkpoint.update(interval=max(1, min(1000, steps // _CHECKPOINTS)), max_keep_ckpts=2)
    apply_options(cfg, settings.options)
    return cfg


def _set_coco(cfg: Config, data: DenseData) -> None:
    # mmdet's visualiser accepts only tuples, and has colours for COCO's own 80 classes only.
    metainfo = dict(classes=data.classes, palette=[tuple(c) for c in voc_colours(len(data.classes))])
    parts = (data.train, data.test, data.test)
    for loader, part in zip((cfg.train_dataloader, cfg.val_dataloader, cfg.test_dataloader), parts, strict=True):
        prefix = dict(img=part.images)
        loader.dataset.update(data_root=data.root, ann_file=part.annotations[0], data_prefix=prefix, metainfo=metainfo)
    for evaluator in (cfg.val_evaluator, cfg.test_evaluator):
        evaluator.ann_file = os.path.join(data.root, data.test.annotations[0])
    for head in (cfg.model.roi_head.bbox_head, cfg.model.roi_head.mask_head):
        head.num_classes = len(data.classes)


def _set_voc(cfg: Config, data: DenseData) -> None:
    names = ("background", *data.classes)

    def dataset(part: DensePart, number: int, pipeline: list[ConfigDict]) -> dict:
        return dict(
            type="mmseg.BaseSegDataset",
            data_root=data.root,
            metainfo=dict(classes=names, palette=voc_colours(len(names))),
            data_prefix=dict(img_path=part.images, seg_map_path=part.masks[number]),
            ann_file=part.annotations[number],
            img_suffix=part.suffixes[0],
            seg_map_suffix=part.suffixes[1],
            pipeline=pipeline,
        )

    train = cfg.train_dataloader.dataset
    pipeline = train.datasets[0].pipeline
    train.datasets = [dataset(data.train, number, pipeline) for number in range(len(data.train.annotations))]
    for loader in (cfg.val_dataloader, cfg.test_dataloader):
        loader.dataset = dataset(data.test, 0, loader.dataset.pipeline)
    for head in (cfg.model.decode_head, cfg.model.auxiliary_head):
        head.num_classes = len(names)


def _set_size(cfg: Config, size: int) -> None:
    """Scales all sides of images in proportion to a detector's 800 pixels or a segmenter's crop size."""
    train = cfg.train_dataloader.dataset
    if crop := cfg.model.data_preprocessor.get("size"):
        factor = size / crop[0]
        cfg.model.data_preprocessor.size = (size, size)
        pipelines = [part.pipeline for part in train.datasets]
    else:
        factor = size / 800
        pipelines = [train.pipeline]
    pipelines += [cfg.val_dataloader.dataset.pipeline, cfg.test_dataloader.dataset.pipeline]
    # The lists of a training set share their transforms, each of which is to be resized once.
    transforms = {id(transform): transform for pipeline in pipelines for transform in pipeline}
    resize_transforms(transforms.values(), factor)
