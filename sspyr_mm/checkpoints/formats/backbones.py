"""Builds backbones from configs and checks that tensors are complete."""

import hashlib
import inspect
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from mmengine.model import revert_sync_batchnorm
from mmpretrain.registry import MODELS, TASK_UTILS
from torch import Tensor, nn

import sspyr_mm.registration  # noqa: F401
from sspyr_mm.checkpoints.config_text import check_plain, check_types
from sspyr_mm.files import shortened
from sspyr_mm.models.state_check import compare_states

_TRAINING_ONLY = ("init_cfg", "pretrained", "frozen_stages", "norm_eval", "with_cp")
_WITHOUT_WEIGHTS = ("type", "out_indices", "drop_rate", "drop_path_rate", "zero_init_residual", *_TRAINING_ONLY)
"""Settings on which neither the tensors nor the last feature map in evaluation mode depend."""

_OFFLINE = (
    *("torch.nn.", "mmcv.cnn.", "mmcv.ops.", "mmengine.model.", "mmengine.utils."),
    *("mmpretrain.models.backbones.", "mmpretrain.models.utils.", "sspyr_mm.models."),
)
"""Modules whose classes download nothing."""
NETWORK_SCOPES = ("mmengine", "mmpretrain", "sspyr_mm")
"""Registries by which a network is built; names are checked in that of mmpretrain, which the others share."""
_STACK = (
    *("torch", "torchvision", "timm", "transformers"),
    *("mmengine", "mmcv", "mmpretrain", "mmdet", "mmseg", "sspyr_mm"),
)
"""Packages of which only those modules are allowed. Classes of other packages were imported by the user."""


def plain_config(backbone: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a backbone's config without initialisation and freezing, with BN in place of SyncBN and GroupedBN.

    It is one for mmpretrain: the scope of another package that inherited it is dropped. Raises ValueError as
    :func:`check_plain`.
    """
    check_plain(backbone)
    cfg = {key: value for key, value in backbone.items() if key not in (*_TRAINING_ONLY, "_scope_")}
    if isinstance(cfg.get("type"), str):
        cfg["type"] = cfg["type"].removeprefix("mmpretrain.")
    norm = cfg.get("norm_cfg")
    if isinstance(norm, Mapping) and norm.get("type") in ("SyncBN", "MMSyncBN", "GroupedBN"):
        cfg["norm_cfg"] = {**{key: value for key, value in norm.items() if key != "group_size"}, "type": "BN"}
    return cfg


def without_initialisation(config: Any) -> Any:
    """Returns a config without the keys that initialise weights, at any depth: they may name a file or an address."""
    if isinstance(config, Mapping):
        return {k: without_initialisation(v) for k, v in config.items() if k not in ("init_cfg", "pretrained")}
    return [without_initialisation(one) for one in config] if isinstance(config, list) else config


def check_offline(config: Mapping[str, Any]) -> None:
    """Raises ValueError for types that may download weights or code when built, like timm's and HuggingFace's networks.

    Allowed are mmpretrain's own backbones, this package's modules, the layers of torch and mmcv, and other modules
    that the user has imported.
    """
    check_plain(config)
    check_types(dict(config), NETWORK_SCOPES)
    for name, found in _types(config):
        known = found is None or _is_custom(found) or found.__module__.startswith(_OFFLINE)
        is_function = found is not None and not inspect.isclass(found)
        if not known or is_function or name.rpartition(".")[2] in ("TIMMBackbone", "Pretrained", "PretrainedInit"):
            raise ValueError(
                f"The config inside the checkpoint asks for type={name!r}, which may download data: only "
                "mmpretrain's backbones without TIMMBackbone are built, from layers of torch and mmcv, "
                "and classes of your own modules imported by --custom-import MODULE"
            )


def custom_modules(config: Mapping[str, Any]) -> list[str]:
    """Returns the user's modules that a config needs; other processes have to import them as well."""
    return sorted({found.__module__ for _, found in _types(config) if found and _is_custom(found)})


def code_digests(modules: Iterable[str]) -> dict[str, str]:
    """Returns the SHA-256 of each module's source file, since results depend on it; '' for modules without one."""
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
                found = MODELS.get(name) or TASK_UTILS.get(name)
            yield name, found
        for value in config.values():
            yield from _types(value)


def _is_custom(found: Any) -> bool:
    return found.__module__.partition(".")[0] not in _STACK


def build_network(backbone: Mapping[str, Any]) -> nn.Module:
    """Builds a backbone without loading or initialising weights, in evaluation mode on the CPU, with plain batch norm.

    Raises ValueError if mmpretrain can't build it, or as :func:`check_offline`.
    """
    check_offline(backbone)
    try:
        network = MODELS.build({**backbone, "_scope_": "mmpretrain"})
    except Exception as error:  # constructors can raise anything on wrong arguments
        unknown = [name for name, found in _types(backbone) if found is None]
        hint = f". {shortened(unknown, 3)}: import your module with --custom-import MODULE" if unknown else ""
        raise ValueError(f"mmpretrain can't build the backbone {dict(backbone)}: {error}{hint}") from error
    network = revert_sync_batchnorm(network)
    network.eval()  # eval() of mmpretrain's backbones returns None
    return network


def complete(state: Mapping[str, Tensor], network: nn.Module, *, what: str) -> dict[str, Tensor]:
    """Returns a network's tensors in its order, contiguous, without shared memory; missing batch counters become 0.

    Raises ValueError if tensors are missing, unexpected, of another shape, or contain NaN, infinity or complex numbers;
    the message begins with ``what``, the file and its detected format.
    """
    wanted = network.state_dict()
    missing, unexpected, sizes = compare_states(state, wanted)
    faults = {
        f"of {len(wanted)} missing": missing,
        "unexpected": unexpected,
        "of another shape": [f"{name} {given}, expected {ours}" for name, given, ours in sizes],
        "with NaN or infinity": [
            name
            for name, tensor in wanted.items()
            if name in state and state[name].shape == tensor.shape and not _is_finite(state[name])
        ],
        "of complex numbers": [name for name in wanted if name in state and state[name].is_complex()],
    }
    lines = [f"{len(names)} tensors {text}: {shortened(names, 3)}" for text, names in faults.items() if names]
    if lines:
        raise ValueError(f"{what} is not a complete backbone: " + "; ".join(lines))
    return {
        name: state[name].clone().contiguous() if name in state else tensor.new_zeros(())
        for name, tensor in wanted.items()
    }


def _is_finite(tensor: Tensor) -> bool:
    if tensor.is_floating_point() and tensor.itemsize == 1:  # torch has no isfinite for them
        tensor = tensor.float()
    return bool(tensor.isfinite().all())


def require_defaults(backbone: Mapping[str, Any], cls: type[nn.Module], target: str, handled: Iterable[str]) -> None:
    """Raises ValueError if a backbone has a setting that its weights depend on and that a target lacks.

    The backbone is a ``cls`` of mmpretrain, whose defaults the ``target`` shares; it also supports other values of the
    settings ``handled``.
    """
    parameters = inspect.signature(cls).parameters
    for key, value in backbone.items():
        default = parameters[key].default if key in parameters else None
        if key not in (*_WITHOUT_WEIGHTS, *handled) and _as_list(value) != _as_list(default):
            raise ValueError(f"{target} has no {cls.__name__} with {key}={value!r}, only with {default!r}")


def _as_list(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
