"""Reading of regular files, atomic writes, the folder of configs, and names in messages."""

import json
import os
import platform
import secrets
import stat
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

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


@contextmanager
def whole_file(target: str | os.PathLike[str]) -> Iterator[Path]:
    """Yields a path to write to; the file replaces the target when the block ends, and is removed if the block fails.

    The path is in the target's folder, which is created, ends in ``.partial`` and is unique to the call: processes of
    several machines or containers that share a disk may have the same id.
    """
    target = Path(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    owner = f"{platform.node()}.{os.getpid()}.{secrets.token_hex(4)}"
    partial = target.with_name(f"{target.name}.{owner}.partial")
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
        try:
            if time.time() - partial.stat().st_mtime > _LEFT_OVER_AFTER:
                partial.unlink()
        except FileNotFoundError:  # it has replaced its target meanwhile
            continue
