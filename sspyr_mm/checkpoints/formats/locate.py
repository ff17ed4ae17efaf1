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
from sspyr_mm.checkpoints.formats.weights import (
    Choice,
    Selection,
    Weights,
    choose,
    counts,
    is_averaged,
    under,
    unwrapped,
)
from sspyr_mm.pyramid import PyramidSpec

_PREFIX = "backbone."


@dataclass(frozen=True)
class Located:
    """Unchecked backbone; see :class:`BackboneCheckpoint`."""

    source: str
    backbone: dict[str, Any]
    state: dict[str, Tensor]
    norm: Normalisation
    patch: int | None = None
    prefix: str = ""
    averaged: bool = False
    notes: tuple[str, ...] = ()
    decoding: dict[str, Any] = field(default_factory=dict)


def locate(where: str, weights: Weights, select: Selection | None = None) -> Located:
    """Finds the backbone among the tensors of a file, complete or not.

    Args:
        where: The file, for messages.
        weights: Its tensors.
        select: Network to read if there are several.

    Returns:
        The backbone; its tensors are those of ``weights``, not copies.

    Raises:
        ValueError: If the format is unknown, or there are several networks and the choice is ambiguous.
    """
    select = select or Selection()
    found = None
    asked = None if select.prefix is None else full_prefix(select).removeprefix("module.")
    if asked in (None, "", _PREFIX):
        found = _pretraining(weights, where)
        if found is None and isinstance(weights.meta.get("backbone"), dict):
            found = _exported(weights, where)
    if found is None or asked not in (None, found.prefix):
        found = _foreign(weights, where, select)
    check_ema(select, weights.averaged or found.averaged, where=where)
    return found


def check_ema(select: Selection, averaged: bool, *, where: str) -> None:
    """Rejects weights that are not of the requested kind.

    Args:
        select: Requested network.
        averaged: Whether the weights are averages over training steps.
        where: The file, for messages.

    Raises:
        ValueError: If they are raw and averaged ones were requested, or the reverse.
    """
    if select.ema is not None and select.ema is not averaged:
        asked, there = ("averaged", "raw") if select.ema else ("raw", "averaged")
        option = "--ema" if select.ema else "--no-ema"
        raise ValueError(
            f"{where} has no {asked} weights recognised as such, only {there} ones: remove {option}, or name "
            "the network with --key or --prefix"
        )


def _pretraining(weights: Weights, where: str) -> Located | None:
    text = weights.meta.get("cfg")
    ours = any(name.startswith("head.prototypes.") for name in weights.tensors)
    if not isinstance(text, str) or not ours:
        return None
    cfg = parse_config(text).to_dict()
    model = cfg.get("model")
    if not isinstance(model, dict) or model.get("type") != "SSPRL":
        return None
    try:
        patch = PyramidSpec.from_config(model["pyramid"]).scales[0].patch
        backbone = plain_config(model["backbone"])
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{where}: the config inside does not describe a model: {error}") from error
    norm = training_settings.read_normalisation(cfg, where=where)
    decoding = training_settings.training_decoding(cfg, where=where)
    state = under(_PREFIX, weights.tensors)
    return Located("sspyr_mm", backbone, state, norm, patch, prefix=_PREFIX, decoding=decoding)


def _exported(weights: Weights, where: str) -> Located:
    backbone, state, prefix = plain_config(weights.meta["backbone"]), weights.tensors, ""
    if all(name.startswith(_PREFIX) for name in state):
        state, prefix = under(_PREFIX, state), _PREFIX
    if str(backbone.get("type", "")).startswith("ResNet"):
        state = to_canonical(state)
    given = {k: triple(weights.meta[k], where=where) for k in ("mean", "std") if k in weights.meta}
    norm = Normalisation(**given)
    decoding = training_settings.read_decoding(weights.meta.get("decoding"), where=where)
    return Located("sspyr_mm_backbone", backbone, state, norm, prefix=prefix, decoding=decoding)


def _foreign(weights: Weights, where: str, select: Selection) -> Located:
    tensors = weights.tensors
    row, choice = sources.detect(tensors, weights.container), Choice("", averaged=False)
    unclear = (row is None or row.general) and find_prefixes(tensors)
    if unclear or select.prefix is not None:
        choice = _choose_prefix(tensors, where, select)
        if row is None or not re.fullmatch(row.prefix, choice.name):
            tensors = under(choice.name, tensors)
            row = sources.detect(tensors, None, bare=True)
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
    return Located(row.name, backbone, state, norm, None, prefix, choice.averaged, choice.notes, decoding)


def _choose_prefix(tensors: dict[str, Tensor], where: str, select: Selection) -> Choice:
    found = {prefix: under(prefix, tensors) for prefix in find_prefixes(tensors)}
    if select.prefix is None:
        return choose(
            {prefix: _trunk(state) for prefix, state in found.items()},
            where=where,
            option="--prefix",
            ema=select.ema,
            is_whole=lambda prefix: _is_whole(found[prefix]),
        )
    wanted = full_prefix(select)
    while wanted not in found and wanted.startswith("module."):
        wanted = wanted.removeprefix("module.")
    if wanted not in found:
        networks = f"ResNets are under {counts(found)}" if found else "the file has no ResNet"
        raise ValueError(f"{where} has no ResNet under --prefix {wanted or repr('')}; {networks}")
    return Choice(wanted, averaged=is_averaged(wanted))


def full_prefix(select: Selection) -> str:
    """Returns the prefix as used in names: with a final dot, and without wrappers."""
    prefix = f"{select.prefix}.".replace("..", ".") if select.prefix else ""
    return unwrapped(prefix)


def _trunk(state: dict[str, Tensor]) -> dict[str, Tensor]:
    row = sources.detect(state, None, bare=True)
    return sources.select(row, state) if row else state


def _is_whole(state: dict[str, Tensor]) -> bool:
    try:
        trunk = to_canonical(_trunk(state))
        complete(trunk, build_network(infer_config(trunk)), what="")
    except ValueError:
        return False
    return True
