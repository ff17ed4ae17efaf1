"""Checkpoints, read without executing anything in them."""

import hashlib
import os
import pickle
import struct
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO

import torch

from sspyr_mm.tensor_files.allowed import only_allowed_globals, restore_log
from sspyr_mm.tensor_files.array_pickle import Restorer, read_arrays
from sspyr_mm.tensor_files.foreign_files import file_kind, zip_kind
from sspyr_mm.tensor_files.safetensors_files import check_safetensors, is_safetensors, read_safetensors
from sspyr_mm.tensor_files.survey import survey_archive, survey_pickle, survey_stream
from sspyr_mm.tensor_files.whole import check_list, check_records, open_archive

FilePath = str | os.PathLike[str]

_LEGACY_TORCH = b"\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19"
"""Number at the start of files of torch < 1.6, as a separate pickle."""

_HEAD = 512
"""Bytes at the start of a file by which its kind is detected."""

_DAMAGE = (
    *(RuntimeError, AssertionError, EOFError, LookupError, OSError, AttributeError, ImportError),
    *(TypeError, ValueError, OverflowError, MemoryError, RecursionError, zipfile.BadZipFile, struct.error),
)
"""Errors that readers raise for damaged files."""


def read_checkpoint(path: FilePath, *, allow_pickle: bool = False, keep_log: bool = False) -> dict[str, Any]:
    """Reads a file of tensors, numpy arrays and plain values without executing anything in it.

    Args:
        path: File of ``torch.save``, ``.safetensors`` file or pickle of numpy arrays, detected by content. The values
            of argparse namespaces and paths are dropped.
        allow_pickle: Whether the file may contain objects of any class. Risk: unpickling can run any code with the
            rights of the user. Only for files from a trusted source.
        keep_log: Whether to read mmengine's message hub, from which training continues its log.

    Returns:
        The checkpoint on the CPU; for a ``.safetensors`` file ``dict(state_dict=..., meta=...)``. ``meta`` has no
        ``config``, a former key whose text mmengine executes when it resumes.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is not a checkpoint, is empty or damaged, or needs arbitrary pickle.
    """
    checkpoint = load_path(path, allow_pickle=allow_pickle, keep_log=keep_log)
    if isinstance(checkpoint, torch.nn.Module):
        checkpoint = {"model": checkpoint}
    if not isinstance(checkpoint, dict):
        raise ValueError(f"{path} holds a {type(checkpoint).__name__}, not a dict with a state_dict")
    return checkpoint


def peek_checkpoint(path: FilePath, *, allow_pickle: bool = False) -> dict[str, Any]:
    """Reads a checkpoint like :func:`read_checkpoint`, but leaves its tensors on the disk, and compares no checksum."""
    if not allow_pickle:
        try:
            with _opened(path) as file:
                if archive := _identified(file, str(path), file.read(_HEAD)):
                    size = os.path.getsize(path)
                    check_list(archive, size)
                    with only_allowed_globals(survey_archive(archive)):
                        content = _torch_load(path, map_location="cpu", mmap=True, weights_only=True)
                    if isinstance(content, dict):
                        return _cleaned(content, True, size)
        except (pickle.UnpicklingError, *_DAMAGE):
            pass  # read_checkpoint reads it, or reports it
    return read_checkpoint(path, allow_pickle=allow_pickle, keep_log=True)


def check_whole(path: FilePath) -> None:
    """Raises ValueError if a checkpoint is damaged, with the name of the file and of the record; builds no tensor.

    The checksums are those of the zip archive of ``torch.save``, or the one in ``.safetensors`` files that this package
    has written; other files have none.
    """
    with _opened(path) as file:
        head = file.read(_HEAD)
        if is_safetensors(head):
            check_safetensors(path)
        elif archive := _identified(file, str(path), head):
            try:
                check_records(archive, os.path.getsize(path))
            except zipfile.BadZipFile as error:
                raise ValueError(_damaged(str(path), str(error))) from error


def load_path(path: FilePath, **options: Any) -> Any:
    """Reads a file like :func:`load_tensors`, or a ``.safetensors`` file."""
    with _opened(path) as file:
        head = file.read(_HEAD)
        file.seek(0)
        return read_safetensors(path) if is_safetensors(head) else load_tensors(file, str(path), **options)


