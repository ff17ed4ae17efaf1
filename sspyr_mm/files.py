"""Atomic file writes, the folder of configs, and names in messages."""

import json
import os
import platform
import secrets
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

_LEFT_OVER_AFTER = 3600.0
"""Age of an abandoned partial file, in seconds; no write takes as long."""


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
