"""A protocol's config, filled in for a network, data and machine."""

import inspect
import math
import os
from collections.abc import Mapping
from typing import Any

from mmengine.config import Config
from mmpretrain.models import ResNet

from sspyr_mm.benchmarks.dense.dense_data import DenseData, DensePart
from sspyr_mm.benchmarks.dense.protocols import BATCH, DenseProtocol
from sspyr_mm.benchmarks.settings import Settings
from sspyr_mm.benchmarks.training.recipes import apply_options, load_recipe
from sspyr_mm.checkpoints import BackboneCheckpoint
from sspyr_mm.checkpoints.formats.targets import RESNET_VARIANTS
from sspyr_mm.datasets.names import voc_colours
from sspyr_mm.machine import num_cores

_OURS = {
    *("type", "norm_cfg", "out_indices", "init_cfg", "frozen_stages", "norm_eval", "with_cp"),
    *("strides", "dilations", "num_stages"),
}
"""Settings of a backbone that the protocol sets, not the checkpoint."""
_CHECKPOINTS = 10
"""How often a run is saved, at least every thousand steps."""


def make_config(
    protocol: DenseProtocol,
    checkpoint: BackboneCheckpoint,
    data: DenseData,
    *,
    weights: str,
    num_processes: int,
    settings: Settings,
) -> Config:
    """Fills in a protocol's config.

    Args:
        protocol: How.
        checkpoint: The backbone.
        data: Training and test images.
        weights: File of its weights, under mmdet's names.
        num_processes: Devices.
        settings: What differs from the protocol.

    Raises:
        ValueError: If the batch can't be divided, or an option has no place.
    """
    cfg = load_recipe(protocol.config)
    cfg.merge_from_dict({"model": backbone_settings(cfg, checkpoint, weights)})
    (_set_coco if cfg.default_scope == "mmdet" else _set_voc)(cfg, data)
    _set_batch(cfg, settings.batch_size or BATCH, num_processes)
    if settings.iterations is not None:
        _set_iterations(cfg, settings.iterations)
    if settings.size is not None:
        _set_size(cfg, settings.size)
    steps = cfg.train_cfg.max_iters
    cfg.default_hooks.checkpoint.update(
        interval=max(1, min(1000, steps // _CHECKPOINTS)), max_keep_ckpts=2
    )
    apply_options(cfg, settings.options)
    return cfg


def backbone_settings(
    cfg: Config, checkpoint: BackboneCheckpoint, weights: str
) -> dict[str, dict[str, Any]]:
    """What of a config's ``model`` follows from the network that it starts from.

    Args:
        cfg: A config of ``configs/benchmarks/mmdetection`` or ``mmsegmentation``.
        checkpoint: The network, a ResNet.
        weights: File of its weights, under mmdet's names.

    Returns:
        Changes by part of the model: the backbone's shape and start, normalisation, and the input of what is behind.

    Raises:
        ValueError: If the config is for another depth: heads of C4 are stages of a ResNet-50.
    """
    backbone = {**RESNET_VARIANTS[checkpoint.backbone["type"]], **checkpoint.backbone}
    start = dict(type="Pretrained", checkpoint=weights)
    channels = _channels(backbone)
    changes: dict[str, dict[str, Any]] = {
        "backbone": {**{k: v for k, v in backbone.items() if k not in _OURS}, "init_cfg": start},
        "data_preprocessor": dict(mean=list(checkpoint.mean), std=list(checkpoint.std)),
    }
    if "neck" in cfg.model:
        changes["neck"] = dict(in_channels=channels)
    elif "decode_head" in cfg.model:
        changes["decode_head"] = dict(in_channels=channels[-1])
        changes["auxiliary_head"] = dict(in_channels=channels[-2])
    else:
        if backbone["depth"] != 50 or channels[-1] != 2048:
            raise ValueError(
                f"This config is for a ResNet-50, got a ResNet-{backbone['depth']} that ends in {channels[-1]} "
                "channels: choose one with a feature pyramid (mask-rcnn, retinanet)"
            )
        changes["roi_head"] = dict(shared_head=dict(init_cfg=start))
    return changes


def _channels(backbone: Mapping[str, Any]) -> list[int]:
    """Channels of the four stages."""
    first = backbone.get(
        "base_channels", inspect.signature(ResNet).parameters["base_channels"].default
    )
    expansion = 4 if backbone["depth"] >= 50 else 1
    return [expansion * first * 2**stage for stage in range(4)]


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
            metainfo=dict(
                classes=data.classes, palette=[tuple(c) for c in voc_colours(len(data.classes))]
            ),
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
        type="mmseg.BaseSegDataset",
        data_root=data.root,
        metainfo=dict(classes=names, palette=voc_colours(len(names))),
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
    """The schedule in the same proportions; what ends at a step of its own stays there in a longer one.

    So Mask R-CNN's 15 000 steps, the first of 1x, become all of 1x with 90 000.
    """
    before = cfg.train_cfg.max_iters
    factor = iterations / before
    cfg.train_cfg.update(max_iters=iterations, val_interval=iterations)
    for schedule in cfg.param_scheduler:
        if factor > 1 and schedule.end != before:
            continue
        for name in ("end", "begin"):
            schedule[name] = math.ceil(schedule.get(name, 0) * factor)
        if "milestones" in schedule:
            schedule.milestones = [math.ceil(m * factor) for m in schedule.milestones]
    # A warm-up of one step would never end: a schedule's first value is that of its first step.
    cfg.param_scheduler = [s for s in cfg.param_scheduler if s.end - s.begin > 1]
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
    for transform in [t for pipeline in {id(p): p for p in pipelines}.values() for t in pipeline]:
        for name in ("scale", "size", "crop_size"):
            if name in transform:
                transform[name] = tuple(round(factor * side) for side in transform[name])
        if "scales" in transform:
            transform.scales = [
                tuple(round(factor * side) for side in scale) for scale in transform.scales
            ]
