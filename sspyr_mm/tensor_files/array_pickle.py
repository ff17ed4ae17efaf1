"""Numpy arrays in pickles, rebuilt from plain stand-ins: numpy itself trusts what a file says about memory."""

import math
import pickle
import re
from collections import OrderedDict
from typing import Any, BinaryIO

import numpy as np

_PLAIN = re.compile(r"[<>=|]?(?:[?bBhHiIlLqQefdgFD]|b1|[iu][1248]|f[248]|c8|c16|[US]\d{1,6})")
"""Dtypes of numbers and texts: a pickled dtype of numpy can turn bytes into pointers."""
_MAX_DIMENSIONS = 64
_MAX_NESTING = 100
"""Levels of nested dicts, lists and tuples; optimizers and message hubs have at most ten."""
_MAX_VALUES = 4_000_000
"""Values in dicts, lists and tuples, where those that share a part count it each time."""


def read_arrays(file: BinaryIO) -> Any:
    """Reads a pickle of dicts, lists, plain values and numpy arrays of numbers; nothing in it is executed.

    The arrays are stand-ins for a :class:`Restorer`. Files of Python 2 and 3 are supported.
    Raises UnpicklingError if the file needs another class or function, named ``GLOBAL m.name`` in the message.
    """
    return _ArrayUnpickler(file, encoding="latin1").load()


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
        self.order, self.name = "", _kind(name)

    def __setstate__(self, state: Any) -> None:
        self.order = _kind(state[1])  # version, byte order, fields of structured types only

    def __str__(self) -> str:
        return f"{self.order}{self.name}" if self.order != "|" else self.name


def _kind(dtype: Any) -> str:
    """Returns a dtype of a file as text; raises UnpicklingError for other objects, whose text may be endless."""
    if not isinstance(dtype, (str, _DType)):
        raise pickle.UnpicklingError(f"a dtype is a {type(dtype).__name__}")
    return str(dtype)


class _Array:
    """Replaces numpy's array or, with ``is_scalar``, its number while a file is read."""

    def __init__(self, shape: Any = (), dtype: Any = "", data: Any = b"", *_: Any, order: Any = "C") -> None:
        self.content = shape, dtype, data, order
        self.is_scalar = False

    def __setstate__(self, state: Any) -> None:
        _, shape, dtype, fortran, data = state
        self.content = shape, dtype, data, "F" if fortran else "C"


def _reconstruct(*_: Any) -> _Array:
    return _Array()  # filled by its state


def _scalar(dtype: Any, data: Any = b"") -> _Array:
    number = _Array((), dtype, data)
    number.is_scalar = True
    return number


def _frombuffer(data: Any, dtype: Any, shape: Any, order: str = "C", *_: Any) -> _Array:
    return _Array(shape, dtype, data, order="F" if order == "F" else "C")


def _encode(text: str, encoding: str = "latin1") -> bytes:
    """Replaces ``_codecs.encode``, with which protocol 2 writes bytes, always in this encoding."""
    return text.encode("latin1")


def _bytearray(content: bytes | str | int = b"", *_: Any) -> bytearray:
    """Replaces ``bytearray``, which reserves memory if it is given a number."""
    if isinstance(content, int):
        raise pickle.UnpicklingError("its pickle asks for memory without content")
    return bytearray(content.encode("latin1") if isinstance(content, str) else content)


def plain_bytes(*given: Any) -> bytes:
    """Replaces ``bytes``, with which protocol 2 writes empty ones, like ``bytearray``."""
    return bytes(_bytearray(*given))


ARRAY_GLOBALS: dict[str, Any] = {"numpy.ndarray": _Array, "numpy.dtype": _DType}
"""Globals with which numpy arrays and numbers are pickled by numpy 1 and 2 -> their stand-ins."""
for _core in ("numpy.core", "numpy._core"):
    ARRAY_GLOBALS[f"{_core}.multiarray._reconstruct"] = _reconstruct
    ARRAY_GLOBALS[f"{_core}.multiarray.scalar"] = _scalar
    ARRAY_GLOBALS[f"{_core}.numeric._frombuffer"] = _frombuffer  # protocol 5

_KNOWN = {
    **ARRAY_GLOBALS,
    "collections.OrderedDict": OrderedDict,
    "builtins.bytearray": _bytearray,
    "builtins.bytes": plain_bytes,
    "_codecs.encode": _encode,
}


