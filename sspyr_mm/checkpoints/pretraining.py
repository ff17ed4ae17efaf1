"""Pre-training checkpoints: config and weights in one file."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from mmengine.config import Config
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import init_default_scope
from mmpretrain.registry import MODELS

import sspyr_mm.registration  # noqa: F401
from sspyr_mm.checkpoints.bounded import bounded_network
from sspyr_mm.checkpoints.config_text import check_types, parse_config
from sspyr_mm.checkpoints.formats.backbones import (
    NETWORK_SCOPES,
    check_offline,
    plain_config,
    without_initialisation,
)
from sspyr_mm.checkpoints.formats.locate import check_ema, full_prefix
from sspyr_mm.checkpoints.formats.weights import Selection, find_weights, under
from sspyr_mm.models import ViewModel, pretraining_models
from sspyr_mm.tensor_files import FilePath, read_checkpoint


@contextmanager
def quiet_initialisation() -> Iterator[None]:
    """Silences mmengine's log messages about initialised parameters."""
    logging.disable(logging.INFO)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)


def build_model(cfg: Config) -> ViewModel:
    """Builds the model of a pre-training config with its layers' default weights, without ``init_weights``.

    It is in evaluation mode on the CPU, with plain batch norm in place of SyncBN. Raises ValueError if the config's
    model is not one for pre-training.
    """
    if (kind := cfg.get("model", {}).get("type")) not in (known := pretraining_models()):
        raise ValueError(f"Not a pre-training config: model.type must be one of {sorted(known)}, got {kind}")
    init_default_scope("mmpretrain")
    return revert_sync_batchnorm(MODELS.build(cfg.model)).eval()


def load_pretraining(
    path: FilePath, *, allow_pickle: bool = False, select: Selection | None = None
) -> tuple[Config, ViewModel]:
    """Loads a checkpoint of pre-training; returns the config inside and its model, in evaluation mode on the CPU.

    Arguments are those of :func:`read_backbone`; the prefix of ``select`` is that of the whole model. Raises ValueError
    if the file has no config, one that :func:`check_offline` rejects, or weights that do not match it completely.
    """
    checkpoint = read_checkpoint(path, allow_pickle=allow_pickle)
    text = (checkpoint.get("meta") or {}).get("cfg")
    if not text or "state_dict" not in checkpoint:
        raise ValueError(f"{path} was not written by pre-training: it has no meta.cfg or no state_dict")
    weights = find_weights(checkpoint, path, select)
    check_ema(weights, weights.choice.averaged)
    cfg = parse_config(text)
    check_types(cfg.get("model"), NETWORK_SCOPES)
    parts = plain_config(cfg.get("model", {}))
    check_offline({**parts, "backbone": plain_config(parts.get("backbone", {}))})
    cfg.model = without_initialisation(cfg.get("model", {}))
    head = cfg.model.get("head") or {}
    if "cross_weight" in head:  # the name in checkpoints of versions before 0.2
        loss = head.get("cross_scale_loss") or {}
        head["cross_scale_loss"] = {**loss, "loss_weight": head.pop("cross_weight")}
    try:
        with bounded_network(weights.tensors.values()):
            model = build_model(cfg)
    except (TypeError, RuntimeError, MemoryError) as error:
        raise ValueError(f"{path}: the config inside does not match this version of sspyr_mm: {error}") from error
    try:
        model.load_state_dict(under(full_prefix(weights), weights.tensors))
    except RuntimeError as error:
        raise ValueError(f"{path} does not match its own config: {error}") from error
    return cfg, model
