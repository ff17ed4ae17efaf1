"""Tensors of one network in a file, and the data stored next to them."""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from sspyr_mm.checkpoints.formats.resnet import find_prefixes
from sspyr_mm.files import shortened
from sspyr_mm.tensor_files import FilePath

_WRAPPERS = re.compile(r"(?:^|(?<=\.))(?:_orig_mod|_fsdp_wrapped_module|_forward_module|_checkpoint_wrapped_module)\.")
"""Name components inserted by torch.compile, FSDP, DeepSpeed and activation checkpointing."""
_COUNTERS = ("n_averaged", "steps")
"""Counter buffers of averaged models in torch and mmengine."""
_AVERAGED = {"ema", "swa", "avg", "averaged", "average", "teacher"}
_MOMENTUM = {"momentum", "target", "key", "k"}
_MAX_DEPTH, _MAX_DICTS = 8, 20_000


@dataclass(frozen=True)
class Selection:
    """Network to read from a file that holds several; None: detected."""

    key: str | None = None  # entry that holds the tensors, with dots for nested dicts, e.g. ``model.state_dict``
    prefix: str | None = None  # of the backbone's names, e.g. ``encoder_k.``; '' for none
    ema: bool | None = None  # whether to read averaged weights if the file also has raw ones; None: if there are any


class Choice(NamedTuple):
    """Network chosen among several."""

    name: str  # entry or prefix
    averaged: bool  # whether the weights are averages over training steps
    notes: tuple[str, ...] = ()  # decisions and the options that change them; empty if there was no choice


@dataclass(frozen=True)
class Weights:
    """Tensors of a file by name, without the name components that wrappers insert."""

    path: FilePath
    select: Selection  # network that was requested
    tensors: dict[str, Tensor]
    choice: Choice  # entry of the file that holds the tensors, '' for the file itself
    meta: dict[str, Any]  # ``meta`` of the file, empty if it has none
    entries: dict[str, Any]  # other entries of the file


def find_weights(checkpoint: dict[str, Any], path: FilePath, select: Selection | None) -> Weights:
    """Finds the tensors of a network in nested dicts, and converts numpy arrays to tensors.

    Raises ValueError if there are no tensors, or several networks and the choice is ambiguous.
    """
    select = select or Selection()
    found = dict(_tensor_dicts(checkpoint))
    if not found:
        raise ValueError(f"{path} and its nested dicts hold no tensors; its entries are {shortened(checkpoint, 3)}")
    candidates = _candidates(found, select.key, path)
    states = {k: _tensors(v, f"{path}: {k}" if k else str(path)) for k, v in candidates.items()}
    choice = choose(
        states,
        path=path,
        option="--key",
        ema=select.ema,
        averaged=_averaged_by_mmengine(checkpoint),
        named=select.key is not None or select.prefix is not None,
    )
    tensors = states[choice.name]
    if any(name.startswith("ema_") and "." not in name for name in tensors):
        choice = choice._replace(notes=(*choice.notes, "the buffers ema_* of mmcv's EMAHook are not read"))
    meta, first = checkpoint.get("meta"), choice.name.partition(".")[0]
    entries = {k: v for k, v in checkpoint.items() if first and k not in (first, "meta")}
    return Weights(path, select, tensors, choice, meta if isinstance(meta, dict) else {}, entries)


def choose(
    found: Mapping[str, Mapping[str, Tensor]],
    *,
    path: FilePath,
    option: str,
    ema: bool | None = None,
    averaged: str | None = None,
    named: bool = False,
    is_whole: Callable[[str], bool] = lambda name: True,
) -> Choice:
    """Chooses one of several networks by the words in their names.

    Args:
        found: Tensors by entry or prefix.
        path: The file, for messages.
        option: Command-line option that selects a network, for messages.
        ema: Attribute of :class:`Selection`.
        averaged: Entry that is known to be averaged, so that others are not; None to decide by names.
        named: Whether the user has named the network, which may then be a momentum encoder.
        is_whole: Function that returns whether a network is complete; used if nothing else decides.

    Raises:
        ValueError: If several networks remain, or only momentum encoders.
    """
    left: dict[str, Mapping[str, Tensor]] = {}
    for name, state in found.items():
        if not any(_same(state, other) for other in left.values()):
            left[name] = state
    notes: list[str] = []
    momentum = [name for name in left if _words(name) & _MOMENTUM]
    if momentum and len(momentum) == len(left) and not named:
        raise ValueError(
            f"{path} holds a momentum encoder without its network: {counts(left)}; read it with {option} NAME"
        )
    if 0 < len(momentum) < len(left):
        left = {name: state for name, state in left.items() if name not in momentum}
        notes.append(f"the momentum encoder is not used: {option} {momentum[0]} selects it")
    means = [n for n in left if (n == averaged if averaged else is_averaged(n))]
    raw = [name for name in left if name not in means]
    if len(means) == len(raw) == 1 and _alike(left[means[0]], left[raw[0]]):
        pair = (f"averaged weights ({means[0]})", f"raw ones ({raw[0] or 'no prefix'})")
        taken, other, flag = (*pair, "--no-ema") if ema is not False else (*pair[::-1], "--ema")
        notes.append(f"{taken} are used; {flag} selects the {other}")
        name = raw[0] if ema is False else means[0]
        return Choice(name, name in means, tuple(notes))
    if len(left) > 1:
        left = {name: state for name, state in left.items() if is_whole(name)} or left
    if len(left) > 1:
        raise ValueError(f"{path} holds several networks: {counts(left)}. Choose one with {option} NAME")
    (name,) = left
    return Choice(name, name in means, tuple(notes))