def full_name(module: str, name: str) -> str:
    """Returns the name of a class or function in a pickle as Python 3 has it."""
    return f"{'builtins' if module == '__builtin__' else module}.{name}"  # as in Python 2 and protocol 2


class _ArrayUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        full = full_name(module, name)
        if full not in _KNOWN:
            raise pickle.UnpicklingError(f"GLOBAL {full}")
        return _KNOWN[full]


def checked_shape(size: Any) -> tuple[int, ...]:
    """Returns the shape of a tensor in a file; raises UnpicklingError if it is not one."""
    if isinstance(size, int):
        size = (size,)
    if not isinstance(size, (tuple, list)) or len(size) > _MAX_DIMENSIONS:
        raise pickle.UnpicklingError(f"a shape is not a tuple of at most {_MAX_DIMENSIONS} numbers")
    if not all(type(one) is int and 0 <= one < 1 << 63 for one in size):
        raise pickle.UnpicklingError("a shape has a dimension that is not a number from 0 to 2^63 - 1")
    return tuple(size)


class Restorer:
    """Puts numpy arrays in place of their stand-ins, in all parts of one file.

    Whoever walks through the result meets a limited number of values, and no dict, list or tuple inside of itself.

    Args:
        size: Bytes of the file. Arrays that share bytes of the file become separate ones, which together are not
            larger than it.
    """

    def __init__(self, size: int) -> None:
        self.left, self.values = size, 0
        # By id: the original, which keeps its id, its replacement, and the number of values in it.
        self.done: dict[int, tuple[Any, Any, int]] = {}
        self.outer: set[int] = set()  # ids of the values around the present one

    def __call__(self, value: Any, depth: int = 0) -> Any:
        """Returns a value with arrays; dicts and lists are changed in place.

        Raises ValueError if an array has other contents than numbers and texts, values are nested too deeply, in
        themselves or too many, or arrays are larger than the file.
        """
        is_container = isinstance(value, (dict, list, tuple, _Array))
        new, count = self.done[id(value)][1:] if is_container and id(value) in self.done else (value, 1)
        self.values += count
        if self.values > _MAX_VALUES:
            raise ValueError(f"it has more than {_MAX_VALUES:,} values, if shared ones are counted each time")
        if not is_container or id(value) in self.done:
            return new
        if depth > _MAX_NESTING or id(value) in self.outer:
            raise ValueError(f"values are nested in more than {_MAX_NESTING} levels, or in themselves")
        before = self.values - 1
        self.outer.add(id(value))
        if isinstance(value, (dict, list)):
            self._restore_items(value, depth + 1)
        elif isinstance(value, _Array):
            new = self._array(value, depth)
        else:
            parts = [self(one, depth + 1) for one in value]
            new = value if all(a is b for a, b in zip(parts, value, strict=True)) else tuple(parts)
        self.outer.remove(id(value))
        self.done[id(value)] = value, new, self.values - before
        return new

    def _restore_items(self, value: dict | list, depth: int) -> None:
        for key, one in list(value.items() if isinstance(value, dict) else enumerate(value)):
            new = self(one, depth)
            if isinstance(value, dict) and isinstance(key, _Array):
                del value[key]
                value[self(key, depth)] = new
            elif new is not one:
                value[key] = new

    def _array(self, stand_in: _Array, depth: int) -> Any:
        size, dtype, data, order = stand_in.content
        shape, kind = checked_shape(size), _kind(dtype)
        if kind in ("O", "O8") and isinstance(data, list):  # objects, each read like the others of the file
            flat: np.ndarray = np.empty(len(data), object)
            flat[:] = self(data, depth + 1)
        elif _PLAIN.fullmatch(kind):
            data = data.encode("latin1") if isinstance(data, str) else data  # from Python 2
            flat = np.frombuffer(data, np.dtype(kind)) if len(data) else np.empty(0, np.dtype(kind))
        else:
            raise ValueError(f"an array has the dtype {kind[:40]!r}: only numbers and texts are read")
        if flat.size != math.prod(shape):
            raise ValueError(f"an array of shape {shape} has {flat.size} numbers")
        self.left -= flat.nbytes
        if self.left < 0:
            raise ValueError("its arrays are larger than the file")
        array = flat.reshape(shape, order=order).copy()
        return array[()] if stand_in.is_scalar else array
