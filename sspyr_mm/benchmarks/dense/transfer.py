"""A detection or segmentation config for a checkpoint of any known format, as a file that train.py runs."""

import os
from pprint import pformat

from mmengine.config import Config
from mmengine.registry import init_default_scope

from sspyr_mm.benchmarks.dense.configs import backbone_settings
from sspyr_mm.benchmarks.dense.protocols import check_backbone
from sspyr_mm.checkpoints import read_backbone, write_backbone
from sspyr_mm.files import whole_file


def write_transfer_config(
    config: str, checkpoint: str, *, num_processes: int, work_dir: str | None = None
) -> str:
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
    folder = os.path.abspath(
        work_dir or os.path.join("work_dirs", name, f"{stem}-{found.sha256[:8]}")
    )
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
    lines = [
        f"# {os.path.basename(config)} starting from {checkpoint}.",
        f"_base_ = {config!r}",
        "",
    ]
    for key, value in changes.items():
        lines.append(f"{key} = {pformat(value, sort_dicts=False)}")
    return "\n".join(lines) + "\n"
