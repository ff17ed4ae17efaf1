"""Settings from the command line; a setting that nothing reads is an error."""

import contextlib
import importlib
import inspect
import re
from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from typing import Any

import mmengine.registry
from mmengine.config import Config
from mmengine.optim import DefaultOptimWrapperConstructor
from mmengine.registry import Registry
from mmengine.runner import EpochBasedTrainLoop, IterBasedTrainLoop, LogProcessor, Runner
from torch import nn
from torch.utils.data import DataLoader

from sspyr_mm.engine.config import LOADERS

# Read from the config by Runner, without being arguments of it, and by this package.
_ALSO_READ = {
    "activation_checkpointing",
    "compile",
    "custom_imports",
    "efficient_conv_bn_eval",
    "find_unused_parameters",
    "model_wrapper_cfg",
    "runner_type",
    "sync_bn",
}
_LOOPS = ("train_cfg", "val_cfg", "test_cfg")
# Names of settings in other tools -> names here.
_ALIASES = {
    "bs": "batch_size",
    "cross_weight": "cross_scale_loss.loss_weight",
    "epoch": "max_epochs",
    "epochs": "max_epochs",
    "iters": "max_iters",
    "learning_rate": "lr",
    "num_epochs": "max_epochs",
    "num_iters": "max_iters",
    "wd": "weight_decay",
    "workers": "num_workers",
}
_RUNNER_HOOKS = {*("runtime_info", "timer", "sampler_seed", "logger", "param_scheduler", "checkpoint")}
_IN_ANY_TYPE = {"_delete_", "_scope_", "type"}
_KEYS: dict[str, set[str]] = {
    "auto_scale_lr": {"base_batch_size", "enable"},
    "env_cfg": {"cudnn_benchmark", "dist_cfg", "mp_cfg", "resource_limit"},
    "optim_wrapper.paramwise_cfg": {
        *("bias_decay_mult", "bias_lr_mult", "bypass_duplicate", "custom_keys", "dcn_offset_lr_mult"),
        *("dwconv_decay_mult", "flat_decay_mult", "norm_decay_mult"),
    },
}
"""Settings of dicts without a type."""


def merge_options(cfg: Config, options: Mapping[str, Any]) -> None:
    """Merges ``--cfg-options`` into a config, as ``Config.merge_from_dict`` but without settings that nothing reads.

    The texts null and none, in any case, mean None. A setting may be new where its dict is open: a hook, arguments of a
    registered type that takes any.

    Args:
        cfg: Complete config, changed in place.
        options: Values by dotted name, as ``DictAction`` parses them.

    Raises:
        ValueError: If nothing reads a setting; the message names the nearest setting that exists.
    """
    values = {key: _with_none(value) for key, value in options.items()}
    for key, value in values.items():
        _check(cfg, key, value, values)
    try:
        cfg.merge_from_dict(values)
    except KeyError as error:  # an index beyond the end of a list
        raise ValueError(f"--cfg-options: {error.args[0]}") from error
    for name in [name for name, hook in (cfg.get("default_hooks") or {}).items() if hook is None]:
        if name not in _RUNNER_HOOKS:  # mmengine accepts None for its own hooks only
            cfg.default_hooks.pop(name)


def check_names(cfg: Config) -> None:
    """Checks a config for misspelt top-level names.

    A name counts as misspelt if it is close to one that is read, and the config files do not use it themselves.

    Args:
        cfg: Complete config, as read from its file.

    Raises:
        ValueError: If a name is misspelt.
    """
    known = _top_level(cfg)
    for name in cfg:
        near = get_close_matches(name, known, n=1, cutoff=0.85)
        if name not in known and near and not _is_used(cfg, name):
            raise ValueError(f"{cfg.filename}: nothing reads `{name}`; rename it to `{near[0]}`")


