"""Files of tensors, read without anything in them being executed."""

import codecs
import hashlib
import json
import os
import pickle
import zipfile
from typing import Any

import numpy as np
import torch

from sspyr_mm.checkpoints.array_pickle import read_arrays

FilePath = str | os.PathLike[str]

_LOG_GLOBALS = ("mmengine.logging.", "numpy.", "builtins.getattr")
"""What mmengine's message hub, the log inside of its checkpoints, is pickled with."""

_SETTINGS = (
    "argparse.Namespace",
    *(f"pathlib{module}.{kind}Path" for module in ("", "._local") for kind in ("Posix", "Windows")),
)
"""Classes of training scripts' settings."""

_LEGACY_TORCH = b"\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19"
"""A number that files of torch < 1.6 begin with, as a pickle of its own."""

_MARKUP = (b"<!doctype", b"<html", b"<head", b"<?xml")
_PACKED = "extract it and give the checkpoint inside"
_KINDS = (
    (b"version https://git-lfs", "a Git LFS pointer, not the file: fetch it with `git lfs pull`"),
    (b"\x1f\x8b", f"compressed by gzip: {_PACKED}"),
    (b"BZh", f"compressed by bzip2: {_PACKED}"),
    (b"\xfd7zXZ", f"compressed by xz: {_PACKED}"),
    (b"\x28\xb5\x2f\xfd", f"compressed by zstd: {_PACKED}"),
    (b"7z\xbc\xaf", f"a 7z archive: {_PACKED}"),
    (b"Rar!", f"a rar archive: {_PACKED}"),
    (b"\x89HDF", "an HDF5 file, as of Keras: only weights of PyTorch are read"),
    (b"\x93NUMPY", "a single numpy array: weights are tensors by name, saved by torch.save"),
)
"""Beginnings of files, and what to do with such a file."""

SAFETENSORS_META = "sspyr_mm"
"""Key of our own metadata, as JSON, in the header of a ``.safetensors`` file."""


_DAMAGE = (
    *(RuntimeError, EOFError, LookupError, OSError, AttributeError, ImportError),
    *(TypeError, ValueError, MemoryError),
)
"""Errors that readers raise for damaged files."""


class _Inert:
    """Stands in for parts of the message hub and for settings: takes anything, does nothing."""

    def __init__(self, *_: Any) -> None: ...

    def __setstate__(self, state: Any) -> None: ...


def read_checkpoint(path: FilePath, *, allow_pickle: bool = False) -> dict[str, Any]:
    """Reads a file of tensors, numpy arrays and plain values; nothing in it is executed.

    Args:
        path: A file of ``torch.save``, a ``.safetensors`` file or a pickle of numpy arrays, detected by content. The
            message hub of mmengine's checkpoints is left out, and so are the values of argparse's settings and paths.
        allow_pickle: Whether objects of any class may be in it. Risk: unpickling them can run any code with the
            rights of whoever reads the file. Only for files whose makers are trusted.

    Returns:
        The checkpoint; of a ``.safetensors`` file ``dict(state_dict=..., meta=...)``.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is no checkpoint, an empty or a damaged one, or one that needs arbitrary pickle.
    """
    if not os.path.isfile(path):
        what = f"{path} is a folder" if os.path.isdir(path) else f"No checkpoint at {path}"
        raise FileNotFoundError(f"{what}: give a .pth file, e.g. WORK_DIR/epoch_50.pth")
    with open(path, "rb") as file:
        head = file.read(512)
    if not head:
        raise ValueError(f"{path} is empty: it was not written to its end; copy it again")
    if _is_safetensors(head):
        return _read_safetensors(path)
    if kind := _zip_kind(path) if head.startswith(b"PK\x03\x04") else _kind(head):
        raise ValueError(f"{path} is {kind}")
    try:
        if head.startswith(b"\x80") and _LEGACY_TORCH not in head[:64]:
            checkpoint = _load_pickle(path, allow_pickle)
        else:
            checkpoint = _load(path, allow_pickle)
    except pickle.UnpicklingError as error:
        raise ValueError(_refusal(path, str(error))) from error
    except _DAMAGE as error:
        raise ValueError(_damaged(path, str(error))) from error
    if isinstance(checkpoint, torch.nn.Module):
        checkpoint = {"model": checkpoint}
    if not isinstance(checkpoint, dict):
        raise ValueError(f"{path} holds a {type(checkpoint).__name__}, not a dict with a state_dict")
    checkpoint.pop("message_hub", None)
    return checkpoint


def file_sha256(path: FilePath) -> str:
    """Fingerprint of a file.

    Args:
        path: The file.

    Returns:
        SHA-256 in hexadecimal.
    """
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _load(path: FilePath, allow_pickle: bool) -> Any:
    if allow_pickle:
        return torch.load(path, map_location="cpu", weights_only=False)
    if not hasattr(torch.serialization, "get_unsafe_globals_in_checkpoint"):
        raise ValueError(f"Reading checkpoints safely needs torch >= 2.6, this is {torch.__version__}: update torch")
    arrays = _globals_of_arrays()
    known = {name for _, name in arrays}
    names = {*_SETTINGS, *_globals_of_log(path)} - known
    inert = [(_Inert, name) for name in sorted(names)]
    with torch.serialization.safe_globals([*inert, *arrays]):
        return torch.load(path, map_location="cpu", weights_only=True)


