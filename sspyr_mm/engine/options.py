"""Settings from the command line; a setting that nothing reads is an error."""

import contextlib
import importlib
import inspect
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

import mmengine.registry
from mmengine.config import Config
from mmengine.optim import DefaultOptimWrapperConstructor, OptimWrapper
from mmengine.registry import Registry
from mmengine.runner import EpochBasedTrainLoop, IterBasedTrainLoop, LogProcessor, Runner
from torch.utils.data import DataLoader

from sspyr_mm.engine.config import LOADERS

# Read from the config by Runner, without being arguments of it, and by this package.
_ALSO_READ = {
    *("activation_checkpointing", "allow_pickle", "compile", "custom_imports", "efficient_conv_bn_eval"),
    *("find_unused_parameters", "model_wrapper_cfg", "runner_type", "sync_bn"),
}
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
_DICT = r"(^|,)\s*\{([^{}]*:.*|\s*)\}\s*(,|$)"  # mmengine splits the text of a dict at its commas
_IN_ANY_TYPE = {"_delete_", "_scope_", "type"}
# Settings of dicts without a type.
_KEYS: dict[str, set[str]] = {
    "auto_scale_lr": {"base_batch_size", "enable"},
    "env_cfg": {"cudnn_benchmark", "dist_cfg", "mp_cfg", "resource_limit"},
    "optim_wrapper.paramwise_cfg": {
        *("bias_decay_mult", "bias_lr_mult", "bypass_duplicate", "custom_keys", "dcn_offset_lr_mult"),
        *("dwconv_decay_mult", "flat_decay_mult", "norm_decay_mult"),
    },
}
# Types that mmengine builds from dicts without a type.
_DEFAULT_TYPES: dict[str, list[Any]] = {
    "log_processor": [LogProcessor],
    "optim_wrapper": [OptimWrapper],
    "train_cfg": [EpochBasedTrainLoop, IterBasedTrainLoop],
}
# Settings that mmengine reads from a dict besides the arguments of its type, and those of all dicts inside one.
_READ_BY_RUNNER: dict[str, set[str]] = {
    **{key: {"by_epoch"} for key in ("train_cfg", "val_cfg", "test_cfg")},
    "optim_wrapper": {"constructor", "optimizer", "paramwise_cfg"},
}
_READ_INSIDE: dict[str, set[str]] = {
    **{key: {"priority"} for key in ("custom_hooks", "default_hooks")},
    "param_scheduler": {"convert_to_iter_based"},
}


def merge_options(cfg: Config, options: Mapping[str, Any]) -> None:
    """Merges ``--cfg-options``, values by dotted name, into a complete config.

    Unlike ``Config.merge_from_dict``, it raises ValueError if nothing reads a setting, and names the nearest one that
    exists; the texts null and none, in any case, mean None. A setting may be new where its dict is open: a hook,
    arguments of a registered type that takes any.
    """
    values = {key: _with_none(value) for key, value in options.items()}
    for key, value in values.items():
        _Option(cfg, key, value, values).check()
    try:
        for key in [key for key, value in values.items() if value and re.search(r"\.\d+\._delete_$", key)]:
            if not isinstance(entry := _entry(cfg, key.split(".")[:-1]), dict):
                raise KeyError(f"{key}: {entry!r} is not a dict; only dicts have settings to remove")
            entry.clear()  # mmengine does not delete entries of lists
            del values[key]
        cfg.merge_from_dict(values)
    except KeyError as error:  # an index beyond the end of a list
        raise ValueError(f"--cfg-options: {error.args[0]}") from error
    for key in values:
        if key.endswith(".type"):
            _Option(cfg, key, values[key], values).check_type()
    for name in [name for name, hook in (cfg.get("default_hooks") or {}).items() if hook is None]:
        if name not in _RUNNER_HOOKS:  # mmengine accepts None for its own hooks only
            cfg.default_hooks.pop(name)


def check_names(cfg: Config) -> None:
    """Raises ValueError if a top-level name of a config is misspelt.

    A name counts as misspelt if it is close to one that is read, and the config files do not use it themselves.
    """
    known = _top_level(cfg)
    for name in cfg:
        near = _misspelt(name, known)
        if name not in known and near and not _is_used(cfg, name):
            raise ValueError(f"{cfg.filename}: nothing reads `{name}`; rename it to `{near}`")


