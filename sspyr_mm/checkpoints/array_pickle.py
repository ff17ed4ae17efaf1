"""Pickles of numpy arrays without torch objects, the ``.pkl`` files of Detectron2."""

import math
import pickle
import re
from collections import OrderedDict
from typing import Any, BinaryIO

import numpy as np

_DTYPE = re.compile(r"[<>=|]?(?:[?bBhHiIlLqQefdg]|b1|[iu][1248]|f[248])")
"""Kinds of numeric dtypes: numpy itself trusts a pickled dtype, which can turn bytes into pointers."""


def read_arrays(path: Any) -> Any:
    """Reads a pickle of dicts, lists, plain values and numpy arrays of numbers; nothing in it is executed.

    Args:
        path: File, written by Python 2 or 3.

    Returns:
        The content.

    Raises:
        pickle.UnpicklingError: If the file needs another class or function; the message names it as ``GLOBAL m.name``.
        ValueError: If an array does not hold numbers, or its bytes do not match its shape.
    """
    with open(path, "rb") as file:
        return _plain(_ArrayUnpickler(file, encoding="latin1").load())


def write_arrays(content: Any, file: BinaryIO) -> None:
    """Writes a pickle that ``pickle.load(file, encoding="latin1")`` reads with any version of numpy.

    Args:
        content: Dicts, lists, plain values and numpy arrays.
        file: Open file.
    """
    # Protocol 4: from protocol 5 on, numpy uses functions that older versions lack.
    _ArrayPickler(file, protocol=4).dump(content)


class _ArrayPickler(pickle.Pickler):
    """Uses one module for numpy's pickling function, whose place differs between numpy 1 and 2."""

    def reducer_override(self, value: Any) -> Any:
        if isinstance(value, np.ndarray):
            return np.ndarray, (value.shape, value.dtype.str, bytearray(value.tobytes()))
        return NotImplemented


class _DType:
    """Replaces numpy's dtype while a file is read."""

    def __init__(self, name: Any = "", *_: Any) -> None:
        self.order, self.name = "", str(name)

    def __setstate__(self, state: Any) -> None:
        self.order = state[1]  # version, byte order, fields of structured types only

    def __str__(self) -> str:
        return f"{self.order}{self.name}" if self.order != "|" else self.name


class _Array:
    """Replaces numpy's array while a file is read: called with (shape, dtype, bytes), or filled by its state."""

    def __init__(self, shape: Any = (), dtype: Any = "", data: Any = b"", *_: Any) -> None:
        self.content = (shape, dtype, data, False)

    def __setstate__(self, state: Any) -> None:
        _, shape, dtype, fortran, data = state
        self.content = (shape, dtype, data, fortran)

    def array(self) -> np.ndarray:
        shape, dtype, data, fortran = self.content
        if not _DTYPE.fullmatch(str(dtype)):
            raise ValueError(f"an array has the dtype {str(dtype)!r}, which is not numeric")
        data = data.encode("latin1") if isinstance(data, str) else data  # from Python 2
        flat = np.frombuffer(data, np.dtype(str(dtype)))
        if flat.size != math.prod(shape):
            raise ValueError(f"an array of shape {shape} has {flat.size} numbers")
        return flat.reshape(shape, order="F" if fortran else "C").copy()


def _reconstruct(*_: Any) -> _Array:
    return _Array()


def _scalar(dtype: Any, data: Any = b"") -> _Array:
    return _Array((), dtype, data)


def _encode(text: str, encoding: str = "latin1") -> bytes:
    """Replaces ``_codecs.encode``, with which protocol 2 writes bytes, always in this encoding."""
    return text.encode("latin1")


def _frombuffer(data: Any, dtype: Any, shape: Any, order: str = "C", *_: Any) -> _Array:
    array = _Array()
    array.content = (shape, dtype, data, order == "F")
    return array


_KNOWN: dict[tuple[str, str], Any] = {
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _DType,
    ("collections", "OrderedDict"): OrderedDict,
    ("builtins", "bytearray"): bytearray,
    ("_codecs", "encode"): _encode,
    **{
        (f"numpy.{core}.{module}", name): function
        for core in ("core", "_core")
        for module, name, function in (
            ("multiarray", "_reconstruct", _reconstruct),
            ("multiarray", "scalar", _scalar),
            ("numeric", "_frombuffer", _frombuffer),  # protocol 5
        )
    },
}


class _ArrayUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _KNOWN:
            raise pickle.UnpicklingError(f"GLOBAL {module}.{name}")
        return _KNOWN[module, name]


def _plain(value: Any, depth: int = 0) -> Any:
    """Returns the content with numpy arrays in place of their replacements."""
    if isinstance(value, _Array):
        return value.array()
    if depth < 4 and isinstance(value, dict):
        return {k: _plain(v, depth + 1) for k, v in value.items()}
    if depth < 4 and isinstance(value, (list, tuple)):
        return type(value)(_plain(v, depth + 1) for v in value)
    return value
