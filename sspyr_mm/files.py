"""Reading of regular files, atomic writes, locks of folders, the folder of configs, and names in messages."""

import errno
import json
import os
import platform
import re
import secrets
import shutil
import stat
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO, NamedTuple

if sys.platform != "win32":
    import fcntl

_LEFT_OVER_AFTER = 3600.0
"""Age of an abandoned partial file, in seconds; no write takes as long."""


def read_regular(path: str | os.PathLike[str], *, max_bytes: int | None = None, first: int | None = None) -> bytes:
    """Reads a regular file, or its ``first`` bytes; never waits and never reads more than the file's size.

    A file of size 0 is not read: those of ``/proc`` have that size and may be endless.
    Raises OSError for a pipe, socket or device, and for a file of more than ``max_bytes``.
    """
    # O_NONBLOCK: opening a pipe would wait for its other end.
    with open(path, "rb", opener=lambda name, flags: os.open(name, flags | getattr(os, "O_NONBLOCK", 0))) as file:
        found = os.fstat(file.fileno())
        if not stat.S_ISREG(found.st_mode):
            raise OSError("a pipe, socket or device, not a regular file")
        if max_bytes is not None and found.st_size > max_bytes:
            raise OSError(f"{found.st_size} bytes, more than the limit of {max_bytes}")
        data = file.read(found.st_size if first is None else min(first, found.st_size)) if found.st_size else b""
        if data is None:
            raise OSError("a file that holds back its contents")
        return data


def configs_dir() -> Path:
    """Returns the folder of configs: inside an installed package, next to the package in a clone."""
    package = Path(__file__).parent
    shipped = package / ".mim" / "configs"
    return shipped if shipped.is_dir() else package.parent / "configs"


