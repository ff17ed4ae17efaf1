"""Configs of protocols, and changes of their schedule, image size and options."""

import argparse
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from mmengine.config import Config, DictAction

from sspyr_mm.engine.options import merge_options
from sspyr_mm.files import configs_dir

_FIXED = ("randomness", "randomness.seed", "work_dir", "load_from", "resume", "launcher")
"""Options that the command sets itself: seed, network and folder identify a result."""
_SIDES = ("scale", "size", "crop_size", "shape")
"""Arguments of transforms that are image sides: one side or (width, height), in pixels."""


def load_recipe(name: str) -> Config:
    """Reads a config, given its path below ``configs/benchmarks``."""
    return Config.fromfile(configs_dir() / "benchmarks" / name)


def parse_options(texts: Sequence[str] | None) -> dict[str, Any] | None:
    """Parses ``--cfg-options`` such as ``model.train_cfg.rcnn.sampler.num=64`` like OpenMMLab's tools.

    Raises ValueError if a text has no key.
    """
    if not texts:
        return None
    for text in texts:
        if not re.match(r"[^=\s]+=", text):
            raise ValueError(f"--cfg-options must be KEY=VALUE, such as optim_wrapper.optimizer.lr=0.01; got {text!r}")
    parser = argparse.ArgumentParser()
    parser.add_argument("options", action=DictAction, nargs="+")
    return parser.parse_args(["--", *texts]).options


def apply_options(cfg: Config, options: Mapping[str, Any] | None) -> None:
    """Merges options into a config in place, see :func:`merge_options`.

    Raises ValueError if nothing reads an option, its value does not fit, or the command sets it itself.
    """
    options = options or {}
    for key in options:
        if key in _FIXED or ".init_cfg" in key:
            raise ValueError(
                f"--cfg-options {key} is set by the command itself, since it identifies the result: give another "
                "checkpoint, --seeds or --work-dir"
            )
    try:
        merge_options(cfg, options)
    except (TypeError, AssertionError, IndexError) as error:
        shown = ", ".join(f"{key}={value}" for key, value in options.items())
        raise ValueError(f"--cfg-options {shown} does not fit the config of the protocol: {error}") from error


def rescale_schedule(cfg: Config, length: int) -> None:
    """Sets the epochs or iterations of a config in place; its schedules keep their proportions.

    If the training becomes longer, a schedule that ends before it is unchanged: with 90,000 steps, Mask R-CNN trains
    the whole 1x schedule, whose first 15,000 steps are the protocol. Epochs are rounded down, steps up.
    """
    by_epoch = "max_epochs" in cfg.train_cfg
    unit = "max_epochs" if by_epoch else "max_iters"
    before = cfg.train_cfg[unit]
    factor = length / before

    def scaled(value: int) -> int:
        return max(1, value * length // before) if by_epoch else math.ceil(value * factor)

    cfg.train_cfg.update({unit: length, "val_interval": length})
    listed = isinstance(cfg.param_scheduler, list)
    for schedule in cfg.param_scheduler if listed else [cfg.param_scheduler]:
        if factor > 1 and schedule.get("end", before) != before:
            continue
        for name in ("begin", "end"):
            if schedule.get(name):
                schedule[name] = scaled(schedule[name])
        if "milestones" in schedule:
            schedule.milestones = [scaled(milestone) for milestone in schedule.milestones]
    if listed:
        # A warm-up of one step would never end: a schedule starts with the value of its first step.
        cfg.param_scheduler = [s for s in cfg.param_scheduler if s.get("end", math.inf) - s.get("begin", 0) > 1]


def resize_transforms(transforms: Iterable[Any], factor: float) -> None:
    """Multiplies the image sides in configs of transforms, in place; each config must occur once."""

    def scaled(side: Any) -> Any:
        if isinstance(side, int):
            return round(side * factor)
        return tuple(round(one * factor) for one in side)

    for transform in transforms:
        for name in _SIDES:
            if transform.get(name) is not None:
                transform[name] = scaled(transform[name])
        if "scales" in transform:
            transform["scales"] = [scaled(scale) for scale in transform["scales"]]