def load_tensors(
    file: BinaryIO, name: str, *, allow_pickle: bool = False, keep_log: bool = True, map_location: Any = "cpu"
) -> Any:
    """Reads an open file like :func:`read_checkpoint`; its content may be any plain value.

    Args:
        file: Seekable binary file.
        name: Its name, for messages.
        allow_pickle: See :func:`read_checkpoint`.
        keep_log: See :func:`read_checkpoint`.
        map_location: Device of the tensors, see ``torch.load``.
    """
    head = file.read(_HEAD)
    archive = _identified(file, name, head)
    try:
        if archive or _LEGACY_TORCH in head[:64]:
            content = _load(file, archive, allow_pickle, map_location)
        elif allow_pickle:
            content = pickle.load(file, encoding="latin1")
        else:
            survey_pickle(file)
            content = read_arrays(file)
        return _cleaned(content, keep_log, file.seek(0, os.SEEK_END))
    except pickle.UnpicklingError as error:
        raise ValueError(_refusal(name, str(error))) from error
    except _DAMAGE as error:
        raise ValueError(_damaged(name, str(error))) from error


def file_sha256(path: FilePath) -> str:
    """Returns the SHA-256 of a file in hexadecimal."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


@contextmanager
def _opened(path: FilePath) -> Iterator[BinaryIO]:
    if not os.path.isfile(path):
        what = f"{path} is a folder" if os.path.isdir(path) else f"No checkpoint at {path}"
        raise FileNotFoundError(f"{what}: pass a .pth file, e.g. WORK_DIR/epoch_50.pth")
    with open(path, "rb") as file:
        yield file


def _identified(file: BinaryIO, name: str, head: bytes) -> zipfile.ZipFile | None:
    """Returns the archive of ``torch.save`` in a file that begins with ``head``, or None for one without archive.

    Raises ValueError if the file is empty or of another program.
    """
    if not head:
        raise ValueError(f"{name} is empty: writing or copying it was interrupted; copy it again")
    archive = None
    if head.startswith(b"PK\x03\x04"):
        try:
            archive = open_archive(file)
        except zipfile.BadZipFile as error:
            raise ValueError(f"{name} is not a checkpoint, or it is damaged: {error}; download it again") from error
    if kind := zip_kind(archive.namelist()) if archive else file_kind(head):
        raise ValueError(f"{name} is {kind}")
    if not archive and not head.startswith(b"\x80"):
        raise ValueError(_damaged(name, "it does not begin like one"))
    file.seek(0)
    return archive


def _load(file: BinaryIO, archive: zipfile.ZipFile | None, allow_pickle: bool, map_location: Any) -> Any:
    if archive:
        check_records(archive, file.seek(0, os.SEEK_END))
        file.seek(0)
    if allow_pickle:
        return _torch_load(file, map_location=map_location, weights_only=False)
    if not hasattr(torch.serialization, "get_unsafe_globals_in_checkpoint"):
        raise ValueError(
            f"Reading checkpoints safely needs torch >= 2.6, but torch {torch.__version__} is installed: update torch, "
            "or, if you trust the source of the file, read it with --allow-pickle (allow_pickle=True)"
        )
    names = survey_archive(archive) if archive else survey_stream(file)
    file.seek(0)
    with only_allowed_globals(names):
        return _torch_load(file, map_location=map_location, weights_only=True)


_torch_load = torch.load
"""torch's own function, also while ``torch.load`` is replaced by ours."""


def _cleaned(content: Any, keep_log: bool, size: int) -> Any:
    """Returns the content of a file of ``size`` bytes with numpy arrays, without parts that nothing may use."""
    restorer = Restorer(size)
    hub = content.pop("message_hub", None) if isinstance(content, dict) else None
    content = restorer(content)
    if isinstance(content, dict) and isinstance(meta := content.get("meta"), dict):
        meta.pop("config", None)
    if keep_log and hub is not None:
        content["message_hub"] = restore_log(hub, restorer)
    return content


def _refusal(name: str, error: str) -> str:
    # For files older than the zip format, only torch's message names the class.
    if "GLOBAL" in error or "is blocked" in error or "Unsupported class" in error:
        wanted = error.split("GLOBAL ")[-1].split()[0] if "GLOBAL " in error else "other classes"
        return (
            f"{name} needs arbitrary pickle ({wanted}), which can run any code on this machine: it was refused, and "
            "nothing was executed. If you trust its source, read it with --allow-pickle (allow_pickle=True)"
        )
    if "Unsupported operand" in error:
        return (
            f"{name} was saved with another pickle protocol than 2, the only one that torch reads without arbitrary "
            "pickle: save it again without pickle_protocol or, if you trust its source, read it with --allow-pickle "
            "(allow_pickle=True)"
        )
    return _damaged(name, error)


def _damaged(name: str, error: str) -> str:
    # torch's own messages recommend weights_only=False.
    detail = "" if not error or "weights_only" in error else f": {error.splitlines()[0]}"
    return (
        f"{name} is not a checkpoint of tensors and plain values, or it is damaged{detail}. Copy or download it again, "
        "and compare its size with the original's"
    )