def printable(path: str | os.PathLike[str]) -> str:
    """Escapes bytes that are not UTF-8, line breaks and the like in a path, which cannot be printed or logged."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in os.fspath(path))


def shortened(names: Iterable[object], limit: int = 5) -> str:
    """Returns the first names of a list and the number of the others, for a message."""
    texts = [str(name) for name in names]
    rest = f" and {len(texts) - limit} more" if len(texts) > limit else ""
    return ", ".join(texts[:limit]) + rest


def short_names(paths: Sequence[str], *, num_folders: int = 0) -> list[str]:
    """Returns file names with ``num_folders`` parent folders, or as many more as are needed to distinguish them."""
    parts = [tuple(os.path.abspath(path).split(os.sep)) for path in paths]
    depth = 1 + num_folders
    while len({part[-depth:] for part in parts}) < len(set(parts)):
        depth += 1
    return ["/".join(part[-depth:]) for part in parts]


def partial_path(target: Path) -> Path:
    """Returns a path next to a file, for its contents while they are written; it names this process."""
    owner = f"{platform.node()}.{os.getpid()}.{secrets.token_hex(4)}"
    return target.with_name(f"{target.name}.{owner}.partial")


def remove_partial(folder: Path, *patterns: str) -> None:
    """Removes partial files of the patterns from a folder, but recent ones of other processes on this machine."""
    for partial in (found for pattern in patterns for found in folder.glob(pattern)):
        with suppress(FileNotFoundError):  # it has replaced its target meanwhile
            if not (_is_recent(partial) and _has_living_owner(partial)):
                partial.unlink()


def _is_recent(partial: Path) -> bool:
    return time.time() - partial.stat().st_mtime <= _LEFT_OVER_AFTER


def _has_living_owner(partial: Path) -> bool:
    owner = re.search(rf"\.{re.escape(platform.node())}\.(\d+)\.[0-9a-f]{{8}}\.partial$", partial.name)
    if owner is None or int(owner[1]) == os.getpid():
        return False
    if sys.platform == "win32":  # there, signal 0 is an interrupt
        return True
    try:
        os.kill(int(owner[1]), 0)
    except OSError as error:
        return error.errno != errno.ESRCH
    return True


@contextmanager
def whole_file(target: str | os.PathLike[str]) -> Iterator[Path]:
    """Yields a path to write to; the file replaces the target when the block ends, and is removed if the block fails.

    The path is in the target's folder, which is created, ends in ``.partial`` and is unique to the call: processes of
    several machines or containers that share a disk may have the same id.
    """
    target = Path(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = partial_path(target)
    try:
        yield partial
        with open(partial, "rb") as file:  # contents reach the disk before the name: power may fail in between
            os.fsync(file.fileno())
        os.replace(partial, target)
    finally:
        partial.unlink(missing_ok=True)


def write_json(target: str | os.PathLike[str], value: object) -> None:
    """Writes a value as indented JSON, atomically; creates the folder."""
    write_text(target, json.dumps(value, indent=1) + "\n")


def write_text(target: str | os.PathLike[str], text: str) -> None:
    """Writes a text without changing its line ends, atomically; creates the folder."""
    with whole_file(target) as partial, open(partial, "w", newline="") as file:
        file.write(text)


def remove_left_over(folder: Path) -> None:
    """Removes the partial files of killed runs from a folder, and keeps those of concurrent runs.

    The age decides, since processes of other machines are not visible.
    """
    for partial in folder.glob("*.partial"):
        with suppress(FileNotFoundError):
            if not _is_recent(partial):
                partial.unlink()


class FolderInUseError(RuntimeError):
    """Another process holds the lock of a folder; the message says which."""


class FolderLock(NamedTuple):
    """A lock that this process holds."""

    fd: int  # file descriptor, for child processes to inherit
    left_by: str  # holder that ended without releasing the lock, as after a kill; empty if there was none


@contextmanager
def folder_lock(folder: str | os.PathLike[str], name: str = "lock", *, patience: float = 10.0) -> Iterator[FolderLock]:
    """Keeps other processes out of a folder.

    The system releases the lock once every process that holds it has ended, in whatever way. Where the system or the
    disk has no locks, nobody is kept out.

    Args:
        folder: Existing folder.
        name: File name of the lock; the file names the holder.
        patience: Time in seconds to wait for a holder that is ending.

    Raises:
        FolderInUseError: If another process holds the lock.
    """
    with open(os.path.join(folder, name), "a+") as file:
        give_up = time.monotonic() + patience
        while not _lock(file):
            if time.monotonic() > give_up:
                raise FolderInUseError(f"{_holder(file)}, for {_age(file)}")
            time.sleep(0.2)
        lock = FolderLock(file.fileno(), _holder(file))
        file.truncate(0)
        file.write(f"process {os.getpid()} on {platform.node()}")
        file.flush()
        try:
            yield lock
        finally:
            with suppress(OSError):
                file.truncate(0)
                _unlock(file)


@contextmanager
def output_folder(folder: str | os.PathLike[str]) -> Iterator[None]:
    """Creates the output folder of a command, and keeps other commands out of it.

    Raises:
        ValueError: If it cannot be written to, or another command writes to it.
    """
    with ExitStack() as held:
        try:
            os.makedirs(folder, exist_ok=True)
            held.enter_context(folder_lock(folder))
        except OSError as error:
            problem = f"The folder {folder} cannot be written to ({error.strerror}): give another one"
            raise ValueError(problem) from error
        except FolderInUseError as error:
            raise ValueError(
                f"Another command ({error}) writes to {folder}: wait for it, stop it, or give another folder"
            ) from error
        yield


@contextmanager
def new_files(folder: str | os.PathLike[str]) -> Iterator[Path]:
    """Yields an empty folder; what is written to it replaces the entries of ``folder`` when the block ends.

    If the block fails, ``folder`` stays as it was. Raises ValueError as :func:`output_folder`.
    """
    with output_folder(folder):
        for left in Path(folder).glob("new.*.partial"):  # of a killed command
            shutil.rmtree(left)
        with tempfile.TemporaryDirectory(dir=folder, prefix="new.", suffix=".partial") as temporary:
            new, earlier = Path(temporary, "new"), Path(temporary, "earlier")
            new.mkdir()
            earlier.mkdir()
            yield new
            for entry in sorted(new.iterdir()):
                target = Path(folder, entry.name)
                if target.is_dir():
                    os.replace(target, earlier / entry.name)
                os.replace(entry, target)


def _lock(file: IO[str]) -> bool:
    if sys.platform == "win32":
        return True
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno not in (errno.EACCES, errno.EAGAIN)  # another error: this disk has no locks
    return True


def _unlock(file: IO[str]) -> None:
    """Releases a lock that forked processes also hold."""
    if sys.platform != "win32":
        fcntl.flock(file, fcntl.LOCK_UN)


def _holder(file: IO[str]) -> str:
    file.seek(0)
    return file.read(200)


def _age(file: IO[str]) -> str:
    minutes = (time.time() - os.fstat(file.fileno()).st_mtime) / 60
    return f"{minutes:.0f} min" if minutes < 120 else f"{minutes / 60:.0f} h"
