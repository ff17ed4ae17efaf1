"""What a checkpoint may name and hold, for all commands and for training."""

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

MAX_STEPS = 2_000_000
"""Instructions of all pickles of a file: an optimizer of 5,000 tensors takes about 0.5 million. Reading takes
microseconds each."""
_MAX_EXPANDED = 1 << 26
"""Numbers of tensors beyond those stored, as ``torch.Tensor.expand`` makes; other tensors have as many as stored."""
MAX_NAMES = 1_000
"""Different classes and functions in a pickle; a checkpoint names about ten."""
_HASHED = (1 << 61) - 1
"""Python's hash of an integer is its remainder by this number."""
_MAX_RARE = 5_000
"""Keys of dicts whose hashes a file can choose: a dict of as many with equal hashes takes a second to build."""
_MAX_KEY = 64
"""Items of a tuple that is a key, with those of nested tuples."""
_MAX_COPIED = 1 << 30
"""Bytes that calls make of texts: as many as a pickle has at most, each of which is used once."""

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


class Bounds:
    """What the pickles of one file may still have."""

    def __init__(self) -> None:
        self.steps, self.rare, self.expanded, self.copied = MAX_STEPS, _MAX_RARE, _MAX_EXPANDED, _MAX_COPIED
        self.names: set[str] = set()

    def check_key(self, key: Any) -> None:
        """Raises UnpicklingError for a key of a dict, or member of a set, that takes long to hash or to compare."""
        if isinstance(key, (str, bytes, float, bool)) or key is None or (type(key) is int and abs(key) < _HASHED):
            return
        self.rare -= 1
        if self.rare < 0:
            raise pickle.UnpicklingError(f"its dicts have more than {_MAX_RARE:,} keys other than names and numbers")
        parts, count = [key], 0
        while parts:
            one, count = parts.pop(), count + 1
            if isinstance(one, tuple):
                parts += one
            if len(parts) + count > _MAX_KEY or (isinstance(one, int) and one.bit_length() > 1_024):
                raise pickle.UnpicklingError(f"a key of a dict has more than {_MAX_KEY} items or 1,024 bits")

    def count_steps(self, count: int) -> None:
        """Raises UnpicklingError if the pickles have more instructions than real ones."""
        self.steps -= count
        if self.steps < 0:
            raise pickle.UnpicklingError(f"its pickle has more than {MAX_STEPS:,} instructions")

    def count_items(self, content: Any) -> list | tuple:
        """Returns the items of a list or tuple of which a call makes a copy; raises UnpicklingError for too many."""
        items = content if isinstance(content, (list, tuple)) else ()
        self.count_steps(len(items))
        return items

    def count_bytes(self, content: Any) -> None:
        """Raises UnpicklingError if calls copy more bytes than a pickle has."""
        self.copied -= len(content) if isinstance(content, (str, bytes, bytearray, list, tuple)) else 0
        if self.copied < 0:
            raise pickle.UnpicklingError(f"its pickle copies more than {_MAX_COPIED:,} bytes")

    def check_expanded(self, numbers: int, stored: int, shape: object) -> None:
        """Raises UnpicklingError if tensors have many more numbers than are stored."""
        self.expanded -= max(0, numbers - stored)
        if self.expanded < 0:
            raise pickle.UnpicklingError(f"a tensor of shape {shape} has {stored} numbers")
