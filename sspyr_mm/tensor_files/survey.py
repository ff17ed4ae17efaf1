"""Survey of a pickle before it is read: its length, classes and tensors; nothing in it is executed."""

import io
import math
import os
import pickle
import sys
import zipfile
from collections.abc import Callable
from typing import Any, BinaryIO

import torch

from sspyr_mm.tensor_files.allowed import MAX_NAMES, MAX_STEPS, Bounds
from sspyr_mm.tensor_files.array_pickle import checked_shape, full_name

_MAX_PICKLE = 1 << 30
"""Bytes of a pickle without its tensors: a message hub of a million iterations and ten values a step takes 0.3 GB."""
_LATIN = ("latin1", "latin-1", "iso-8859-1")


def survey_archive(archive: zipfile.ZipFile) -> set[str]:
    """Returns the names of the classes and functions in an archive of ``torch.save``, without using any of them.

    Raises UnpicklingError if its pickle is too large, or contradicts the records.
    """
    sizes = {one.filename: one.file_size for one in archive.infolist()}
    root = archive.namelist()[0].partition("/")[0]
    if sizes.get(f"{root}/data.pkl", 0) > _MAX_PICKLE:
        raise pickle.UnpicklingError(f"its pickle has more than {_MAX_PICKLE:,} bytes")
    bounds = Bounds()
    storages = _Survey(io.BytesIO(archive.read(f"{root}/data.pkl")), bounds).storages
    for key, size in storages.items():
        if size > sizes.get(f"{root}/data/{key}", -1):
            raise pickle.UnpicklingError(f"tensor {key} is larger than its record")
    return bounds.names


def survey_stream(file: BinaryIO) -> set[str]:
    """Like :func:`survey_archive` for a file of ``torch.save`` before 1.6: five pickles, then the tensors."""
    length = file.seek(0, os.SEEK_END)
    file.seek(0)
    bounds = Bounds()
    for _ in range(5):  # a number, a version, the machine, the content, and the order of the tensors
        if sum(_Survey(file, bounds).storages.values()) > length:
            raise pickle.UnpicklingError("its tensors are larger than the file")
    return bounds.names


def survey_pickle(file: BinaryIO) -> None:
    """Raises UnpicklingError if a pickle at the position of a file has more than real ones, or is invalid."""
    start = file.tell()
    _Survey(file, Bounds())
    file.seek(start)


class _Counted(dict):
    """Functions of a pickle's instructions; counts how often they are used."""

    def __init__(self, functions: dict[int, Callable], bounds: Bounds) -> None:
        super().__init__(functions)
        self.bounds = bounds

    def __getitem__(self, code: int) -> Callable:
        self.bounds.count_steps(1)
        return super().__getitem__(code)


class _Stub:
    """Replaces every class and function: accepts what a pickle does to it, and does nothing."""

    def __init__(self, *_: Any) -> None: ...

    def __call__(self, *_: Any) -> "_Stub":
        return self

    def __setstate__(self, state: Any) -> None: ...

    def __setitem__(self, key: Any, value: Any) -> None: ...

    def append(self, value: Any) -> None:
        """Ignores an item of a list."""

    def extend(self, values: Any) -> None:
        """Ignores items of a list."""

    def update(self, values: Any) -> None:
        """Ignores items of a set."""


class _Storage:
    """Replaces the numbers of tensors."""

    def __init__(self, count: int) -> None:
        self.count = count


def _of_another_device(*_: Any) -> None:
    raise pickle.UnpicklingError("a tensor is of a device that is neither a CPU nor a GPU: save it from the CPU")


class _TensorStub(_Stub):
    """Replaces classes of tensors and storages, which are built empty or, by torch < 0.2, from a storage."""

    def __init__(self, *given: Any) -> None:
        if not all(isinstance(one, (_Stub, _Storage)) for one in given):
            raise pickle.UnpicklingError("its pickle asks for memory without content")

    def __setstate__(self, state: Any) -> None:
        storage, _, size, *_ = state
        shape = checked_shape(size)
        stored = storage.count if isinstance(storage, _Storage) else 0
        if math.prod(shape) > stored:  # torch would enlarge the storage
            raise pickle.UnpicklingError(f"a tensor of shape {shape} has {stored} numbers")


_PythonUnpickler: Any = pickle._Unpickler
"""Python's unpickler in Python, whose instructions can be replaced one by one."""


