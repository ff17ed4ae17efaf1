"""Fine-tuning of the whole network by mmengine, with a config of ``configs/benchmarks/classification``."""

import math
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.model import BaseModule

from sspyr_mm.benchmarks.base_protocol import Job, Outcome
from sspyr_mm.benchmarks.classification.multi_label_data import BenchmarkData, Source
from sspyr_mm.benchmarks.protocols import FineTuning
from sspyr_mm.benchmarks.results.result import without_nan
from sspyr_mm.benchmarks.training.process import default_processes, run_config
from sspyr_mm.benchmarks.training.recipes import apply_options, load_recipe, rescale_schedule, resize_transforms
from sspyr_mm.checkpoints import build_backbone
from sspyr_mm.datasets.splits import rank_ids, read_split, write_ids
from sspyr_mm.files import whole_file
from sspyr_mm.machine import num_cores

_HELD_OUT_PERCENT = 20
"""Percentage of the training images that is held out to choose the learning rates; then all of them train."""
_ASL_ITERATIONS = 40 * (82783 // 128)  # steps of the paper's run, which the decay of the averaged weights is for


def run_finetune(protocol: FineTuning, job: Job) -> Outcome:
    """Chooses learning rates on held-out training images, then trains on all images of the protocol.

    Every run writes its metrics to a subfolder of ``job.folder``; finished runs are not repeated, and interrupted ones
    are resumed. Figures are those of the test images after the last epoch. Raises ValueError if the network cannot be
    fine-tuned, there are too few images or training diverges, ChildProcessError with the end of the log if it fails.
    """
    network = build_backbone(job.network.checkpoint)
    if not isinstance(network, BaseModule):
        raise ValueError(
            f"{type(network).__name__} can't be fine-tuned: it must be a BaseModule of mmengine, which takes init_cfg. "
            "Choose a protocol on frozen features with --protocol"
        )
    data, folder = job.data, job.folder
    ids, held_out = choose_images(protocol, data, job.seed)
    with whole_file(_weights(job)) as partial:
        torch.save({"state_dict": job.network.checkpoint.state_dict}, partial)
    rates = None
    further: dict[str, Any] = {"train_images": len(ids)}
    if protocol.grid:
        rates, held_out_figures = _choose_rates(protocol, job, held_out, ids[len(held_out) :])
        further |= dict(backbone_rate=rates[0], head_rate=rates[1], held_out_mAP=held_out_figures)
    write_ids(train_ids := f"{folder}/train.txt", ids)
    cfg = make_config(protocol, job, f"{folder}/final", train_ids, (data.test_source, None), rates)
    metrics = run_config(cfg, default_processes(), "final run on all images" if protocol.grid else "training")
    if not math.isfinite(metrics["multi-label/mAP"]):
        raise ValueError(f"Training diverged on all of the images; see {cfg.work_dir}/log.txt")
    _weights(job).unlink(missing_ok=True)  # a concurrent run of the same command may have removed it
    figures: dict[str, Any] = {name.removeprefix("multi-label/"): value for name, value in metrics.items()}
    figures["AP_per_class"] = without_nan({name: figures.pop(f"AP_{name}") for name in data.classes})
    return Outcome(figures, _describe(protocol, cfg), further)


def _describe(protocol: FineTuning, cfg: Config) -> dict[str, Any]:
    """Returns the settings of a run, for its result."""
    processes = default_processes()
    settings = dict(
        config=protocol.config,
        processes=processes,
        epochs=cfg.train_cfg.max_epochs,
        size=_side(cfg.train_dataloader.dataset.pipeline),
        test_size=_side(cfg.val_dataloader.dataset.pipeline),
        optimizer=dict(cfg.optim_wrapper.optimizer),
    )
    if "ema" in cfg.default_hooks:
        settings["ema_momentum"] = cfg.default_hooks.ema.momentum
    settings["batch"] = cfg.train_dataloader.batch_size * processes
    if protocol.grid:
        del settings["optimizer"]["lr"]  # chosen per seed; rows of a table combine seeds with equal settings
    return settings


def _choose_rates(
    protocol: FineTuning, job: Job, held_out: list[str], kept: list[str]
) -> tuple[tuple[float, float], dict[str, float | None]]:
    """Returns the rates of backbone and head that are best on held-out images, and the mAP of all pairs."""
    folder, grid = job.folder, protocol.grid
    write_ids(held_out_ids := f"{folder}/held_out.txt", held_out)
    write_ids(kept_ids := f"{folder}/kept.txt", kept)
    found: dict[tuple[float, float], float] = {}
    for number, rates in enumerate(grid, 1):
        run = f"{folder}/backbone{rates[0]:g}_head{rates[1]:g}"
        cfg = make_config(protocol, job, run, kept_ids, (job.data.train_source, held_out_ids), rates)
        title = f"run {number} of {len(grid) + 1}: learning rates {rates[0]:g}, {rates[1]:g}"
        found[rates] = run_config(cfg, default_processes(), title)["multi-label/mAP"]
    usable = {rates: value for rates, value in found.items() if math.isfinite(value)}
    if not usable:
        raise ValueError(f"Training diverged with every pair of learning rates; see {folder}")
    best = max(usable, key=usable.__getitem__)
    return best, without_nan({f"{backbone:g}, {head:g}": value for (backbone, head), value in found.items()})


def choose_images(protocol: FineTuning, data: BenchmarkData, seed: int) -> tuple[list[str], list[str]]:
    """Draws the ids of the training images to use; the first ones are held out to choose the learning rates.

    Returns all ids, and those held out, none without a grid. Raises ValueError if there are too few images, or those
    held out show no class.
    """
    ids = rank_ids(data.train.image_ids, seed)
    ids = ids[: len(ids) * protocol.percent // 100]
    held_out = ids[: len(ids) * _HELD_OUT_PERCENT // 100 if protocol.grid else 0]
    if not ids or (protocol.grid and not held_out):
        raise ValueError(
            f"{protocol.percent} % of {len(data.train.paths)} training images is {len(ids)}, too few to choose "
            "learning rates on a fifth of them: use more images or a protocol with a higher percentage"
        )
    if held_out and not (data.train.with_images(held_out, data.train_source.source).targets > 0).any():
        raise ValueError(
            f"The {len(held_out)} of {len(ids)} training images that choose the learning rates show no class: use more "
            "images, another seed or a protocol with a higher percentage"
        )
    return ids, held_out


def _weights(job: Job) -> Path:
    return Path(job.folder, "backbone.pth").absolute()


def make_config(
    protocol: FineTuning,
    job: Job,
    work_dir: str,
    train_ids: str,
    test: tuple[Source, str | None],
    rates: tuple[float, float] | None,
) -> Config:
    """Fills in the config of a protocol for one run.

    ``train_ids`` is a file with the ids of the training images, and ``test`` the images to measure with such a file, or
    None for all. ``rates`` are the learning rates of backbone and head, or None for those of the config.
    """
    settings, num_processes = job.settings, default_processes()
    cfg = load_recipe(protocol.config)
    cfg.work_dir = work_dir
    cfg.randomness = dict(seed=job.seed)
    cfg.val_evaluator.update(voc11=True, per_class=True, diverged_as_nan=True)
    _set_model(cfg, job)
    loaders = cfg.train_dataloader, cfg.val_dataloader, cfg.test_dataloader
    for loader, (source, ids) in zip(loaders, ((job.data.train_source, train_ids), test, test), strict=True):
        loader.dataset.update(data_root=source.source, split=source.split, image_root=source.image_root)
        loader.dataset.update(image_ids=ids, classes=job.data.train.classes)
        loader.num_workers = min(loader.num_workers, max(1, num_cores() // 2))
        pipeline = loader.dataset.pipeline
        for transform in pipeline:
            if transform.type == "LoadRGBImage":
                transform.update(job.network.checkpoint.decoding)
        if size := settings.size or protocol.size:
            resize_transforms(pipeline, size / _side(pipeline))
    cfg.train_dataloader.batch_size //= num_processes
    if num_processes > 1:
        cfg.sync_bn = "torch"
    if rates is not None:
        cfg.optim_wrapper.optimizer.lr = rates[1]
        cfg.optim_wrapper.paramwise_cfg.custom_keys.backbone.lr_mult = rates[0] / rates[1]
    if settings.epochs is not None:
        rescale_schedule(cfg, settings.epochs)
    batch = cfg.train_dataloader.batch_size * num_processes
    iterations = cfg.train_cfg.max_epochs * max(1, len(read_split(train_ids)) // batch)
    if "ema" in cfg.default_hooks:  # a run shorter than the paper's averages weights over the same part of its steps
        factor = max(1.0, _ASL_ITERATIONS / iterations)
        cfg.default_hooks.ema.momentum = min(0.5, cfg.default_hooks.ema.momentum * factor)
    schedule = cfg.param_scheduler
    if "pct_start" in schedule and schedule.pct_start * iterations <= 1:
        cfg.param_scheduler = None  # OneCycleLR divides by zero if its warm-up is one step
    apply_options(cfg, settings.options)
    return cfg


def _set_model(cfg: Config, job: Job) -> None:
    network, checkpoint = job.network, job.network.checkpoint
    cfg.custom_imports.imports += network.modules
    # Not merged into the config's backbone: a ViT may lack settings of a ResNet-50.
    cfg.model.backbone = dict(checkpoint.backbone)
    cfg.model.neck = dict(type="PoolLast")
    cfg.model.backbone["init_cfg"] = dict(type="Pretrained", checkpoint=str(_weights(job)))
    cfg.model.head.update(num_classes=len(job.data.train.classes), in_channels=network.num_channels)
    cfg.model.data_preprocessor.update(mean=list(checkpoint.mean), std=list(checkpoint.std))


def _side(pipeline: list[dict[str, Any]]) -> int:
    """Returns the side of the crops in pixels."""
    sized = [t for t in pipeline if t["type"] in ("CenterCrop", "RandomResizedCrop", "Resize")]
    planned = sized[-1].get("crop_size") or sized[-1]["scale"]
    return planned if isinstance(planned, int) else planned[0]
