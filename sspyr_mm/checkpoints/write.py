"""Atomic writes of checkpoints made from other checkpoints."""

import os
from collections.abc import Callable

from sspyr_mm.checkpoints.read import FilePath
from sspyr_mm.files import whole_file


def write_whole(target: FilePath, write: Callable[[str], None], *, source: FilePath) -> None:
    """Writes a temporary file next to the target, and renames it at the end.

    Args:
        target: Output file; its folder is created.
        write: Function that writes to the given path.
        source: Input file, which must not be overwritten.

    Raises:
        ValueError: If target and source are the same file.
    """
    if os.path.exists(target) and os.path.samefile(target, source):
        raise ValueError(f"{target} is the checkpoint itself: choose another output file")
    with whole_file(target) as partial:
        write(str(partial))
