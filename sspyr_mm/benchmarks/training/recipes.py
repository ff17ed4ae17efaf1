"""The configs that protocols run."""

import argparse
from collections.abc import Mapping, Sequence
from typing import Any

from mmengine.config import Config, DictAction

from sspyr_mm.files import configs_dir


def load_recipe(name: str) -> Config:
    """A config of ``configs/benchmarks``.

    Args:
        name: Its file below that folder.
    """
    return Config.fromfile(configs_dir() / "benchmarks" / name)


def parse_options(texts: Sequence[str] | None) -> dict[str, Any] | None:
    """Reads options as mm's tools do: numbers, None, lists and tuples are told by how they are written.

    Args:
        texts: Such as ``model.train_cfg.rcnn.sampler.num=64``.

    Returns:
        Values by key; None where there are no texts.
    """
    if not texts:
        return None
    parser = argparse.ArgumentParser()
    parser.add_argument("options", action=DictAction, nargs="+")
    return parser.parse_args(["--", *texts]).options


def apply_options(cfg: Config, options: Mapping[str, Any] | None) -> None:
    """Changes a config in place, as ``--cfg-options`` of mm's tools.

    Args:
        cfg: What to change.
        options: Such as ``{"model.train_cfg.rcnn.sampler.num": 64}``.

    Raises:
        ValueError: If the config has no place for an option.
    """
    for key, value in (options or {}).items():
        try:
            cfg.merge_from_dict({key: value})
        except (KeyError, TypeError, AssertionError, IndexError, ValueError) as error:
            raise ValueError(
                f"--cfg-options {key}={value} does not fit the config of the protocol: {error}"
            ) from error
