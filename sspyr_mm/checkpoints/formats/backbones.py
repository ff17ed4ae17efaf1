"""Builds backbones from configs and checks that tensors are complete."""

import hashlib
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from inspect import isclass
from pathlib import Path
from typing import Any

from mmengine.model import revert_sync_batchnorm
from mmpretrain.registry import MODELS
from torch import Tensor, nn

import sspyr_mm.registration  # noqa: F401
from sspyr_mm.checkpoints.config_text import check_types
from sspyr_mm.files import shortened
from sspyr_mm.models.state_check import compare_states

_TRAINING_ONLY = ("init_cfg", "pretrained", "frozen_stages", "norm_eval", "with_cp")

_OFFLINE = (
    *("torch.nn.", "mmcv.cnn.", "mmcv.ops.", "mmengine.model.", "mmengine.utils."),
    *("mmpretrain.models.backbones.", "mmpretrain.models.utils.", "sspyr_mm.models."),
)
"""Modules whose classes download nothing."""
_STACK = (
    "torch",
    "torchvision",
    "timm",
    "transformers",
    "mmengine",
    "mmcv",
    "mmpretrain",
    "mmdet",
    "mmseg",
    "sspyr_mm",
)
"""Packages of which only those modules are allowed. Classes of other packages were imported by the user."""


def plain_config(backbone: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a backbone's config without settings of its training.

    Args:
        backbone: Config of the backbone in a training config.

    Returns:
        A copy without initialisation and freezing, with BN in place of SyncBN.
    """
    cfg = {key: value for key, value in backbone.items() if key not in _TRAINING_ONLY}
    if isinstance(cfg.get("type"), str):
        cfg["type"] = cfg["type"].removeprefix("mmpretrain.")
    norm = cfg.get("norm_cfg")
    if isinstance(norm, Mapping) and norm.get("type") in ("SyncBN", "MMSyncBN"):
        cfg["norm_cfg"] = {**norm, "type": "BN"}
    return cfg


def check_offline(config: Mapping[str, Any]) -> None:
    """Rejects types that may download weights or code when built, as timm's and HuggingFace's networks do.

    Args:
        config: Part of a config from a checkpoint, for a backbone or a model.

    Raises:
        ValueError: If a ``type`` in it is not one of mmpretrain's own backbones, of this package's modules, of the
            layers of torch and mmcv, or of another imported module; or as :func:`check_types`.
    """
    check_types(dict(config))
    for name, found in _types(config):
        online = name.rpartition(".")[2] in ("TIMMBackbone", "Pretrained", "PretrainedInit")
        if found is not None and not (_is_custom(found) or found.__module__.startswith(_OFFLINE)):
            online = True
        if online or (found is not None and not isclass(found)):
            raise ValueError(
                f"The config inside the checkpoint asks for type={name!r}, which may download data: only "
                "mmpretrain's backbones without TIMMBackbone are built, from layers of torch and mmcv, "
                "and classes of your own modules imported by --custom-import MODULE"
            )


def custom_modules(config: Mapping[str, Any]) -> list[str]:
    """Lists the user's modules that a config needs; other processes have to import them as well.

    Args:
        config: See :func:`check_offline`.
    """
    return sorted({found.__module__ for _, found in _types(config) if found and _is_custom(found)})


def code_digests(modules: Iterable[str]) -> dict[str, str]:
    """Hashes the code of imported modules, since results depend on it.

    Args:
        modules: Names of modules.

    Returns:
        SHA-256 of the source file of each; '' for modules without one.
    """
    digests = {}
    for name in modules:
        file = getattr(sys.modules[name], "__file__", None)
        digests[name] = hashlib.sha256(Path(file).read_bytes()).hexdigest() if file else ""
    return digests


def _types(config: Any) -> Iterator[tuple[str, Any]]:
    """Yields every ``type`` in a config, and the object registered under that name or None."""
    if isinstance(config, (list, tuple)):
        config = dict(enumerate(config))
    if isinstance(config, Mapping):
        name = config.get("type")
        if isinstance(name, str):
            found = None
            with suppress(ImportError, RuntimeError):
                found = MODELS.get(name)
            yield name, found
        for value in config.values():
            yield from _types(value)


def _is_custom(found: Any) -> bool:
    package = found.__module__.partition(".")[0]
    return package not in _STACK and not found.__module__.startswith(_OFFLINE)


def build_network(backbone: Mapping[str, Any]) -> nn.Module:
    """Builds a backbone without loading or initialising weights.

    Args:
        backbone: Config of a backbone of mmpretrain.

    Returns:
        The network in evaluation mode on the CPU, with plain batch norm.

    Raises:
        ValueError: If mmpretrain can't build it, or as :func:`check_offline`.
    """
    check_offline(backbone)
    try:
        network = MODELS.build({**backbone, "_scope_": "mmpretrain"})
    except Exception as error:  # constructors can raise anything on wrong arguments
        own = [name for name, found in _types(backbone) if found is None]
        hint = f". {shortened(own, 3)}: import your module with --custom-import MODULE" if own else ""
        raise ValueError(f"mmpretrain can't build the backbone {dict(backbone)}: {error}{hint}") from error
    network = revert_sync_batchnorm(network)
    network.eval()  # eval() of mmpretrain's backbones returns None
    return network


def complete(state: Mapping[str, Tensor], network: nn.Module, *, what: str) -> dict[str, Tensor]:
    """Checks that tensors match those of a network exactly.

    Args:
        state: Tensors under the network's names. Counters of batch norm may be missing and become 0.
        network: The network.
        what: The file and its detected format, for messages.

    Returns:
        The tensors in the network's order, contiguous, without shared memory.

    Raises:
        ValueError: If tensors are missing, unexpected, of another shape, or contain NaN or infinity.
    """
    wanted = network.state_dict()
    missing, unexpected, sizes = compare_states(state, wanted)
    shapes = [f"{name} {given}, expected {ours}" for name, given, ours in sizes]
    broken = [name for name in wanted if name in state and not state[name].isfinite().all()]
    if missing or unexpected or shapes or broken:
        lines = [
            f"{len(names)} tensors {text}: {shortened(names, 3)}"
            for names, text in (
                (missing, f"of {len(wanted)} missing"),
                (unexpected, "unexpected"),
                (shapes, "of another shape"),
                (broken, "with NaN or infinity"),
            )
            if names
        ]
        raise ValueError(f"{what} is not a complete backbone: " + "; ".join(lines))
    return {
        name: state[name].clone().contiguous() if name in state else tensor.new_zeros(())
        for name, tensor in wanted.items()
    }
