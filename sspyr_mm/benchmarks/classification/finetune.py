"""Fine-tuning of the whole network: a config of ``configs/benchmarks/classification`` per protocol, run by mmengine."""

import math
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.model import BaseModule

from sspyr_mm.benchmarks.base_protocol import Job, Outcome
from sspyr_mm.benchmarks.classification.multi_label_data import BenchmarkData, Source
from sspyr_mm.benchmarks.protocols import FineTuning
from sspyr_mm.benchmarks.training.process import default_processes, run_config
from sspyr_mm.benchmarks.training.recipes import apply_options, load_recipe, rescale_schedule, resize_transforms
from sspyr_mm.checkpoints import build_backbone
from sspyr_mm.datasets.splits import rank_ids, write_ids
from sspyr_mm.files import whole_file
from sspyr_mm.machine import num_cores

__all__ = ["choose_images", "run_finetune"]

HELD_OUT_PERCENT = 20
"""Part of the training images that chooses the learning rates; then all of them train."""
_ASL_ITERATIONS = 40 * (82783 // 128)
"""Of the paper's run, for which the decay of the averaged weights is."""


def run_finetune(protocol: FineTuning, job: Job) -> Outcome:
    """Chooses learning rates on held-out training images, then trains on all of the protocol's images.

    Every run leaves its metrics in a folder of the job; those that are there are not repeated, and a run that was
    stopped is resumed.

    Args:
        protocol: How.
        job: Network, data, seed, folder and settings.

    Returns:
        Figures of the test images after the last epoch, and the learning rates with what chose them.

    Raises:
        ValueError: If the network cannot be fine-tuned, too few images are left, or training diverges.
        ChildProcessError: If a run fails; the message shows the end of its log.
    """
    network = build_backbone(job.network.checkpoint)
    if not isinstance(network, BaseModule):
        raise ValueError(
            f"{type(network).__name__} can't be fine-tuned: it must be a BaseModule of mmengine, which takes init_cfg. "
            "Choose a protocol on frozen features with --protocol"
        )
    data, folder = job.data, job.folder
    ids, held_out = choose_images(protocol, data, job.seed)
    weights = os.path.join(os.path.abspath(folder), "backbone.pth")
    with whole_file(weights) as partial:
        torch.save({"state_dict": job.network.checkpoint.state_dict}, partial)
    make = _ConfigMaker(protocol, job, weights, default_processes())
    rates, further = None, {"train_images": len(ids)}
    if protocol.grid:
        rates, chosen_by = _choose_rates(make, held_out, ids[len(held_out) :])
        further |= chosen_by
    write_ids(train_ids := f"{folder}/train.txt", ids)
    cfg = make(f"{folder}/final", train_ids, len(ids), rates, (data.test_source, None))
    _say("last: all of the images" if protocol.grid else "training", cfg.work_dir)
    metrics = run_config(cfg, make.num_processes)
    if not math.isfinite(metrics["multi-label/mAP"]):
        raise ValueError(f"Training diverged on all of the images; see {cfg.work_dir}/log.txt")
    Path(weights).unlink(missing_ok=True)  # the same command, started twice, has removed it
    figures: dict[str, Any] = {name.removeprefix("multi-label/"): value for name, value in metrics.items()}
    percent = [figures.pop(f"AP_{name}") for name in data.test.classes]
    figures["AP_per_class"] = data.by_class(percent)
    used = {"config": protocol.config, "processes": make.num_processes, **_settings_of(cfg)}
    used["batch"] = cfg.train_dataloader.batch_size * make.num_processes
    if protocol.grid:
        del used["optimizer"]["lr"]  # chosen, not set: seeds of one table row may differ
    return Outcome(figures, used, further)


def _choose_rates(
    make: "_ConfigMaker", held_out: list[str], kept: list[str]
) -> tuple[tuple[float, float], dict[str, Any]]:
    """The learning rates that are best on held-out images, and figures of all."""
    folder, grid, found = make.job.folder, make.protocol.grid, {}
    lists = [f"{folder}/{name}.txt" for name in ("held_out", "kept")]
    for name, part in zip(lists, (held_out, kept), strict=True):
        write_ids(name, part)
    for number, pair in enumerate(grid, 1):
        run = f"{folder}/backbone{pair[0]:g}_head{pair[1]:g}"
        _say(f"{number} of {len(grid) + 1}: learning rates {pair[0]:g}, {pair[1]:g}", run)
        cfg = make(run, lists[1], len(kept), pair, (make.job.data.train_source, lists[0]))
        value = run_config(cfg, make.num_processes)["multi-label/mAP"]
        found[pair] = value if math.isfinite(value) else None
    usable = {pair: value for pair, value in found.items() if value is not None}
    if not usable:
        raise ValueError(f"Training diverged with every pair of learning rates; see {folder}")
    rates = max(usable, key=usable.__getitem__)
    by_rates = {f"{a:g}, {b:g}": value for (a, b), value in found.items()}
    return rates, dict(backbone_rate=rates[0], head_rate=rates[1], held_out_mAP=by_rates)


def choose_images(protocol: FineTuning, data: BenchmarkData, seed: int) -> tuple[list[str], list[str]]:
    """Draws a protocol's part of the training images.

    Args:
        protocol: How many.
        data: Of what.
        seed: Of the draw.

    Returns:
        Ids of all images that are used, and those at their head that choose the learning rates: none without a grid.

    Raises:
        ValueError: If there are too few images, or those that choose show nothing.
    """
    ids = rank_ids(data.train.image_ids, seed)
    ids = ids[: len(ids) * protocol.percent // 100]
    held_out = ids[: len(ids) * HELD_OUT_PERCENT // 100 if protocol.grid else 0]
    if not ids or (protocol.grid and not held_out):
        raise ValueError(
            f"{protocol.percent} % of {len(data.train.paths)} training images is {len(ids)}, too few to choose "
            "learning rates on a fifth of them: use more images or a protocol with a greater part"
        )
    if held_out:
        shown = data.train.with_images(held_out, data.train_source.source).targets
        if not (shown > 0).any():
            raise ValueError(
                f"The {len(held_out)} of {len(ids)} training images that choose the learning rates show no class: use "
                "more images, another seed or a protocol with a greater part"
            )
    return ids, held_out


def _say(what: str, folder: str) -> None:
    """Reports which of the trainings is running."""
    print(f"{what}; log: {folder}/log.txt", file=sys.stderr, flush=True)


def _settings_of(cfg: Config) -> dict[str, Any]:
    """The numbers of a run that a reader asks for."""
    optimizer = cfg.optim_wrapper.optimizer
    settings = dict(
        epochs=cfg.train_cfg.max_epochs,
        size=_side(cfg.train_dataloader.dataset.pipeline),
        test_size=_side(cfg.val_dataloader.dataset.pipeline),
        optimizer=dict(optimizer),
    )
    if "ema" in cfg.default_hooks:
        settings["ema_momentum"] = cfg.default_hooks.ema.momentum
    return settings


@dataclass(frozen=True)
class _ConfigMaker:
    """Fills in a protocol's config for one run."""

    protocol: FineTuning
    job: Job
    weights: str | None
    num_processes: int

    def __call__(
        self,
        work_dir: str,
        train_ids: str,
        num_train: int,
        rates: tuple[float, float] | None,
        test: tuple[Source, str | None],
    ) -> Config:
        data, settings = self.job.data, self.job.settings
        cfg = load_recipe(self.protocol.config)
        cfg.work_dir = work_dir
        cfg.randomness = dict(seed=self.job.seed)
        cfg.val_evaluator.update(voc11=True, per_class=True, diverged_as_nan=True)
        self._set_model(cfg)
        classes = data.train.classes
        cfg.train_dataloader.dataset.update(_source_options(data.train_source), image_ids=train_ids, classes=classes)
        for loader in (cfg.val_dataloader, cfg.test_dataloader):
            loader.dataset.update(_source_options(test[0]), image_ids=test[1], classes=classes)
        loader = cfg.train_dataloader
        loader.batch_size //= self.num_processes
        for loader in (cfg.train_dataloader, cfg.val_dataloader, cfg.test_dataloader):
            loader.num_workers = min(loader.num_workers, max(1, num_cores() // 2))
            for transform in loader.dataset.pipeline:
                if transform.type == "LoadRGBImage":
                    transform.update(self.job.network.checkpoint.decoding)
        if self.num_processes > 1:
            cfg.sync_bn = "torch"
        if rates is not None:
            cfg.optim_wrapper.optimizer.lr = rates[1]
            cfg.optim_wrapper.paramwise_cfg.custom_keys.backbone.lr_mult = rates[0] / rates[1]
        if settings.epochs is not None:
            rescale_schedule(cfg, settings.epochs)
        if size := settings.size or self.protocol.size:
            for loader in (cfg.train_dataloader, cfg.val_dataloader, cfg.test_dataloader):
                pipeline = loader.dataset.pipeline
                resize_transforms(pipeline, size / _side(pipeline))
        self._average_sooner(cfg, num_train)
        apply_options(cfg, settings.options)
        return cfg

    def _set_model(self, cfg: Config) -> None:
        network, checkpoint = self.job.network, self.job.network.checkpoint
        cfg.custom_imports.imports += network.modules
        # The config's as a whole: what a ResNet-50 has, a ViT may not.
        cfg.model.backbone = dict(checkpoint.backbone)
        cfg.model.neck = dict(type="PoolLast")
        if self.weights is not None:
            cfg.model.backbone["init_cfg"] = dict(type="Pretrained", checkpoint=self.weights)
        cfg.model.head.update(num_classes=len(self.job.data.train.classes), in_channels=network.num_channels)
        cfg.model.data_preprocessor.update(mean=list(checkpoint.mean), std=list(checkpoint.std))

    def _average_sooner(self, cfg: Config, num_train: int) -> None:
        """Averages weights over the same part of a run that is shorter than the paper's."""
        if "ema" in cfg.default_hooks:
            batch = cfg.train_dataloader.batch_size * self.num_processes
            iterations = cfg.train_cfg.max_epochs * max(1, num_train // batch)
            factor = max(1.0, _ASL_ITERATIONS / iterations)
            cfg.default_hooks.ema.momentum = min(0.5, cfg.default_hooks.ema.momentum * factor)


def _source_options(source: Source) -> dict[str, Any]:
    return dict(data_root=source.source, split=source.split, image_root=source.image_root)


def _side(pipeline: list[dict[str, Any]]) -> int:
    """Side of the crops in pixels."""
    sized = [t for t in pipeline if t["type"] in ("CenterCrop", "RandomResizedCrop", "Resize")]
    planned = sized[-1].get("crop_size") or sized[-1]["scale"]
    return planned if isinstance(planned, int) else planned[0]