def _with_none(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return type(value)(_with_none(one) for one in value)
    return None if isinstance(value, str) and value.lower() in ("none", "null") else value


def _check(cfg: Config, key: str, value: Any, options: Mapping[str, Any]) -> None:
    """Follows a setting into the config, up to the first new part."""
    parts = key.split(".")
    if parts[0] not in (known := _top_level(cfg)) and (
        not isinstance(cfg.get(parts[0]), Mapping) or _is_used(cfg, parts[0])
    ):
        reason = f"nothing reads `{parts[0]}`"
        if parts[0] in cfg:
            reason += " once the config file is loaded"
        raise _unread(cfg, key, value, 0, known, reason)
    node: Any = cfg
    for place, part in enumerate(parts):
        if isinstance(node, (list, tuple)) and part.isdecimal() and int(part) < len(node):
            node = node[int(part)]
        elif node is cfg or isinstance(node, dict):
            if part not in node:
                _check_new(cfg, node, key, value, place, options)
                return
            if node[part] is None and place + 1 < len(parts):
                del node[part]  # mmengine merges a dict into a missing entry, but not into None
                return
            node = node[part]
        else:
            return


def _check_new(cfg: Config, node: Any, key: str, value: Any, place: int, options: Mapping[str, Any]) -> None:
    parts = key.split(".")
    if place == 0 or parts[place] == "_delete_":
        return
    parent = ".".join(parts[:place])
    if parent == "default_hooks":
        new = f"{parent}.{parts[place]}"
        if f"{new}.type" in options or (isinstance(value, Mapping) and "type" in value):
            return
        if place + 1 == len(parts) and value is None:
            return
        reason = f"there is no hook `{parts[place]}`, and a new one needs {new}.type"
        raise _unread(cfg, key, value, place, set(node), reason)
    known = _known_keys(cfg, [p for p in parts[:place] if not p.isdecimal()], node, options)
    if known is not None and parts[place] not in known:
        kind = node.get("type")
        name = f"{parent} ({getattr(kind, '__name__', kind)})" if kind else parent
        raise _unread(cfg, key, value, place, known, f"{name} has no setting `{parts[place]}`")


def _known_keys(
    cfg: Config, path: Sequence[str], node: Mapping[str, Any], options: Mapping[str, Any]
) -> set[str] | None:
    """Returns the settings that a dict of the config may hold; None if they are unknown."""
    name = ".".join(path)
    if name in LOADERS:
        own = {"disable_subprocess_warning", "num_batch_per_epoch"}
        return own | (_parameters(DataLoader) or set())
    if name == "randomness":
        return _parameters(Runner.set_randomness)
    if name == "optim_wrapper.paramwise_cfg":
        default = cfg.optim_wrapper.get("constructor", DefaultOptimWrapperConstructor.__name__)
        return _KEYS[name] if default == DefaultOptimWrapperConstructor.__name__ else None
    if name in _KEYS:
        return _KEYS[name]
    if path[0] == "model" and path[-1].endswith("_cfg"):  # norm_cfg, init_cfg: builders accept additional keys
        return None
    kind = options.get(f"{name}.type", node.get("type"))
    found = [LogProcessor] if name == "log_processor" and kind is None else _types(cfg, kind)
    own = set(_IN_ANY_TYPE)
    if name == "train_cfg" and kind is None:
        found = [EpochBasedTrainLoop, IterBasedTrainLoop]
    if name in _LOOPS:
        own |= {"by_epoch"}
    elif name == "optim_wrapper":
        own |= {"constructor", "optimizer", "paramwise_cfg"}
        found = found or _types(cfg, "OptimWrapper")
    elif path[0] == "param_scheduler":
        own |= {"convert_to_iter_based"}
    elif path[0] in ("default_hooks", "custom_hooks"):
        own |= {"priority"}
    known = [_parameters(one) for one in found]
    if not known or any(names is None for names in known):
        return None
    return own.union(*(names for names in known if names is not None))


def _top_level(cfg: Config) -> set[str]:
    """Returns the names that the runner or this package reads."""
    runners = _types(cfg, cfg["runner_type"]) if "runner_type" in cfg else [Runner]
    known = set(_ALSO_READ)
    for runner in [Runner, *runners]:
        known |= _parameters(runner) or set()
    return known - {"cfg"}


def _is_used(cfg: Config, name: str) -> bool:
    """Returns whether the config files use a variable in the value of another one."""
    return re.search(rf"\b{re.escape(name)}\b(?!\s*=(?!=))", cfg.text or "") is not None


def _types(cfg: Config, kind: Any) -> list[Any]:
    """Returns what a ``type`` may name: classes and functions of all registries."""
    if not isinstance(kind, str):
        return [kind] if callable(kind) else []
    scope, found = cfg.get("default_scope", "mmengine"), []
    with contextlib.suppress(ImportError):
        importlib.import_module(f"{scope}.registry")
    for registry in vars(mmengine.registry).values():
        if isinstance(registry, Registry):  # not switch_scope_and_registry, which warns about scopes without a child
            one = registry.children.get(scope, registry).get(kind)
            if one is not None and one not in found:
                found.append(one)
    return found


def _parameters(built: Any) -> set[str] | None:
    """Returns the argument names of a class or function, with inherited ones; None if it accepts any."""
    names: set[str] = set()
    for owner in inspect.getmro(built) if inspect.isclass(built) else [built]:
        function = vars(owner).get("__init__") if inspect.isclass(owner) else owner
        if function is None:
            continue
        if owner in (object, nn.Module):
            break
        try:
            parameters = inspect.signature(function).parameters.values()
        except (TypeError, ValueError):
            return None
        names |= {p.name for p in parameters if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)}
        rest = next((p.name for p in parameters if p.kind is p.VAR_KEYWORD), None)
        if rest is None:
            break
        if not _only_passes_on(function, rest):
            return None
    return names - {"self"}


