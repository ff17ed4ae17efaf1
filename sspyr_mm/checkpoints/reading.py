"""Files of tensors, read without anything in them being executed."""

import hashlib
import json
import os
import pickle
from typing import Any

import numpy as np
import torch

FilePath = str | os.PathLike[str]

_LOG_GLOBALS = ("mmengine.logging.", "numpy.", "builtins.getattr")
"""What mmengine's message hub, the log inside of its checkpoints, is pickled with."""

SAFETENSORS_META = "sspyr_mm"
"""Key of our own metadata, as JSON, in the header of a ``.safetensors`` file."""


class _Inert:
    """Stands in for every part of the message hub: takes anything, does nothing."""

    def __init__(self, *_: Any) -> None: ...

    def __setstate__(self, state: Any) -> None: ...


def read_checkpoint(path: FilePath, *, allow_pickle: bool = False) -> dict[str, Any]:
    """Reads a file of tensors, numpy arrays and plain values; nothing in it is executed.

    The message hub of mmengine's checkpoints needs more than that; it is left out.

    Args:
        path: A file of ``torch.save`` or a ``.safetensors`` file; told apart by their content.
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
    if not os.path.getsize(path):
        raise ValueError(f"{path} is empty: it was not written to its end; copy it again")
    if _is_safetensors(path):
        return _read_safetensors(path)
    try:
        checkpoint = _load(path, allow_pickle)
    except pickle.UnpicklingError as error:
        raise ValueError(_refusal(path, str(error))) from error
    except (RuntimeError, EOFError, KeyError, OSError, AttributeError, ImportError) as error:
        raise ValueError(
            f"{path} is not a checkpoint of tensors and plain values, or it is damaged: {error}"
        ) from error
    if not isinstance(checkpoint, dict):
        raise ValueError(
            f"{path} holds a {type(checkpoint).__name__}, not a dict with a state_dict"
        )
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
        raise ValueError(
            f"Reading checkpoints safely needs torch >= 2.6, this is {torch.__version__}: update torch"
        )
    arrays = _globals_of_arrays()
    known = {name for _, name in arrays}
    inert = [(_Inert, name) for name in _globals_of_log(path) if name not in known]
    with torch.serialization.safe_globals([*inert, *arrays]):
        return torch.load(path, map_location="cpu", weights_only=True)


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
    return f"{path} is not a checkpoint of tensors and plain values, or it is damaged: {error.splitlines()[-1]}"


def _is_safetensors(path: FilePath) -> bool:
    """A length of 8 bytes that is at most 100 MB, as the format has it, and then a JSON object."""
    with open(path, "rb") as file:
        head = file.read(9)
    return head[8:] == b"{" and int.from_bytes(head[:8], "little") <= 100_000_000


def _read_safetensors(path: FilePath) -> dict[str, Any]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            meta = json.loads((file.metadata() or {}).get(SAFETENSORS_META, "{}"))
    except (SafetensorError, ValueError) as error:
        raise ValueError(f"{path} is a damaged .safetensors file: {error}") from error
    return {"state_dict": tensors, "meta": meta}
