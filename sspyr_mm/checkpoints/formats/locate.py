"""Locates the backbone among the tensors of a file."""

import re
import warnings
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from sspyr_mm.checkpoints.config_text import parse_config
from sspyr_mm.checkpoints.formats import sources, training_settings
from sspyr_mm.checkpoints.formats.backbones import build_network, complete, plain_config
from sspyr_mm.checkpoints.formats.resnet import find_prefixes, infer_config, to_canonical
from sspyr_mm.checkpoints.formats.training_settings import Normalisation, triple
from sspyr_mm.checkpoints.formats.weights import Choice, Weights, choose, counts, is_averaged, under, unwrapped
from sspyr_mm.models import pretraining_models
from sspyr_mm.pyramid import views_of

_PREFIX = "backbone."


@dataclass(frozen=True)
class BackboneCheckpoint:
    """Complete backbone under mmpretrain's tensor names, whatever the format of its file."""

    source: str  # name of the detected format, e.g. ``moco_v2``
    # Config of mmpretrain's backbone, e.g. ``dict(type="ResNet", depth=50)``. For files without a config it is inferred
    # from names and shapes; see :func:`infer_config` for the limits.
    backbone: dict[str, Any]
    state_dict: dict[str, Tensor]  # all tensors of that backbone, under its names
    # Per channel of RGB inputs in 0-255; ImageNet's unless the checkpoint states others, or is of SwAV or the official
    # code. Detectron2's BGR models (MSRA) are not supported: their files do not state the channel order.
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    patch: int | None  # side of the patches of scale 0 in pixels, for our own pre-training checkpoints
    sha256: str  # of the file
    key: str | None = None  # entry that holds the tensors, with dots for nested dicts; None: the file itself
    prefix: str = ""  # of the backbone's names in that entry
    notes: tuple[str, ...] = ()  # decisions about other networks in the file, and the options that change them
    decoding: dict[str, Any] = field(default_factory=dict)  # ``value_range``, ``background`` of ``LoadRGBImage``

    @property
    def place(self) -> str:
        """Description of the backbone's place in the file, and of the decisions about other networks."""
        where = f"entry {self.key}" if self.key else "the file itself"
        prefix = f"prefix {self.prefix}" if self.prefix else "no prefix"
        return "; ".join((f"{where}, {prefix}", *self.notes))


def locate(weights: Weights) -> BackboneCheckpoint:
    """Finds the backbone among the tensors of a file; it may be incomplete, and lacks hash, key and their notes.

    The result shares its tensors with ``weights``. Raises ValueError if the format is unknown, or there are several
    networks and the choice is ambiguous.
    """
    found = None
    asked = None if weights.select.prefix is None else full_prefix(weights).removeprefix("module.")
    if asked in (None, "", _PREFIX):
        found = _pretraining(weights) or _exported(weights)
    if found is None or asked not in (None, found.prefix):
        return _foreign(weights)
    check_ema(weights, weights.choice.averaged)
    return found


def check_ema(weights: Weights, averaged: bool) -> None:
    """Raises ValueError if weights are raw and averaged ones were requested, or the reverse."""
    ema = weights.select.ema
    if ema is not None and ema is not averaged:
        asked, there = ("averaged", "raw") if ema else ("raw", "averaged")
        option = "--ema" if ema else "--no-ema"
        raise ValueError(
            f"{weights.path} has no {asked} weights recognised as such, only {there} ones: remove {option}, or name "
            "the network with --key or --prefix"
        )


def full_prefix(weights: Weights) -> str:
    """Returns the requested prefix in the form used in names: with a final dot, and without wrappers."""
    prefix = weights.select.prefix
    return unwrapped(f"{prefix}.".replace("..", ".")) if prefix else ""


def _pretraining(weights: Weights) -> BackboneCheckpoint | None:
    text, where = weights.meta.get("cfg"), str(weights.path)
    ours = any(name.startswith(("head.prototypes.", "head.queues.", "momentum.")) for name in weights.tensors)
    if not isinstance(text, str) or not ours:
        return None
    cfg = parse_config(text).to_dict()
    model = cfg.get("model")
    if not isinstance(model, dict) or model.get("type") not in pretraining_models():
        return None
    try:
        patch = views_of(model).main.patch
        backbone = plain_config(model["backbone"])
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{where}: the config inside does not describe a model: {error}") from error
    norm = training_settings.read_normalisation(cfg, where=where)
    decoding = training_settings.training_decoding(cfg, where=where)
    state = under(_PREFIX, weights.tensors)
    return BackboneCheckpoint("sspyr_mm", backbone, state, *norm, patch, "", prefix=_PREFIX, decoding=decoding)