def _only_passes_on(function: Any, rest: str) -> bool:
    """Returns whether ``**kwargs`` go to the parent's constructor only."""
    try:
        source = inspect.getsource(function)
    except (OSError, TypeError):
        return False
    passed = re.search(rf"super\([^()]*\)\.__init__\([^()]*\*\*{rest}\b", source)
    return passed is not None and len(re.findall(rf"\b{rest}\b", source)) == 2


def _unread(cfg: Config, key: str, value: Any, place: int, known: set[str], reason: str) -> ValueError:
    """Returns the error for a setting that nothing reads, with a suggestion."""
    meant = next(_meant(cfg, key, place, known), None)
    if meant:
        return ValueError(f"--cfg-options {key}={value}: {reason}; use {meant}={value}")
    names = ", ".join(sorted(known - _IN_ANY_TYPE))
    return ValueError(f"--cfg-options {key}={value}: {reason}; use one of {names}")


def _meant(cfg: Config, key: str, place: int, known: set[str]) -> Iterator[str]:
    """Returns likely names: a close spelling, the same name elsewhere in the config, a less close spelling."""
    parts = key.split(".")

    def near(cutoff: float) -> Iterator[str]:
        for one in get_close_matches(parts[place], known - _IN_ANY_TYPE, n=1, cutoff=cutoff):
            yield ".".join([*parts[:place], one, *parts[place + 1 :]])

    yield from near(0.8)
    tail = [*parts[:-1], _ALIASES.get(parts[-1], parts[-1])]
    paths = [p for name in _top_level(cfg) & set(cfg) for p in _paths(cfg[name], name)]
    for start in range(len(tail)):
        wanted = ".".join(tail[start:])
        places = [path for path in paths if f".{path}".endswith(f".{wanted}") and path != key]
        yield from sorted(places, key=lambda path: (not path.startswith("train_"), path.count(".")))
    yield from near(0.7)


def _paths(node: Any, name: str) -> Iterator[str]:
    """Returns the dotted names of a part of the config and of all settings in it, except those in lists."""
    yield name
    if isinstance(node, Mapping):
        for key, value in node.items():
            yield from _paths(value, f"{name}.{key}")
