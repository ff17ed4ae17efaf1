"""Detection and segmentation: a config of ``configs/benchmarks`` per protocol, run by mmengine on mmdet and mmseg."""

import os
import sys
from pathlib import Path
from typing import Any

import torch

from sspyr_mm.benchmarks.dense.configs import make_config
from sspyr_mm.benchmarks.dense.dense_data import DenseData
from sspyr_mm.benchmarks.dense.protocols import BATCH, DENSE, check_backbone
from sspyr_mm.benchmarks.settings import Settings
from sspyr_mm.benchmarks.training.process import run_config
from sspyr_mm.benchmarks.training.worker import NOTHING_FOUND
from sspyr_mm.checkpoints import BackboneCheckpoint
from sspyr_mm.checkpoints.formats.targets import TARGETS
from sspyr_mm.files import whole_file


def run_dense(
    name: str,
    checkpoint: BackboneCheckpoint,
    data: DenseData,
    *,
    seed: int,
    work_dir: str,
    num_processes: int,
    settings: Settings,
) -> tuple[dict[str, float], dict[str, Any]]:
    """Trains and measures.

    Args:
        name: Of the protocol, one of ``DENSE``.
        checkpoint: The backbone it starts from, a ResNet.
        data: Training and test images.
        seed: Of everything random.
        work_dir: For this network, data and settings only; a run that was stopped goes on.
        num_processes: Devices, a process each; the batch is divided among them.
        settings: What differs from the protocol.

    Returns:
        Figures in percent, and the numbers of the run.

    Raises:
        ValueError: If the backbone is no ResNet, or the batch can't be divided.
        ChildProcessError: If the run fails; the message shows the end of its log.
    """
    protocol = DENSE[name]
    check_backbone(name, checkpoint.backbone, "the network")
    weights = os.path.join(os.path.abspath(work_dir), "backbone.pth")
    data = data.write_annotations(os.path.join(work_dir, "annotations"))
    cfg = make_config(
        protocol, checkpoint, data, weights=weights, num_processes=num_processes, settings=settings
    )
    cfg.work_dir = os.path.join(work_dir, "final")
    cfg.randomness.seed = seed
    state = TARGETS["mmdet"].translate(checkpoint.backbone, checkpoint.state_dict)
    with whole_file(weights) as partial:
        torch.save({"state_dict": state}, partial)
    print(
        f"{data.name} {name}: {cfg.train_cfg.max_iters} steps of {settings.batch_size or BATCH} images, "
        f"{num_processes} process(es); log: {cfg.work_dir}/log.txt",
        file=sys.stderr,
        flush=True,
    )
    metrics = run_config(cfg, num_processes)
    if NOTHING_FOUND in metrics:
        metrics = {protocol.metric: 0.0}
    Path(weights).unlink(missing_ok=True)  # the same command, given twice, has done so
    figures = {
        name.removeprefix("coco/"): protocol.scale * value
        for name, value in metrics.items()
        if value >= 0  # COCO's -1: of a size that no test image shows
    }
    used = {
        "config": protocol.config,
        "processes": num_processes,
        "iterations": cfg.train_cfg.max_iters,
        "batch": cfg.train_dataloader.batch_size * num_processes,
        "optimizer": dict(cfg.optim_wrapper.optimizer),
    }
    return figures, used
