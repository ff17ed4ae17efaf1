"""Fine-tuning of the whole network: a config of ``configs/benchmarks/classification`` per protocol, run by mmengine."""

import itertools
import math
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mmengine.config import Config

from sspyr_mm.benchmarks.classification.multi_label_data import BenchmarkData, Source
from sspyr_mm.benchmarks.settings import Settings
from sspyr_mm.benchmarks.training.process import run_config
from sspyr_mm.benchmarks.training.recipes import apply_options, load_recipe
from sspyr_mm.datasets.splits import rank_ids, write_ids
from sspyr_mm.machine import num_cores

HELD_OUT_PERCENT = 20
"""Part of the training images that chooses the learning rates; then all of them train."""


@dataclass(frozen=True)
class FinetuneProtocol:
    """How a network is fine-tuned.

    Args:
        config: File below ``configs/benchmarks``.
        percent: Part of the training images that is used.
        head_rates: Learning rates of the last layer to choose from; empty: the config's.
        backbone_rates: Learning rates of the backbone to choose from.
        size: Side of crops in pixels, where it is not the config's.
    """

    config: str
    percent: int = 100
    head_rates: tuple[float, ...] = ()
    backbone_rates: tuple[float, ...] = ()
    size: int | None = None

    @property
    def grid(self) -> list[tuple[float, float]]:
        """Pairs of learning rates of backbone and head."""
        return list(itertools.product(self.backbone_rates, self.head_rates))


