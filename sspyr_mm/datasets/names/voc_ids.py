"""Reading of the lists in VOC's ``ImageSets``."""

import os
import re
from collections import Counter
from collections.abc import Callable, Iterator

from sspyr_mm.datasets.text import read_text

_AFTER_NAME = re.compile(r"\s+(-?[01]|\S+\.png)$")
"""Text that may follow an image in a list: whether it shows the class of the list, or its mask."""
_ENDING = re.compile(r"\.[a-z]\w{1,3}$", re.IGNORECASE)


def read_voc_ids(path: str | os.PathLike[str], exists: Callable[[str], bool]) -> list[str]:
    """Reads the image ids of a list, one per line.

    A line may also be ``ID 1``, as in VOC's lists per class, or the file name or path of the image, with or without
    that of its mask, if ``exists`` is true for the id in it. Ids may contain spaces.

    Returns:
        Ids in the order of the list; a line that contains no existing id is returned unchanged.

    Raises:
        OSError: If the list cannot be read.
        ValueError: If the list is empty, contains duplicates, or is not Unicode text.
    """
    # Not splitlines(), which also breaks lines at characters that a file name may contain.
    lines = [line.strip() for line in read_text(path).split("\n")]
    ids = [next(filter(exists, _readings(line)), line) for line in lines if line]
    if not ids:
        raise ValueError(f"{path} is empty: write one image id per line, such as 2007_000032")
    if twice := [one for one, count in Counter(ids).items() if count > 1]:
        raise ValueError(f"{path} lists {len(twice)} images more than once, such as {twice[0]}: keep each once")
    return ids


def _readings(line: str) -> Iterator[str]:
    for one in (line, _AFTER_NAME.sub("", line)):
        path = one.replace("\\", "/")
        for name in (path, path.rpartition("/")[2]):
            yield from (one, name, _ENDING.sub("", name))