def _load_pickle(path: FilePath, allow_pickle: bool) -> Any:
    if not allow_pickle:
        return read_arrays(path)
    with open(path, "rb") as file:
        return pickle.load(file, encoding="latin1")


def _globals_of_arrays() -> list[tuple[Any, str]]:
    """What numpy arrays and numbers are pickled with, under the names of numpy 1 and 2."""
    reconstruct, scalar = (x.__reduce__()[0] for x in (np.zeros(1), np.float64(1)))
    found: list[tuple[Any, str]] = []
    for core in ("core", "_core"):
        found.append((reconstruct, f"numpy.{core}.multiarray._reconstruct"))
        found.append((scalar, f"numpy.{core}.multiarray.scalar"))
    classes: list[type] = [
        np.ndarray,
        np.dtype,
        *{type(np.dtype(c)) for c in "?bBhHiIlLqQefdFDOSU"},
    ]
    return found + [(cls, f"{cls.__module__}.{cls.__qualname__}") for cls in classes]


def _globals_of_log(path: FilePath) -> list[str]:
    try:
        names = torch.serialization.get_unsafe_globals_in_checkpoint(path)
        return [name for name in names if name.startswith(_LOG_GLOBALS)]
    except ValueError:  # not a zip archive: an old checkpoint, which has no log, or none at all
        return []


def _refusal(path: FilePath, error: str) -> str:
    # torch's own text: the one place that names the class also for files older than the zip format.
    if "GLOBAL" in error or "is blocked" in error or "Unsupported class" in error:
        wanted = error.split("GLOBAL ")[-1].split()[0] if "GLOBAL " in error else "other classes"
        return (
            f"{path} needs arbitrary pickle ({wanted}), which can run any code on this machine: refused, nothing of it "
            "was executed. If you trust whoever made it, read it with --allow-pickle (allow_pickle=True)"
        )
    return _damaged(path, error)


def _damaged(path: FilePath, error: str) -> str:
    # torch's messages recommend to switch its protection off.
    detail = "" if not error or "weights_only" in error else f": {error.splitlines()[0]}"
    return (
        f"{path} is not a checkpoint of tensors and plain values, or it is damaged{detail}. Copy or download it again, "
        "and compare its size with the original's"
    )


def _kind(head: bytes) -> str | None:
    """Files of other programs, and what to do with them; None for what may be a checkpoint."""
    text = head.removeprefix(codecs.BOM_UTF8).lstrip()
    if text.lower().startswith(_MARKUP):
        return (
            "a web page (HTML), not a checkpoint: the server sent an error or a login or preview page; download the "
            "file itself, by the link to its raw content"
        )
    for magic, kind in _KINDS:
        if head.startswith(magic):
            return kind
    if head[257:262] == b"ustar":
        return f"a tar archive: {_PACKED}"
    if not any(byte < 9 or 13 < byte < 32 for byte in head):
        try:
            start = codecs.getincrementaldecoder("utf-8")().decode(text)[:60]
        except UnicodeDecodeError:
            return None
        return f"a text file, not a checkpoint; it begins with {start!r}"
    return None


def _zip_kind(path: FilePath) -> str | None:
    """As :func:`_kind`, of zip archives: torch.save writes them, too."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        return (
            "not a checkpoint, or it is damaged: a zip archive without its end, as an interrupted copy leaves it; copy "
            "or download it again"
        )
    last = [name.rpartition("/")[2] for name in names]
    if "constants.pkl" in last:
        return (
            "a TorchScript program, which holds code: nothing of it was executed. If you trust whoever made it, write "
            "its weights with torch.save(torch.jit.load(FILE).state_dict(), NEW)"
        )
    if "data.pkl" in last:
        return None
    if all(name.endswith(".npy") for name in last):
        return (
            "an archive of numpy arrays (.npz): write tensors by name with "
            "torch.save({k: torch.from_numpy(v) for k, v in numpy.load(FILE).items()}, NEW)"
        )
    return f"a zip archive of {', '.join(names[:3])}{', ...' * (len(names) > 3)}: {_PACKED}"


def _is_safetensors(head: bytes) -> bool:
    """Whether a file begins with a length of at most 100 MB in 8 bytes, as the format has it, and a JSON object."""
    return head[8:9] == b"{" and int.from_bytes(head[:8], "little") <= 100_000_000


def _read_safetensors(path: FilePath) -> dict[str, Any]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            meta = json.loads((file.metadata() or {}).get(SAFETENSORS_META, "{}"))
    except (SafetensorError, ValueError) as error:
        raise ValueError(f"{path} is a damaged .safetensors file: {error}") from error
    return {"state_dict": tensors, "meta": meta}
