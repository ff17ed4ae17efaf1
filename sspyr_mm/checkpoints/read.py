"""Files of tensors, read without executing anything in them."""

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
"""Classes with which mmengine's message hub, the log inside its checkpoints, is pickled."""

_SETTINGS = (
    "argparse.Namespace",
    *(f"pathlib{module}.{kind}Path" for module in ("", "._local") for kind in ("Posix", "Windows")),
)
"""Classes of the settings of training scripts."""

_LEGACY_TORCH = b"\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19"
"""Number at the start of files of torch < 1.6, as a separate pickle."""

_MARKUP = (b"<!doctype", b"<html", b"<head", b"<?xml")
_PACKED = "extract it and pass the checkpoint inside"
_KINDS = (
    (b"version https://git-lfs", "a Git LFS pointer, not the file: download it with `git lfs pull`"),
    (b"\x1f\x8b", f"compressed by gzip: {_PACKED}"),
    (b"BZh", f"compressed by bzip2: {_PACKED}"),
    (b"\xfd7zXZ", f"compressed by xz: {_PACKED}"),
    (b"\x28\xb5\x2f\xfd", f"compressed by zstd: {_PACKED}"),
    (b"7z\xbc\xaf", f"a 7z archive: {_PACKED}"),
    (b"Rar!", f"a rar archive: {_PACKED}"),
    (b"\x89HDF", "an HDF5 file, as from Keras: only PyTorch weights are supported"),
    (b"\x93NUMPY", "a single numpy array: pass tensors by name, saved by torch.save"),
)
"""First bytes of files -> description and remedy."""

SAFETENSORS_META = "sspyr_mm"
"""Key of our metadata, as JSON, in the header of a ``.safetensors`` file."""

_DAMAGE = (
    *(RuntimeError, EOFError, LookupError, OSError, AttributeError, ImportError),
    *(TypeError, ValueError, MemoryError),
)
"""Errors that readers raise for damaged files."""


class _Inert:
    """Placeholder for parts of the message hub and settings: accepts any arguments and does nothing."""

    def __init__(self, *_: Any) -> None: ...

    def __setstate__(self, state: Any) -> None: ...


def read_checkpoint(path: FilePath, *, allow_pickle: bool = False) -> dict[str, Any]:
    """Reads a file of tensors, numpy arrays and plain values without executing anything in it.

    Args:
        path: File of ``torch.save``, ``.safetensors`` file or pickle of numpy arrays, detected by content. The message
            hub of mmengine's checkpoints and the values of argparse namespaces and paths are dropped.
        allow_pickle: Whether the file may contain objects of any class. Risk: unpickling can run any code with the
            rights of the user. Only for files from a trusted source.

    Returns:
        The checkpoint; for a ``.safetensors`` file ``dict(state_dict=..., meta=...)``.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is not a checkpoint, is empty or damaged, or needs arbitrary pickle.
    """
    if not os.path.isfile(path):
        what = f"{path} is a folder" if os.path.isdir(path) else f"No checkpoint at {path}"
        raise FileNotFoundError(f"{what}: pass a .pth file, e.g. WORK_DIR/epoch_50.pth")
    with open(path, "rb") as file:
        head = file.read(512)
    if not head:
        raise ValueError(f"{path} is empty: writing or copying it was interrupted; copy it again")
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
    """Returns the SHA-256 of a file in hexadecimal."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _load(path: FilePath, allow_pickle: bool) -> Any:
    if allow_pickle:
        return torch.load(path, map_location="cpu", weights_only=False)
    if not hasattr(torch.serialization, "get_unsafe_globals_in_checkpoint"):
        raise ValueError(
            f"Reading checkpoints safely needs torch >= 2.6, but torch {torch.__version__} is installed: update torch"
        )
    inert = {name: _Inert for name in (*_SETTINGS, *_globals_of_log(path))}
    known = {**inert, **_globals_of_arrays()}
    with torch.serialization.safe_globals([(cls, name) for name, cls in known.items()]):
        return torch.load(path, map_location="cpu", weights_only=True)


def _load_pickle(path: FilePath, allow_pickle: bool) -> Any:
    if not allow_pickle:
        return read_arrays(path)
    with open(path, "rb") as file:
        return pickle.load(file, encoding="latin1")


def _globals_of_arrays() -> dict[str, Any]:
    """Returns the globals with which numpy arrays and numbers are pickled, by their names in numpy 1 and 2."""
    classes: list[type] = [np.ndarray, np.dtype, *(type(np.dtype(c)) for c in "?bBhHiIlLqQefdFDOSU")]
    found: dict[str, Any] = {f"{cls.__module__}.{cls.__qualname__}": cls for cls in classes}
    for core in ("core", "_core"):
        found[f"numpy.{core}.multiarray._reconstruct"] = np.zeros(1).__reduce__()[0]
        found[f"numpy.{core}.multiarray.scalar"] = np.float64(1).__reduce__()[0]
    return found


def _globals_of_log(path: FilePath) -> list[str]:
    try:
        names = torch.serialization.get_unsafe_globals_in_checkpoint(path)
        return [name for name in names if name.startswith(_LOG_GLOBALS)]
    except ValueError:  # not a zip archive: an old checkpoint, which has no log, or not a checkpoint
        return []


def _refusal(path: FilePath, error: str) -> str:
    # For files older than the zip format, only torch's message names the class.
    if "GLOBAL" in error or "is blocked" in error or "Unsupported class" in error:
        wanted = error.split("GLOBAL ")[-1].split()[0] if "GLOBAL " in error else "other classes"
        return (
            f"{path} needs arbitrary pickle ({wanted}), which can run any code on this machine: it was refused, and "
            "nothing was executed. If you trust its source, read it with --allow-pickle (allow_pickle=True)"
        )
    return _damaged(path, error)


def _damaged(path: FilePath, error: str) -> str:
    # torch's own messages recommend weights_only=False.
    detail = "" if not error or "weights_only" in error else f": {error.splitlines()[0]}"
    return (
        f"{path} is not a checkpoint of tensors and plain values, or it is damaged{detail}. Copy or download it again, "
        "and compare its size with the original's"
    )


def _kind(head: bytes) -> str | None:
    """Returns the description of a file of another program, with the remedy; None if it may be a checkpoint."""
    text = head.removeprefix(codecs.BOM_UTF8).lstrip()
    if text.lower().startswith(_MARKUP):
        return (
            "a web page (HTML), not a checkpoint: the server sent an error, login or preview page; download the "
            "file itself from the link to its raw content"
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
    """Like :func:`_kind` for zip archives, which torch.save also writes."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        return (
            "not a checkpoint, or it is damaged: a truncated zip archive, as after an interrupted copy; copy "
            "or download it again"
        )
    last = [name.rpartition("/")[2] for name in names]
    if "constants.pkl" in last:
        return (
            "a TorchScript program, which contains code: nothing was executed. If you trust its source, write "
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
    """Returns whether a file begins like the format: a length of at most 100 MB in 8 bytes, then a JSON object."""
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
