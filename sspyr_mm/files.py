"""Files that appear only when they are whole, the configs of this package, and names in messages."""

import json
import os
import platform
import secrets
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path


def configs_dir() -> Path:
    """The folder of configs: shipped inside of an installed package, beside it in a clone."""
    package = Path(__file__).parent
    shipped = package / ".mim" / "configs"
    return shipped if shipped.is_dir() else package.parent / "configs"


def printable(path: str | os.PathLike[str]) -> str:
    """A path for messages: bytes that are not UTF-8, line breaks and the like are escaped.

    Args:
        path: Any path; names that are not UTF-8 can be opened, but neither printed nor written to a log.
    """
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in os.fspath(path))


def shortened(names: Iterable[object], limit: int = 5) -> str:
    """The first names of a list and the number of the others, for a message.

    Args:
        names: Any objects.
        limit: Number of names to show.
    """
    texts = [str(name) for name in names]
    rest = f" and {len(texts) - limit} more" if len(texts) > limit else ""
    return ", ".join(texts[:limit]) + rest


_LEFT_OVER_AFTER = 3600.0
"""Seconds; no file is written for so long."""


@contextmanager
def whole_file(target: str | os.PathLike[str]) -> Iterator[Path]:
    """A file to write to, which takes its target's place when the block ends, and is removed when it fails.

    Args:
        target: File that is to appear; its folder is made.

    Yields:
        A path in the same folder, ending in ``.partial``, of this call alone: processes of several machines or
        containers that share a disk may have the same id.
    """
    target = Path(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    owner = f"{platform.node()}.{os.getpid()}.{secrets.token_hex(4)}"
    partial = target.with_name(f"{target.name}.{owner}.partial")
    try:
        yield partial
        with open(partial, "rb") as file:  # on the disk before its name is: power may fail in between
            os.fsync(file.fileno())
        os.replace(partial, target)
    finally:
        partial.unlink(missing_ok=True)


def write_json(target: str | os.PathLike[str], value: object) -> None:
    """Writes a value as JSON that people can read; the file appears when it is whole.

    Args:
        target: File that is to appear; its folder is made.
        value: What :mod:`json` can write.
    """
    with whole_file(target) as partial:
        partial.write_text(json.dumps(value, indent=1) + "\n")


def remove_left_over(folder: Path) -> None:
    """Removes what killed runs were writing to a folder; what a run beside this one is writing stays.

    Args:
        folder: Where :func:`whole_file` writes. By age: whether a process of another machine lives can't be told.
    """
    for partial in folder.glob("*.partial"):
        try:
            if time.time() - partial.stat().st_mtime > _LEFT_OVER_AFTER:
                partial.unlink()
        except FileNotFoundError:  # it took its target's place meanwhile
            continue