def _misspelt(name: str, known: set[str]) -> str | None:
    return next(iter(get_close_matches(name, known - _IN_ANY_TYPE, n=1, cutoff=0.85)), None)


def _entry(node: Any, path: Sequence[str]) -> Any:
    for part in path:
        if isinstance(node, (list, tuple)) and part.isdecimal():
            if int(part) >= len(node):
                raise KeyError(f"Index {part} exceeds the length of list {node}")
            node = node[int(part)]
        elif isinstance(node, (Config, dict)) and part in node:
            node = node[part]
        else:
            raise KeyError(f"{'.'.join(path)}: there is no `{part}`")
    return node


def _flat(value: Any) -> list[Any]:
    return [one for part in value for one in _flat(part)] if isinstance(value, (list, tuple)) else [value]


def _with_none(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return type(value)(_with_none(one) for one in value)
    return None if isinstance(value, str) and value.lower() in ("none", "null") else value


@dataclass
class _Option:
    """One setting of the command line; ``options`` are all of them."""

    cfg: Config
    key: str
    value: Any
    options: Mapping[str, Any]

    def check(self) -> None:
        """Follows the setting into the config, up to the first new part."""
        if re.search(_DICT, ",".join(text for text in _flat(self.value) if isinstance(text, str))):
            raise self._is_dict()
        cfg, parts = self.cfg, self.key.split(".")
        known = _top_level(cfg)
        if parts[0] not in known and (not isinstance(cfg.get(parts[0]), Mapping) or _is_used(cfg, parts[0])):
            when = " once the config file is loaded" if parts[0] in cfg else ""
            raise self._unread(0, known, f"nothing reads `{parts[0]}`{when}")
        node: Any = cfg
        for place, part in enumerate(parts):
            if isinstance(node, (list, tuple)) and part.isdecimal() and int(part) < len(node):
                node = node[int(part)]
            elif node is cfg or isinstance(node, dict):
                if part not in node:
                    self._check_new(node, place)
                    return
                if node[part] is None and place + 1 < len(parts):
                    del node[part]  # mmengine merges a dict into a missing entry, but not into None
                    return
                node = node[part]
            else:
                return
        if isinstance(node, Mapping) and not (self.value is None or isinstance(self.value, Mapping)):
            raise self._is_dict()

    def check_type(self) -> None:
        """Raises ValueError if the merged config has settings of the earlier type that the new type does not have."""
        parent = self.key.removesuffix(".type")
        path = parent.split(".")
        node = _entry(self.cfg, path)
        known, takes_any = self._known_keys([part for part in path if not part.isdecimal()], node)
        if not takes_any and (left := [name for name in node if name not in known]):
            if (key := f"{parent}.{left[0]}") in self.options:
                given = _Option(self.cfg, key, self.options[key], self.options)
                raise given._unread(len(path), known, f"{self.value} has no setting `{left[0]}`")
            raise ValueError(
                f"--cfg-options {self.key}={self.value}: {self.value} has no setting `{left[0]}`, which the config "
                f"holds for the earlier type: add {parent}._delete_=True, and the settings of {self.value}"
            )

    def _is_dict(self) -> ValueError:
        return ValueError(
            f"--cfg-options {self.key}: a dict is not given as one value but by its settings, {self.key}.NAME=VALUE; "
            f"{self.key}._delete_=True removes those that it has"
        )

    def _check_new(self, node: Any, place: int) -> None:
        parts = self.key.split(".")
        part, parent = parts[place], ".".join(parts[:place])
        if place == 0 or part == "_delete_":
            return
        if parent == "default_hooks":
            has_type = isinstance(self.value, Mapping) and "type" in self.value
            is_removed = place + 1 == len(parts) and self.value is None
            if f"{parent}.{part}.type" in self.options or has_type or is_removed:
                return
            raise self._unread(place, set(node), f"there is no hook `{part}`, and a new one needs {parent}.{part}.type")
        known, takes_any = self._known_keys([p for p in parts[:place] if not p.isdecimal()], node)
        is_inside = any(path.endswith(f".{part}") for path in _paths(node, parent))
        if part not in known and (not takes_any or is_inside or _misspelt(part, known)):
            kind = node.get("type")
            name = f"{parent} ({getattr(kind, '__name__', kind)})" if kind else parent
            raise self._unread(place, known, f"{name} has no setting `{part}`")

    def _known_keys(self, path: list[str], node: Mapping[str, Any]) -> tuple[set[str], bool]:
        """Returns the settings that a dict of the config may hold, and whether it may hold others, too."""
        name = ".".join(path)
        if name in LOADERS:
            return {"disable_subprocess_warning", "num_batch_per_epoch"} | _arguments(DataLoader)[0], False
        if name == "randomness":
            return _arguments(Runner.set_randomness)
        if name in _KEYS:
            default = DefaultOptimWrapperConstructor.__name__
            return _KEYS[name], "." in name and self.cfg.optim_wrapper.get("constructor", default) != default
        if path[0] == "model" and path[-1].endswith("_cfg"):  # norm_cfg, init_cfg: builders accept additional keys
            return set(), True
        kind = self.options.get(f"{name}.type", node.get("type"))
        types = [_arguments(one) for one in _types(self.cfg, kind) or _DEFAULT_TYPES.get(name, [])]
        known = _IN_ANY_TYPE | _READ_BY_RUNNER.get(name, set()) | _READ_INSIDE.get(path[0], set())
        return known.union(*(names for names, _ in types)), not types or any(takes_any for _, takes_any in types)

    def _unread(self, place: int, known: set[str], reason: str) -> ValueError:
        """Returns the error for a setting that nothing reads, with a suggestion."""
        meant = next(self._meant(place, known), None)
        advice = f"{meant}={self.value}" if meant else f"one of {', '.join(sorted(known - _IN_ANY_TYPE))}"
        return ValueError(f"--cfg-options {self.key}={self.value}: {reason}; use {advice}")

    def _meant(self, place: int, known: set[str]) -> Iterator[str]:
        """Returns likely names: a close spelling, the same name elsewhere in the config, a less close spelling."""
        parts = self.key.split(".")

        def near(cutoff: float) -> Iterator[str]:
            for one in get_close_matches(parts[place], known - _IN_ANY_TYPE, n=1, cutoff=cutoff):
                yield ".".join([*parts[:place], one, *parts[place + 1 :]])

        yield from near(0.8)
        tail = [*parts[:-1], _ALIASES.get(parts[-1], parts[-1])]
        paths = [p for name in _top_level(self.cfg) & set(self.cfg) for p in _paths(self.cfg[name], name)]
        for start in range(len(tail)):
            wanted = ".".join(tail[start:])
            places = [path for path in paths if f".{path}".endswith(f".{wanted}") and path != self.key]
            yield from sorted(places, key=lambda path: (not path.startswith("train_"), path.count(".")))
        yield from near(0.7)


def _paths(node: Any, name: str) -> Iterator[str]:
    """Returns the dotted names of a part of the config and of all settings in it, except those in lists."""
    yield name
    if isinstance(node, Mapping):
        for key, value in node.items():
            yield from _paths(value, f"{name}.{key}")


def _top_level(cfg: Config) -> set[str]:
    """Returns the names that the runner or this package reads."""
    names = (_arguments(runner)[0] for runner in (Runner, *_types(cfg, cfg.get("runner_type"))))
    return _ALSO_READ.union(*names) - {"cfg"}


def _is_used(cfg: Config, name: str) -> bool:
    """Returns whether the config files use a variable in the value of another one."""
    return re.search(rf"\b{re.escape(name)}\b(?!\s*=(?!=))", cfg.text or "") is not None


def _types(cfg: Config, kind: Any) -> list[Any]:
    """Returns the classes and functions of all registries that a ``type`` may name."""
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


def _arguments(built: Any) -> tuple[set[str], bool]:
    """Returns the argument names of a class or function, and whether it takes others, too.

    Classes of this package pass ``**kwargs`` to their parents; those of other classes may go elsewhere.
    """
    names: set[str] = set()
    takes_any = False
    for owner in inspect.getmro(built) if inspect.isclass(built) else [built]:
        try:
            parameters = inspect.signature(owner).parameters.values()
        except (TypeError, ValueError):  # written in C
            return names, True
        names |= {p.name for p in parameters if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)}
        if not any(p.kind is p.VAR_KEYWORD for p in parameters):
            return names, takes_any
        takes_any |= not owner.__module__.startswith("sspyr_mm.")
    return names, takes_any
