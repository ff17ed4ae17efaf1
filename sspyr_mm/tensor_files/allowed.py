"""The only classes and functions that a checkpoint may name, for all commands and for training."""

import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from mmengine.logging import HistoryBuffer

from sspyr_mm.tensor_files.array_pickle import ARRAY_GLOBALS, Restorer, plain_bytes

_HISTORY = "mmengine.logging.history_buffer.HistoryBuffer"
_DROPPED = ("mmengine.logging.", "numpy.", "builtins.getattr")
"""Starts of other names in mmengine's message hub: ``getattr`` is for the methods of HistoryBuffer."""

_MAX_CONTAINERS = 100_000
"""Dicts, lists and tuples in one entry of a message hub, which holds numbers, names and small lists."""

_SETTINGS = (
    "argparse.Namespace",
    *(f"pathlib{module}.{kind}Path" for module in ("", "._local") for kind in ("Posix", "Windows")),
)
"""Classes of the settings of training scripts."""


class Inert:
    """Placeholder for parts of the message hub and settings: accepts any arguments and does nothing."""

    def __init__(self, *_: Any) -> None: ...

    def __setstate__(self, state: Any) -> None: ...


class _History:
    """Replaces mmengine's HistoryBuffer while a file is read: its own state may replace methods of the class."""

    def __init__(self, *_: Any) -> None:
        self.state: dict[str, Any] = {}

    def __setstate__(self, state: Any) -> None:
        self.state = dict(state)

    def buffer(self, restorer: Restorer) -> HistoryBuffer:
        values, counts = (restorer(self.state[key]) for key in ("_log_history", "_count_history"))
        return HistoryBuffer(values, counts, int(self.state["max_length"]))


@contextmanager
def only_allowed_globals(names: set[str]) -> Iterator[None]:
    """Makes ``torch.load(weights_only=True)`` accept torch's own classes and this project's list, and nothing else.

    What a caller has allowed does not count: mmengine allows ``getattr``. ``names`` are those in the file.
    """
    allowed: dict[str, Any] = {name: Inert for name in _SETTINGS}
    allowed.update((name, Inert) for name in names if name.startswith(_DROPPED))
    allowed.update({**ARRAY_GLOBALS, "builtins.bytes": plain_bytes, _HISTORY: _History})
    before = torch.serialization.get_safe_globals()
    torch.serialization.clear_safe_globals()
    torch.serialization.add_safe_globals([(stand_in, name) for name, stand_in in allowed.items()])
    try:
        yield
    finally:
        torch.serialization.clear_safe_globals()
        torch.serialization.add_safe_globals(before)


def restore_log(hub: Any, restorer: Restorer) -> dict[str, Any]:
    """Returns mmengine's message hub of a file with its histories and arrays; drops what is not plain data."""
    if not isinstance(hub, dict):
        raise pickle.UnpicklingError(f"the message hub is a {type(hub).__name__}, not a dict")
    scalars = hub.get("log_scalars") or {}
    histories = {key: value.buffer(restorer) for key, value in scalars.items() if isinstance(value, _History)}
    info = {key: restorer(value) for key, value in (hub.get("runtime_info") or {}).items() if _is_plain(value, set())}
    known = {*histories, *info}
    resumed = {key: bool(value) for key, value in (hub.get("resumed_keys") or {}).items() if key in known}
    return {"log_scalars": histories, "runtime_info": info, "resumed_keys": resumed}


def _is_plain(value: Any, seen: set[int]) -> bool:
    if id(value) in seen:
        return True
    if isinstance(value, (dict, list, tuple)):
        seen.add(id(value))
        parts = [*value.keys(), *value.values()] if isinstance(value, dict) else value
        return len(seen) < _MAX_CONTAINERS and all(_is_plain(one, seen) for one in parts)
    return not isinstance(value, (Inert, _History, type))
