"""Networks to compare: checkpoints of any known format, models of timm, and random weights."""

import difflib
import hashlib
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from sspyr_mm.benchmarks.networks import Network, random_network, read_networks
from sspyr_mm.benchmarks.results.result import fingerprint
from sspyr_mm.checkpoints.formats.weights import Selection, find_weights
from sspyr_mm.datasets.names import repeated
from sspyr_mm.features.extraction import FrozenEncoder
from sspyr_mm.files import short_names, shortened
from sspyr_mm.tensor_files import read_checkpoint

TIMM = "timm:"
"""Prefix of models of timm: ``timm:NAME`` with the weights that timm downloads, ``timm:NAME=FILE`` with those of a
file."""


@dataclass(frozen=True)
class Candidate:
    """A network to compare."""

    name: str  # in tables
    encoder: FrozenEncoder
    about: dict[str, Any]  # description, for the results


def read_candidates(
    names: Sequence[str],
    *,
    size: int,
    random: bool = True,
    allow_pickle: bool = False,
    select: Selection | None = None,
    **reading: Any,
) -> list[Candidate]:
    """Reads all networks, so that a wrong one is reported before the work for the others.

    Args:
        names: Paths of checkpoints, and models of timm.
        size: Side of the images in pixels.
        random: Whether to append the architecture of the first network with random weights.
        allow_pickle: See :func:`read_checkpoint`.
        select: Network to read from each file; see :func:`read_backbone`.
        reading: Further arguments of :func:`read_networks`.

    Raises:
        FileNotFoundError: If there is no such file.
        ImportError: If timm is not installed.
        ValueError: If a file or a name cannot be read as a network, or is given twice.
    """
    if twice := repeated(names):
        raise ValueError(f"{twice[0]} is given twice: leave one out")
    paths = [name for name in names if not name.startswith(TIMM)]
    read = read_networks(paths, allow_pickle=allow_pickle, select=select, **reading)
    # File names alone, such as epoch_50.pth, say nothing.
    named = (replace(one, name=name) for one, name in zip(read, short_names(paths, num_folders=1), strict=True))
    networks = dict(zip(paths, named, strict=True))
    found = []
    for name in names:
        if name in networks:
            found.append(_candidate(networks[name]))
        else:
            found.append(_read_timm(name, size, select or Selection(), allow_pickle=allow_pickle))
    if random:
        found.append(_random(names[0], networks, size))
    if twice := repeated(candidate.name for candidate in found):
        raise ValueError(f"Two networks have the name {twice[0]!r} in the table: rename a file")
    return found


def _candidate(network: Network) -> Candidate:
    return Candidate(network.name, network.encoder(), network.about)


def _random(first: str, networks: Mapping[str, Network], size: int) -> Candidate:
    if first in networks:
        return _candidate(random_network(networks[first].checkpoint))
    torch.manual_seed(0)
    model = first.removeprefix(TIMM).partition("=")[0]
    return _describe("random", model, _create(model, size))


def _read_timm(name: str, size: int, select: Selection, *, allow_pickle: bool) -> Candidate:
    model, given, file = name.removeprefix(TIMM).partition("=")
    if given and not file:
        raise ValueError(f"{name} names no file: give {TIMM}{model}=FILE, or {TIMM}{model} to download")
    if not file:
        print(f"{name}: timm downloads its weights, or reads them from its cache", file=sys.stderr, flush=True)
        try:
            network = _create(model, size, pretrained=True)
        except (ImportError, ValueError):
            raise
        except Exception as error:  # of several download libraries
            raise ValueError(
                f"timm could not download the weights of {model} ({type(error).__name__}: {error}): run the command "
                f"where there is a network, or give a file as {name}=FILE"
            ) from error
        return _describe(name, model, network)
    prefix = select.prefix or ""  # by default, names are timm's
    weights = find_weights(read_checkpoint(file, allow_pickle=allow_pickle), file, replace(select, prefix=prefix))
    tensors = {k.removeprefix(prefix): tensor for k, tensor in weights.tensors.items() if k.startswith(prefix)}
    try:
        network = _create(model, size, pretrained=True, pretrained_cfg_overlay=_overlay(model, tensors))
    except (RuntimeError, KeyError) as error:
        raise ValueError(
            f"{file} does not fit timm's {model} ({shortened(str(error).split(), 30)}): give the file of this model, "
            f"and --prefix if names begin with one. It holds {shortened(weights.tensors, 3)}"
        ) from error
    return _describe(f"{TIMM}{model}={os.path.basename(file)}", model, network)


def _overlay(model: str, tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """Returns the settings by which timm loads tensors, after it has converted the names of original files.

    timm ignores missing tensors if it has to drop a classifier, so that it is dropped here.
    """
    import timm

    cfg = timm.get_pretrained_cfg(model)
    names = (getattr(cfg, "classifier", None) or (),)
    classifiers = tuple(f"{name}." for name in (names if isinstance(names[0], str) else names[0]))
    return dict(state_dict={k: v for k, v in tensors.items() if not k.startswith(classifiers)}, num_classes=0)


def _create(model: str, size: int, **options: Any) -> nn.Module:
    """Builds a model of timm without its classifier, for images of a size."""
    try:
        import timm
    except ModuleNotFoundError as error:
        raise ImportError(f"{TIMM}{model} needs timm: pip install timm") from error
    architecture, _, tag = model.partition(".")
    if not timm.is_model(model):
        close = ", ".join(difflib.get_close_matches(architecture, timm.list_models())) or "see timm.list_models()"
        raise ValueError(f"timm {timm.__version__} has no model {model!r}; it has {close}")
    if tag and model not in (tags := timm.list_pretrained(f"{architecture}.*")):
        raise ValueError(f"timm {timm.__version__} has no weights {model!r}; it has {shortened(tags, 20)}")
    try:
        return timm.create_model(model, num_classes=0, img_size=size, **options)
    except TypeError:  # convolutional networks have no size
        return timm.create_model(model, num_classes=0, **options)


def _describe(name: str, model: str, network: nn.Module) -> Candidate:
    digest = hashlib.sha256()
    for key, tensor in sorted(network.state_dict().items()):
        digest.update(key.encode() + tensor.numpy().tobytes())
    cfg: dict[str, Any] = network.pretrained_cfg  # type: ignore[assignment]
    mean, std = ([255 * value for value in cfg[key]] for key in ("mean", "std"))
    identity = fingerprint(model, digest.hexdigest(), mean, std)
    about = {"timm": model, "identity": identity, "weights_sha256": digest.hexdigest()}
    return Candidate(name, FrozenEncoder(network, mean, std, identity=identity), about)
