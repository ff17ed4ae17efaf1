"""Checkpoints made from others."""

import os
from collections.abc import Callable

from sspyr_mm.checkpoints.read import FilePath
from sspyr_mm.files import whole_file


def write_whole(target: FilePath, write: Callable[[str], None], *, source: FilePath) -> None:
    """Writes beside the target, and moves it there at the end.

    Args:
        target: File to write; its folder is made.
        write: Is called with the file to write.
        source: File it is made from, which must not be overwritten.

    Raises:
        ValueError: If target and source are the same file.
    """
    if os.path.exists(target) and os.path.samefile(target, source):
        raise ValueError(f"{target} is the checkpoint itself: give another file to write")
    with whole_file(target) as partial:
        write(str(partial))
