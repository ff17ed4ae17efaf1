"""Files: the configs this package ships, and files that appear only when they are whole."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def configs_dir() -> Path:
    """The folder of configs: shipped inside of an installed package, beside it in a clone."""
    package = Path(__file__).parent
    shipped = package / ".mim" / "configs"
    return shipped if shipped.is_dir() else package.parent / "configs"


@contextmanager
def whole_file(target: str | os.PathLike[str]) -> Iterator[Path]:
    """A file to write to, which takes its target's place when the block ends, and is removed when it fails.

    Args:
        target: File that is to appear; its folder is made.

    Yields:
        A path in the same folder, of this process alone.
    """
    target = Path(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f"{target.name}.{os.getpid()}.partial")
    try:
        yield partial
        with open(
            partial, "rb"
        ) as file:  # on the disk before its name is: power may fail in between
            os.fsync(file.fileno())
        os.replace(partial, target)
    finally:
        partial.unlink(missing_ok=True)
