"""Settings of a detection or segmentation config that depend on the checkpoint, and configs written with them."""

import inspect
import os
from collections.abc import Mapping
from pathlib import Path
from pprint import pformat
from typing import Any

from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmpretrain.models import ResNet

from sspyr_mm.checkpoints import BackboneCheckpoint, read_backbone, write_backbone
from sspyr_mm.checkpoints.formats.targets import RESNET_VARIANTS
from sspyr_mm.files import whole_file

_SET_BY_CONFIG = {
    *("type", "norm_cfg", "out_indices", "init_cfg", "frozen_stages", "norm_eval", "with_cp"),
    *("strides", "dilations", "num_stages"),
}
"""Settings of a backbone that are the config's, not the checkpoint's."""


def check_backbone(protocol: str, backbone: Mapping[str, Any], name: str) -> None:
    """Raises ValueError if a backbone is not a ResNet, or its stages have unusual strides or dilations.

    ``backbone`` is its mmpretrain config; ``protocol`` and ``name`` are the names of the protocol or config and of the
    network, for the message.
    """
    if backbone["type"] not in RESNET_VARIANTS:
        raise ValueError(
            f"{protocol} is for ResNets; {name} is a {backbone['type']}: leave it out, or choose another protocol "
            "with --protocol"
        )
    for key, usual in (("strides", (1, 2, 2, 2)), ("dilations", (1, 1, 1, 1)), ("num_stages", 4)):
        if (came := backbone.get(key, usual)) != usual and tuple(came) != usual:
            raise ValueError(
                f"{protocol} sets the {key} of its network itself, for weights of a usual ResNet {usual}; {name} was "
                f"trained with {came}: leave it out"
            )


def backbone_settings(cfg: Config, checkpoint: BackboneCheckpoint, weights: str) -> dict[str, dict[str, Any]]:
    """Returns the changes of ``cfg.model`` that a ResNet requires, by part of the model.

    They are the shape and weights of the backbone, the normalisation, and the input channels of the following layers.
    ``weights`` is the file of the weights, under mmdet's names. Raises ValueError if the config is for another depth:
    the heads of C4 are stages of a ResNet-50.
    """
    backbone = {**RESNET_VARIANTS[checkpoint.backbone["type"]], **checkpoint.backbone}
    init_cfg = dict(type="Pretrained", checkpoint=weights)
    width = backbone.get("base_channels", inspect.signature(ResNet).parameters["base_channels"].default)
    expansion = 4 if backbone["depth"] >= 50 else 1
    channels = [expansion * width * 2**stage for stage in range(4)]
    changes: dict[str, dict[str, Any]] = {
        "backbone": {**{k: v for k, v in backbone.items() if k not in _SET_BY_CONFIG}, "init_cfg": init_cfg},
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
        changes["roi_head"] = dict(shared_head=dict(init_cfg=init_cfg))
    return changes


def images_per_process(batch: int, num_processes: int) -> int:
    """Divides the images of a step among processes; raises ValueError if there is a remainder."""
    if batch % num_processes:
        raise ValueError(
            f"{batch} images per step, which the learning rate is for, cannot be divided among {num_processes} "
            "processes: choose a number of processes that divides them"
        )
    return batch // num_processes


def write_transfer_config(config: str, checkpoint: str, *, num_processes: int, work_dir: str | None = None) -> str:
    """Exports the backbone of a checkpoint and a config that starts from it; returns the path of the config.

    Raises FileNotFoundError if config or checkpoint do not exist, ValueError if the checkpoint cannot be used, the
    config is for another depth, or the batch cannot be divided.

    Args:
        config: Config of ``configs/benchmarks/mmdetection`` or ``mmsegmentation``, or one that inherits it.
        checkpoint: Checkpoint of a ResNet, in any known format. Depth, width and normalisation are taken from it.
        num_processes: Number of training processes, which share the batch that the config's learning rate is for.
        work_dir: Output folder. Default: ``work_dirs/CONFIG/CHECKPOINT-SHA256``, unique to the checkpoint.
    """
    for file in (config, checkpoint):
        if not os.path.isfile(file):
            raise FileNotFoundError(f"{file} does not exist (in {os.getcwd()})")
    cfg = Config.fromfile(config)
    init_default_scope(cfg.default_scope)
    found = read_backbone(checkpoint)
    check_backbone(os.path.basename(config), found.backbone, os.path.basename(checkpoint))
    name, stem = (Path(file).stem for file in (config, checkpoint))
    folder = os.path.abspath(work_dir or os.path.join("work_dirs", name, f"{stem}-{found.sha256[:8]}"))
    weights = os.path.join(folder, "backbone.pth")
    model = backbone_settings(cfg, found, weights)
    loader = {"batch_size": images_per_process(cfg.auto_scale_lr.base_batch_size, num_processes)}
    write_backbone(found, weights, path=checkpoint, target="mmdet")
    target = os.path.join(folder, f"{name}.py")
    with whole_file(target) as partial:
        partial.write_text(
            f"# {os.path.basename(config)} starting from {checkpoint}.\n"
            f"_base_ = {os.path.abspath(config)!r}\n\n"
            f"model = {pformat(model, sort_dicts=False)}\n"
            f"train_dataloader = {pformat(loader, sort_dicts=False)}\n"
        )
    return target