class _Survey(_PythonUnpickler):
    """Collects the names in a pickle and the sizes of its storages, without building anything."""

    dispatch = dict(_PythonUnpickler.dispatch)

    def __init__(self, file: BinaryIO, bounds: Bounds) -> None:
        super().__init__(file, encoding="latin1")
        self.bounds = bounds
        self.dispatch = _Counted(type(self).dispatch, bounds)
        self.classes: dict[str, Any] = {}
        self.storages: dict[str, int] = {}  # bytes by key
        self.functions: dict[str, Callable] = {
            "torch._tensor._rebuild_from_type_v2": lambda function, kind, given, state: function(*given),
            "torch._utils._rebuild_qtensor": self._tensor,
            "torch._utils._rebuild_device_tensor_from_cpu_tensor": _of_another_device,
            "torch._utils._rebuild_device_tensor_from_numpy": _of_another_device,
            "torch.Size": lambda given=(): checked_shape(given),
            "builtins.bytearray": self._bytes,
            "builtins.bytes": self._bytes,
            "builtins.complex": complex,
            "_codecs.encode": self._encode,
            "builtins.set": self._members,
            "builtins.frozenset": self._members,
            "collections.Counter": self._members,
            "collections.OrderedDict": self._pairs,
        }
        for version in ("", "_v2", "_v3"):
            self.functions[f"torch._utils._rebuild_tensor{version}"] = self._tensor
        self.load()

    def find_class(self, module: str, name: str) -> Any:
        full = full_name(module, name)
        self.bounds.names.add(full)
        if len(self.bounds.names) > MAX_NAMES:
            raise pickle.UnpicklingError(f"its pickle names more than {MAX_NAMES:,} classes")
        if full in self.functions:
            return self.functions[full]
        if full not in self.classes:
            reserves = module.startswith("torch") and name.endswith(("Tensor", "Storage"))
            self.classes[full] = type("_Named", (_TensorStub if reserves else _Stub,), {"full_name": full})
        return self.classes[full]

    def persistent_load(self, pid: Any) -> Any:
        if isinstance(pid, tuple) and len(pid) > 1 and isinstance(pid[0], str) and pid[0] == "module":
            raise pickle.UnpicklingError(f"GLOBAL {getattr(pid[1], 'full_name', 'module')}")  # a class, with its code
        if not isinstance(pid, tuple) or len(pid) < 5 or type(pid[4]) is not int or type(pid[2]) is not str:
            raise pickle.UnpicklingError("a tensor has no storage")
        key, count = pid[2], pid[4]
        stored: Any = getattr(torch, str(getattr(pid[1], "full_name", "")).rpartition(".")[2], None)
        dtype = getattr(stored, "_dtype", None)  # `dtype` warns that storages with a type are deprecated
        itemsize = dtype.itemsize if isinstance(dtype, torch.dtype) else 1
        if count < 0:
            raise pickle.UnpicklingError(f"tensor {key} has {count} numbers")
        self.storages[key] = max(self.storages.get(key, 0), count * itemsize)
        return _Storage(count)

    def _tensor(self, storage: Any, offset: Any, size: Any, *_: Any) -> _Stub:
        """Replaces the functions that build tensors; torch itself checks that a tensor lies inside of its storage."""
        shape = checked_shape(size)
        self.bounds.check_expanded(math.prod(shape), storage.count if isinstance(storage, _Storage) else 0, shape)
        return _Stub()

    def _bytes(self, *given: Any) -> bytes:
        if given and isinstance(given[0], int):
            raise pickle.UnpicklingError("its pickle asks for memory without content")
        self.bounds.count_bytes(given[0] if given else b"")
        return b""

    def _encode(self, text: Any, encoding: Any = "latin1") -> bytes:
        if encoding not in _LATIN:
            raise pickle.UnpicklingError("bytes are not encoded by latin1")
        self.bounds.count_bytes(text)
        return b""

    def _members(self, content: Any = (), *_: Any) -> _Stub:
        """Replaces sets that are built from their members."""
        for one in self.bounds.count_items(content):
            self.bounds.check_key(one)
        return _Stub()

    def _pairs(self, content: Any = (), *_: Any) -> _Stub:
        """Replaces dicts that are built from pairs, as by Python 2."""
        for one in self.bounds.count_items(content):
            self.bounds.check_key(one[0] if isinstance(one, (list, tuple)) and one else None)
        return _Stub()

    def load_key(self) -> None:
        self.bounds.check_key(self.stack[-2])
        super().load_setitem()

    def load_long_bytearray(self) -> None:
        size = int.from_bytes(self.read(8), "little")
        if len(self.read(min(size, sys.maxsize))) != size:  # Python reserves the memory first
            raise pickle.UnpicklingError("its pickle asks for memory without content")
        self.append(b"")

    def load_far_put(self) -> None:
        place = int.from_bytes(self.read(4), "little")
        if place > MAX_STEPS:  # Python reserves memory for all places up to it
            raise pickle.UnpicklingError(f"its pickle has more than {MAX_STEPS:,} instructions")
        self.memo[place] = self.stack[-1]

    def load_text_put(self) -> None:
        raise pickle.UnpicklingError("it was written by pickle protocol 0, which torch and numpy do not use")


def _checking(load: Callable, step: int) -> Callable:
    """Returns an instruction that checks every ``step``-th item since the last mark, a key, before it uses them."""

    def checking(survey: _Survey) -> None:
        for key in survey.stack[::step]:
            survey.bounds.check_key(key)
        load(survey)

    return checking


for _code, _function in {
    pickle.SETITEM: _Survey.load_key,
    pickle.SETITEMS: _checking(_PythonUnpickler.load_setitems, 2),
    pickle.DICT: _checking(_PythonUnpickler.load_dict, 2),
    pickle.ADDITEMS: _checking(_PythonUnpickler.load_additems, 1),
    pickle.FROZENSET: _checking(_PythonUnpickler.load_frozenset, 1),
    pickle.LONG_BINPUT: _Survey.load_far_put,
    pickle.PUT: _Survey.load_text_put,
    pickle.BYTEARRAY8: _Survey.load_long_bytearray,
}.items():
    _Survey.dispatch[_code[0]] = _function
