"""The configs that protocols run."""

import argparse
import difflib
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


_FIXED = ("randomness.seed", "work_dir", "load_from", "resume", "launcher")
"""Options that commands set themselves: a seed, a network and a folder are what a result is filed under."""


def _check_option(cfg: Config, key: str) -> None:
    if key in _FIXED or ".init_cfg" in key or key == "randomness":
        raise ValueError(
            f"--cfg-options {key} would change what is measured, which the command itself says: give another "
            "checkpoint, --seeds or --work-dir"
        )
    node, parts = cfg, key.split(".")
    for depth, part in enumerate(parts[:-1]):
        if isinstance(node, (list, tuple)):
            if not (part.isdecimal() and int(part) < len(node)):
                return  # mmengine's message says how long the list is
            node = node[int(part)]
        elif isinstance(node, Mapping) or node is cfg:
            if part not in node:
                near = difflib.get_close_matches(part, list(node))
                missing = ".".join(parts[: depth + 1])
                raise ValueError(
                    f"--cfg-options {key} does not fit the config of the protocol: there is no {missing}"
                    + (f"; is {near[0]} meant?" if near else "")
                )
            node = node[part]


def apply_options(cfg: Config, options: Mapping[str, Any] | None) -> None:
    """Changes a config in place, as ``--cfg-options`` of mm's tools.

    Args:
        cfg: What to change.
        options: Such as ``{"model.train_cfg.rcnn.sampler.num": 64}``.

    Raises:
        ValueError: If the config has no place for an option, or the option says what is measured, not how.
    """
    for key, value in (options or {}).items():
        _check_option(cfg, key)
        try:
            cfg.merge_from_dict({key: value})
        except (KeyError, TypeError, AssertionError, IndexError, ValueError) as error:
            raise ValueError(
                f"--cfg-options {key}={value} does not fit the config of the protocol: {error}"
            ) from error
