"""Pre-training checkpoints: config and weights in one file."""

import copy
import logging
import os
import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from mmengine.config import Config
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import init_default_scope
from mmpretrain.registry import MODELS

import sspyr_mm.registration  # noqa: F401
from sspyr_mm.checkpoints.config_text import parse_config
from sspyr_mm.models import SSPRL

_LOG_GLOBALS = ("mmengine.logging.", "numpy.", "builtins.getattr")
"""What mmengine's message hub, the log inside of its checkpoints, is pickled with."""


class _Inert:
    """Stands in for every part of the message hub: takes anything, does nothing."""

    def __init__(self, *_: Any) -> None: ...

    def __setstate__(self, state: Any) -> None: ...


def read_checkpoint(path: str) -> dict[str, Any]:
    """Reads a file of tensors and plain values; nothing in it is executed.

    The message hub of mmengine's checkpoints needs more than that; it is left out.

    Args:
        path: A file.

    Returns:
        The checkpoint.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is no checkpoint, or one that needs arbitrary pickle.
    """
    if not os.path.isfile(path):
        raise FileNotFoundError(
            f"No checkpoint at {path}: give a .pth file, e.g. WORK_DIR/epoch_50.pth"
        )
    if not hasattr(torch.serialization, "get_unsafe_globals_in_checkpoint"):
        raise ValueError(
            f"Reading checkpoints safely needs torch >= 2.6, this is {torch.__version__}: update torch"
        )
    try:
        with torch.serialization.safe_globals([(_Inert, name) for name in _globals_of_log(path)]):
            checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, KeyError, OSError) as error:
        raise ValueError(
            f"{path} is not a checkpoint of tensors and plain values: {error}"
        ) from error
    if not isinstance(checkpoint, dict):
        raise ValueError(
            f"{path} holds a {type(checkpoint).__name__}, not a dict with a state_dict"
        )
    checkpoint.pop("message_hub", None)
    return checkpoint


def _globals_of_log(path: str) -> list[str]:
    try:
        names = torch.serialization.get_unsafe_globals_in_checkpoint(path)
        return [name for name in names if name.startswith(_LOG_GLOBALS)]
    except ValueError:  # not a zip archive: an old checkpoint, which has no log, or none at all
        return []


@contextmanager
def _quiet() -> Iterator[None]:
    """Silences the paragraph mmengine logs about every initialised parameter."""
    logging.disable(logging.INFO)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)


def build_model(cfg: Config) -> SSPRL:
    """The network of a config, with the numbers its layers happen to be made with.

    Args:
        cfg: A pre-training config.

    Returns:
        The model on the CPU, with plain batch norm in place of SyncBN, in evaluation mode.

    Raises:
        ValueError: If the config's model is not SSPRL.
    """
    if cfg.get("model", {}).get("type") != "SSPRL":
        raise ValueError(
            f"Not a pre-training config: model.type must be SSPRL, got {cfg.get('model', {}).get('type')}"
        )
    init_default_scope("mmpretrain")
    return revert_sync_batchnorm(MODELS.build(cfg.model)).eval()


def random_model(cfg: Config) -> SSPRL:
    """The same network before any training: what a probe compares with.

    Args:
        cfg: A pre-training config; a backbone it would start from is left out.

    Returns:
        As :func:`build_model`, initialised.
    """
    cfg = copy.deepcopy(cfg)
    cfg.model.pop("pretrained", None)
    for part in (cfg.model, cfg.model.backbone):
        if isinstance(part.get("init_cfg"), dict) and part.init_cfg.get("type") == "Pretrained":
            part.pop("init_cfg")
    model = build_model(cfg)
    with _quiet():
        model.init_weights()
    return model.eval()


def load_pretraining(path: str) -> tuple[Config, SSPRL]:
    """A model as training left it, from the config inside of its checkpoint.

    Args:
        path: A checkpoint written by training.

    Returns:
        The config and the model, in evaluation mode on the CPU.

    Raises:
        ValueError: If the file holds no config, or weights that do not match it completely.
    """
    checkpoint = read_checkpoint(path)
    text = (checkpoint.get("meta") or {}).get("cfg")
    if not text or "state_dict" not in checkpoint:
        raise ValueError(
            f"{path} was not written by pre-training: it has no meta.cfg or no state_dict"
        )
    cfg = parse_config(text)
    model = build_model(cfg)
    try:
        result = model.load_state_dict(checkpoint["state_dict"], strict=False)
    except RuntimeError as error:  # shapes
        raise ValueError(f"{path} does not match its own config: {error}") from error
    if result.missing_keys or result.unexpected_keys:
        raise ValueError(
            f"{path} does not match its own config: missing {result.missing_keys}, unexpected {result.unexpected_keys}"
        )
    return cfg, model