def is_averaged(name: str) -> bool:
    """Returns whether the words of an entry or prefix mean that its weights are averages over training steps."""
    return bool(_words(name) & _AVERAGED)


def under(prefix: str, tensors: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the tensors whose names begin with a prefix, without the prefix."""
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}


def unwrapped(name: str) -> str:
    """Returns a name without the components that wrappers insert."""
    return _WRAPPERS.sub("", name)


def counts(found: Mapping[str, Any]) -> str:
    """Formats entries or prefixes with their numbers of tensors, for messages."""
    return shortened([f"{name or repr('')} ({len(state)} tensors)" for name, state in found.items()], 8)


def _candidates(found: Mapping[str, dict[str, Any]], key: str | None, path: FilePath) -> dict[str, dict[str, Any]]:
    """Returns the dicts that may hold a network: those with a ResNet or, without any, the large ones."""
    # Dicts of an optimizer are small: they hold two or three tensors per parameter.
    most = max(map(len, found.values()))
    large = {k: v for k, v in found.items() if 2 * len(v) >= most}
    likely = {k: v for k, v in found.items() if find_prefixes(v)} or large
    if key is None:
        return likely
    if key in found:
        return {key: found[key]}
    inside = {k: v for k, v in likely.items() if k.startswith(f"{key}.")}
    if not inside:
        raise ValueError(f"{path} has no tensors under --key {key}; it has {counts(likely)}")
    return inside


def _tensor_dicts(checkpoint: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields every dict that holds arrays, with its path, outermost first."""
    level: list[tuple[str, Any]] = [("", checkpoint)]
    visited = 0
    for _ in range(_MAX_DEPTH):
        deeper = []
        for path, value in level[: _MAX_DICTS - visited]:
            if isinstance(value, nn.Module):
                value = value.state_dict()
            if not isinstance(value, dict):
                continue
            visited += 1
            arrays = {str(k): v for k, v in value.items() if isinstance(v, (Tensor, np.ndarray))}
            if state := _without_wrappers(arrays):
                yield path, state
            start = f"{path}." if path else ""
            deeper += [
                (f"{start}{k}", v)
                for k, v in value.items()
                if isinstance(v, (dict, nn.Module)) and not str(k).startswith("optim")
            ]
            if len(deeper) > _MAX_DICTS:  # also dicts that are the same ones again and again
                break
        level = deeper


def _without_wrappers(state: dict[str, Any]) -> dict[str, Any]:
    renamed: dict[str, Any] = {}
    for name, value in state.items():
        # A module and its compiled form have equal tensors. If they differ, the second name is kept whole.
        short = unwrapped(name)
        renamed[short if short not in renamed or _equal(renamed[short], value) else name] = value
    renamed = {name: value for name, value in renamed.items() if name not in _COUNTERS}
    while renamed and all(name.startswith("module.") for name in renamed):
        renamed = under("module.", renamed)
    return renamed


def _averaged_by_mmengine(checkpoint: Mapping[str, Any]) -> str | None:
    """Returns the entry with averaged weights: mmengine's EMAHook stores the raw ones as ``ema_state_dict``."""
    raw = checkpoint.get("ema_state_dict")
    return "state_dict" if isinstance(raw, dict) and "steps" in raw else None


def _words(name: str) -> set[str]:
    return set(re.split(r"[._]", name.lower()))


def _same(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(_equal(v, other[k]) for k, v in one.items())


def _equal(one: Any, other: Any) -> bool:
    if one.shape != other.shape or one.dtype != other.dtype:
        return False
    return bool(torch.equal(one, other) if isinstance(one, Tensor) else np.array_equal(one, other))


def _alike(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    return all(v.shape == other[k].shape for k, v in one.items() if k in other)


def _tensors(state: Mapping[str, Any], where: str) -> dict[str, Tensor]:
    tensors = {}
    for name, value in state.items():
        if isinstance(value, Tensor) and (
            value.layout != torch.strided or value.is_meta or value.is_quantized or value.is_nested
        ):
            raise ValueError(f"{where}: {name} is a sparse, quantised, nested or empty tensor: save its dense values")
        try:
            tensors[name] = value.detach() if isinstance(value, Tensor) else torch.from_numpy(value.copy())
        except TypeError as error:
            raise ValueError(f"{where}: {name} is an array that can't be converted to a tensor: {error}") from error
    return tensors
