"""What a detection or segmentation config takes from a checkpoint, and such a config as a file that train.py runs."""

import inspect
import os
from collections.abc import Mapping
from pprint import pformat
from typing import Any

from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmpretrain.models import ResNet

from sspyr_mm.checkpoints import BackboneCheckpoint, read_backbone, write_backbone
from sspyr_mm.checkpoints.formats.targets import RESNET_VARIANTS
from sspyr_mm.files import whole_file

__all__ = ["backbone_settings", "check_backbone", "write_transfer_config"]

_OURS = {
    *("type", "norm_cfg", "out_indices", "init_cfg", "frozen_stages", "norm_eval", "with_cp"),
    *("strides", "dilations", "num_stages"),
}
"""Settings of a backbone that the protocol sets, not the checkpoint."""


def check_backbone(protocol: str, backbone: Mapping[str, Any], name: str) -> None:
    """Refuses networks that a protocol is not for.

    Args:
        protocol: Name of the protocol or config.
        backbone: mmpretrain config.
        name: Name of the network.

    Raises:
        ValueError: If it is not a ResNet, or its stages have other strides or dilations than a ResNet's.
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
    first = backbone.get("base_channels", inspect.signature(ResNet).parameters["base_channels"].default)
    expansion = 4 if backbone["depth"] >= 50 else 1
    return [expansion * first * 2**stage for stage in range(4)]


def write_transfer_config(config: str, checkpoint: str, *, num_processes: int, work_dir: str | None = None) -> str:
    """Exports a checkpoint's backbone and writes the config that starts from it, both into a work dir of its own.

    The network's depth, width and normalisation are the checkpoint's; the images of a step, which the config's learning
    rate is for, are divided among the processes.

    Args:
        config: A config of ``configs/benchmarks/mmdetection`` or ``mmsegmentation``, or one that inherits it.
        checkpoint: Of a ResNet, in any known format.
        num_processes: That will train.
        work_dir: Default: ``work_dirs/CONFIG/CHECKPOINT-SHA256``, which no other checkpoint shares.

    Returns:
        The file, ``WORK_DIR/CONFIG.py``.

    Raises:
        FileNotFoundError: If config or checkpoint are not there.
        ValueError: If the checkpoint can't be used, the config is for another depth, or the batch can't be divided.
    """
    for file in (config, checkpoint):
        if not os.path.isfile(file):
            raise FileNotFoundError(f"{file} does not exist (seen from {os.getcwd()})")
    cfg = Config.fromfile(config)
    init_default_scope(cfg.default_scope)
    found = read_backbone(checkpoint)
    check_backbone(os.path.basename(config), found.backbone, os.path.basename(checkpoint))
    name = os.path.splitext(os.path.basename(config))[0]
    stem = os.path.splitext(os.path.basename(checkpoint))[0]
    folder = os.path.abspath(work_dir or os.path.join("work_dirs", name, f"{stem}-{found.sha256[:8]}"))
    weights = os.path.join(folder, "backbone.pth")
    changes = {
        "model": backbone_settings(cfg, found, weights),
        "train_dataloader": {"batch_size": _batch_size(cfg, num_processes)},
    }
    write_backbone(found, weights, path=checkpoint, target="mmdet")
    target = os.path.join(folder, f"{name}.py")
    with whole_file(target) as partial:
        partial.write_text(_text(os.path.abspath(config), checkpoint, changes))
    return target


def _batch_size(cfg: Config, num_processes: int) -> int:
    """Images a step of one process."""
    images = cfg.auto_scale_lr.base_batch_size
    if images % num_processes:
        raise ValueError(
            f"{images} images a step, which the learning rate is for, can't be divided among {num_processes} "
            "processes: choose a number that divides them"
        )
    return images // num_processes


def _text(config: str, checkpoint: str, changes: dict) -> str:
    lines = [f"# {os.path.basename(config)} starting from {checkpoint}.", f"_base_ = {config!r}", ""]
    for key, value in changes.items():
        lines.append(f"{key} = {pformat(value, sort_dicts=False)}")
    return "\n".join(lines) + "\n"
