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

    Files of Python 2 and 3 are supported.
    Raises UnpicklingError if the file needs another class or function, named ``GLOBAL m.name`` in the message, and
    ValueError if an array does not hold numbers, or its bytes do not match its shape.
    """
    with open(path, "rb") as file:
        return _plain(_ArrayUnpickler(file, encoding="latin1").load())


def write_arrays(content: Any, file: BinaryIO) -> None:
    """Writes a pickle that ``pickle.load(file, encoding="latin1")`` reads with any version of numpy."""
    # Protocol 4: from protocol 5 on, numpy uses functions that older versions lack.
    _ArrayPickler(file, protocol=4).dump(content)


class _ArrayPickler(pickle.Pickler):
    """Writes arrays as calls of ``numpy.ndarray``; numpy's own function is in another module since numpy 2."""

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
    """Replaces numpy's array while a file is read."""

    def __init__(self, shape: Any = (), dtype: Any = "", data: Any = b"", *_: Any, order: Any = "C") -> None:
        self.content = shape, dtype, data, order

    def __setstate__(self, state: Any) -> None:
        _, shape, dtype, fortran, data = state
        self.content = shape, dtype, data, "F" if fortran else "C"

    def array(self) -> np.ndarray:
        shape, dtype, data, order = self.content
        if not _DTYPE.fullmatch(str(dtype)):
            raise ValueError(f"an array has the dtype {str(dtype)!r}, which is not numeric")
        data = data.encode("latin1") if isinstance(data, str) else data  # from Python 2
        flat = np.frombuffer(data, np.dtype(str(dtype)))
        if flat.size != math.prod(shape):
            raise ValueError(f"an array of shape {shape} has {flat.size} numbers")
        return flat.reshape(shape, order=order).copy()


def _reconstruct(*_: Any) -> _Array:
    return _Array()  # filled by its state


def _scalar(dtype: Any, data: Any = b"") -> _Array:
    return _Array((), dtype, data)


def _frombuffer(data: Any, dtype: Any, shape: Any, order: str = "C", *_: Any) -> _Array:
    return _Array(shape, dtype, data, order="F" if order == "F" else "C")


def _encode(text: str, encoding: str = "latin1") -> bytes:
    """Replaces ``_codecs.encode``, with which protocol 2 writes bytes, always in this encoding."""
    return text.encode("latin1")


_KNOWN: dict[tuple[str, str], Any] = {
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _DType,
    ("collections", "OrderedDict"): OrderedDict,
    ("builtins", "bytearray"): bytearray,
    ("_codecs", "encode"): _encode,
}
for _core in ("numpy.core", "numpy._core"):
    _KNOWN[f"{_core}.multiarray", "_reconstruct"] = _reconstruct
    _KNOWN[f"{_core}.multiarray", "scalar"] = _scalar
    _KNOWN[f"{_core}.numeric", "_frombuffer"] = _frombuffer  # protocol 5


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