def _exported(weights: Weights) -> BackboneCheckpoint | None:
    meta, state, prefix, where = weights.meta, weights.tensors, "", str(weights.path)
    if not isinstance(meta.get("backbone"), dict):
        return None
    backbone = plain_config(meta["backbone"])
    if all(name.startswith(_PREFIX) for name in state):
        state, prefix = under(_PREFIX, state), _PREFIX
    if str(backbone.get("type", "")).startswith("ResNet"):
        state = to_canonical(state)
    norm = Normalisation(**{k: triple(meta[k], where=where) for k in ("mean", "std") if k in meta})
    decoding = training_settings.read_decoding(meta.get("decoding"), where=where)
    return BackboneCheckpoint("sspyr_mm_backbone", backbone, state, *norm, None, "", prefix=prefix, decoding=decoding)


def _foreign(weights: Weights) -> BackboneCheckpoint:
    tensors, where = weights.tensors, str(weights.path)
    row, choice = sources.detect(tensors, weights.choice.name), Choice("", averaged=False)
    unclear = (row is None or row.general) and find_prefixes(tensors)
    if unclear or weights.select.prefix is not None:
        choice = _choose_prefix(weights)
        if row is None or not re.fullmatch(row.prefix, choice.name):
            tensors = under(choice.name, tensors)
            row = sources.detect(tensors, "", bare=True)
    if row is None:
        raise sources.unknown(tensors, where=where)
    if weights.entries.get("__author__") == "Detectron2 Model Zoo":
        warnings.warn(
            f"{where} is from Detectron2's model zoo, whose models mostly use BGR inputs with mean 103.53, 116.28, "
            "123.675 and std 1; the file does not state this, and RGB inputs are assumed: check its config",
            stacklevel=2,
        )
    state = to_canonical(sources.select(row, tensors))
    backbone, norm = infer_config(state), Normalisation(std=row.std)
    decoding: dict[str, Any] = {}
    if cfg := training_settings.foreign_config(weights.meta, where=where):
        decoding = training_settings.training_decoding(cfg, where=where)
        norm = training_settings.read_normalisation(cfg, where=where)
        if training_settings.style(cfg) == "caffe":
            backbone["style"] = "caffe"
    # The prefix of a row that is not general is a pattern without alternatives, except for C4 detectors.
    prefix = choice.name or next((m.group() for n in tensors if (m := re.match(row.prefix, n))), "")
    check_ema(weights, weights.choice.averaged or choice.averaged)
    return BackboneCheckpoint(row.name, backbone, state, *norm, None, "", None, prefix, choice.notes, decoding)


def _choose_prefix(weights: Weights) -> Choice:
    found = {prefix: under(prefix, weights.tensors) for prefix in find_prefixes(weights.tensors)}
    if weights.select.prefix is None:
        return choose(
            {prefix: _trunk(state) for prefix, state in found.items()},
            path=weights.path,
            option="--prefix",
            ema=weights.select.ema,
            is_whole=lambda prefix: _is_whole(found[prefix]),
        )
    wanted = full_prefix(weights)
    while wanted not in found and wanted.startswith("module."):
        wanted = wanted.removeprefix("module.")
    if wanted not in found:
        networks = f"ResNets are under {counts(found)}" if found else "the file has no ResNet"
        raise ValueError(f"{weights.path} has no ResNet under --prefix {wanted or repr('')}; {networks}")
    return Choice(wanted, averaged=is_averaged(wanted))


def _trunk(state: dict[str, Tensor]) -> dict[str, Tensor]:
    row = sources.detect(state, "", bare=True)
    return sources.select(row, state) if row else state


def _is_whole(state: dict[str, Tensor]) -> bool:
    try:
        trunk = to_canonical(_trunk(state))
        complete(trunk, build_network(infer_config(trunk)), what="")
    except ValueError:
        return False
    return True