# Source: paper, semi-supervised learning: both rates from a grid in [.001, .1].
_RATES = (0.001, 0.01, 0.1)
FINETUNE = {
    "semi1": FinetuneProtocol("classification/semi_coco14_1pct_20e.py", 1, _RATES, _RATES),
    "semi10": FinetuneProtocol("classification/semi_coco14_10pct_20e.py", 10, _RATES, _RATES),
    "semi100": FinetuneProtocol("classification/semi_coco14_100pct_20e.py", 100, _RATES, _RATES),
    "asl": FinetuneProtocol("classification/asl_coco14_40e.py"),
    "asl224": FinetuneProtocol("classification/asl_coco14_40e.py", size=224),
}
_ASL_ITERATIONS = 40 * (82783 // 128)
"""Of the paper's run, for which the decay of the averaged weights is."""


@dataclass(frozen=True)
class Outcome:
    """What fine-tuning led to.

    Args:
        metrics: Of the test images after the last epoch.
        settings: Numbers of the run that was measured.
        chosen: Learning rates, and what they were chosen by.
    """

    metrics: dict[str, float]
    settings: dict[str, Any]
    chosen: dict[str, Any]


@dataclass(frozen=True)
class Start:
    """What fine-tuning starts from.

    Args:
        backbone: Its mmpretrain config.
        weights: File of its weights, or None for random ones.
        mean: Per channel (RGB), in 0-255.
        std: Per channel (RGB), in 0-255.
        num_channels: C, of the pooled features.
        custom_imports: Modules that register the backbone, where it is none of mmpretrain's.
        decoding: Options of ``LoadRGBImage``.
    """

    backbone: dict[str, Any]
    weights: str | None
    mean: Sequence[float]
    std: Sequence[float]
    num_channels: int
    custom_imports: Sequence[str] = ()
    decoding: Mapping[str, Any] = field(default_factory=dict)


def run_finetune(
    protocol: FinetuneProtocol,
    start: Start,
    data: BenchmarkData,
    *,
    seed: int,
    work_dir: str,
    num_processes: int,
    settings: Settings | None = None,
) -> Outcome:
    """Chooses learning rates on held-out training images, then trains on all of the protocol's images.

    Every run leaves its metrics in a folder of ``work_dir``; those that are there are not repeated, and a run that was
    stopped goes on.

    Args:
        protocol: How.
        start: From what.
        data: Training and test images.
        seed: Of lists, starting point and augmentation.
        work_dir: Where runs and checkpoints go; to be used for this network, data and settings only.
        num_processes: Devices to train on, a process each; the batch is divided among them.
        settings: What differs from the protocol.

    Returns:
        Metrics, settings and what was chosen.

    Raises:
        ValueError: If too few images are left, or training diverges.
        ChildProcessError: If a run fails; the message shows the end of its log.
    """
    ids, held_out = choose_images(protocol, data, seed)
    os.makedirs(work_dir, exist_ok=True)
    make = _ConfigMaker(protocol, start, data, seed, settings or Settings(), num_processes)
    chosen: dict[str, Any] = {"train_images": len(ids)}
    rates = None
    if protocol.grid:
        lists = [f"{work_dir}/{name}.txt" for name in ("held_out", "kept")]
        kept = ids[len(held_out) :]
        for name, part in zip(lists, (held_out, kept), strict=True):
            write_ids(name, part)
        found = {}
        for number, pair in enumerate(protocol.grid, 1):
            folder = f"{work_dir}/backbone{pair[0]:g}_head{pair[1]:g}"
            _say(
                f"{number} of {len(protocol.grid) + 1}: learning rates {pair[0]:g}, {pair[1]:g}",
                folder,
            )
            cfg = make(folder, lists[1], len(kept), pair, (data.train_source, lists[0]))
            value = run_config(cfg, num_processes)["multi-label/mAP"]
            found[pair] = value if math.isfinite(value) else None
        usable = {pair: value for pair, value in found.items() if value is not None}
        if not usable:
            raise ValueError(f"Training diverged with every pair of learning rates; see {work_dir}")
        rates = max(usable, key=usable.__getitem__)
        chosen.update(backbone_rate=rates[0], head_rate=rates[1])
        chosen["held_out_mAP"] = {f"{a:g}, {b:g}": value for (a, b), value in found.items()}
    write_ids(f"{work_dir}/train.txt", ids)
    cfg = make(
        f"{work_dir}/final", f"{work_dir}/train.txt", len(ids), rates, (data.test_source, None)
    )
    _say("last: all of the images" if protocol.grid else "training", cfg.work_dir)
    metrics = run_config(cfg, num_processes)
    if not math.isfinite(metrics["multi-label/mAP"]):
        raise ValueError(f"Training diverged on all of the images; see {cfg.work_dir}/log.txt")
    used = {"config": protocol.config, "processes": num_processes, **_settings_of(cfg)}
    used["batch"] = cfg.train_dataloader.batch_size * num_processes
    if protocol.grid:
        del used["optimizer"]["lr"]  # chosen, not set: seeds of one table row may differ
    return Outcome(metrics, used, chosen)


def choose_images(
    protocol: FinetuneProtocol, data: BenchmarkData, seed: int
) -> tuple[list[str], list[str]]:
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
    """Tells which of the trainings is running."""
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

    protocol: FinetuneProtocol
    start: Start
    data: BenchmarkData
    seed: int
    settings: Settings
    num_processes: int

    def __call__(
        self,
        work_dir: str,
        train_ids: str,
        num_train: int,
        rates: tuple[float, float] | None,
        test: tuple[Source, str | None],
    ) -> Config:
        cfg = load_recipe(self.protocol.config)
        cfg.work_dir = work_dir
        cfg.randomness = dict(seed=self.seed)
        cfg.val_evaluator.update(voc11=True, per_class=True, diverged_as_nan=True)
        self._set_model(cfg)
        classes = self.data.train.classes
        cfg.train_dataloader.dataset.update(
            _source_options(self.data.train_source), image_ids=train_ids, classes=classes
        )
        for loader in (cfg.val_dataloader, cfg.test_dataloader):
            loader.dataset.update(_source_options(test[0]), image_ids=test[1], classes=classes)
        loader = cfg.train_dataloader
        loader.batch_size //= self.num_processes
        for loader in (cfg.train_dataloader, cfg.val_dataloader, cfg.test_dataloader):
            loader.num_workers = min(loader.num_workers, max(1, num_cores() // 2))
            for transform in loader.dataset.pipeline:
                if transform.type == "LoadRGBImage":
                    transform.update(self.start.decoding)
        if self.num_processes > 1:
            cfg.sync_bn = "torch"
        if rates is not None:
            cfg.optim_wrapper.optimizer.lr = rates[1]
            cfg.optim_wrapper.paramwise_cfg.custom_keys.backbone.lr_mult = rates[0] / rates[1]
        if self.settings.epochs is not None:
            self._shorten(cfg, self.settings.epochs)
        if size := self.settings.size or self.protocol.size:
            for loader in (cfg.train_dataloader, cfg.val_dataloader, cfg.test_dataloader):
                _resize(loader.dataset.pipeline, size)
        self._average_sooner(cfg, num_train)
        apply_options(cfg, self.settings.options)
        return cfg

    def _set_model(self, cfg: Config) -> None:
        cfg.custom_imports.imports += self.start.custom_imports
        # The config's as a whole: what a ResNet-50 has, a ViT may not.
        cfg.model.backbone = dict(self.start.backbone)
        cfg.model.neck = dict(type="PoolLast")
        if self.start.weights is not None:
            cfg.model.backbone["init_cfg"] = dict(type="Pretrained", checkpoint=self.start.weights)
        cfg.model.head.update(
            num_classes=len(self.data.train.classes), in_channels=self.start.num_channels
        )
        cfg.model.data_preprocessor.update(mean=list(self.start.mean), std=list(self.start.std))

    def _shorten(self, cfg: Config, epochs: int) -> None:
        """The schedule in the same proportions."""
        schedule = cfg.param_scheduler
        if "milestones" in schedule:
            planned = cfg.train_cfg.max_epochs
            schedule.milestones = [max(1, m * epochs // planned) for m in schedule.milestones]
        cfg.train_cfg.max_epochs = epochs

    def _average_sooner(self, cfg: Config, num_train: int) -> None:
        """Averages weights over the same part of a run that is shorter than the paper's."""
        if "ema" in cfg.default_hooks:
            batch = cfg.train_dataloader.batch_size * self.num_processes
            iterations = cfg.train_cfg.max_epochs * max(1, num_train // batch)
            factor = max(1.0, _ASL_ITERATIONS / iterations)
            cfg.default_hooks.ema.momentum = min(0.5, cfg.default_hooks.ema.momentum * factor)


def _source_options(source: Source) -> dict[str, Any]:
    return dict(data_root=source.source, split=source.split, image_root=source.image_root)


def _resize(pipeline: list[dict[str, Any]], size: int) -> None:
    """Another side for all transforms, in the same proportions to the last one that sets it."""
    factor = size / _side(pipeline)
    for transform in pipeline:
        for name in ("scale", "crop_size", "shape"):
            value = transform.get(name)
            if isinstance(value, int):
                transform[name] = round(value * factor)
            elif value is not None:
                transform[name] = tuple(round(side * factor) for side in value)


def _side(pipeline: list[dict[str, Any]]) -> int:
    """Side of the crops in pixels."""
    sized = [t for t in pipeline if t["type"] in ("CenterCrop", "RandomResizedCrop", "Resize")]
    planned = sized[-1].get("crop_size") or sized[-1]["scale"]
    return planned if isinstance(planned, int) else planned[0]
