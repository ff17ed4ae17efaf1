"""Class names that differ only in case or spaces, and class colours."""

import os
import warnings
from collections.abc import Iterable

from sspyr_mm.files import shortened


def alike_names(names: Iterable[str]) -> list[list[str]]:
    """Returns the groups of two or more names that differ only in case or spaces."""
    groups: dict[str, list[str]] = {}
    for name in dict.fromkeys(names):
        groups.setdefault("".join(name.split()).casefold(), []).append(name)
    return [group for group in groups.values() if len(group) > 1]


def warn_of_alike_classes(classes: Iterable[str], source: str | os.PathLike[str]) -> None:
    """Warns about class names of ``source`` that probably mean one class: each counts as a separate class."""
    if groups := alike_names(classes):
        shown = shortened(" / ".join(map(repr, group)) for group in groups)
        warnings.warn(
            f"{source}: class names differ only in case or spaces: {shown}; each counts as a separate class. If "
            "they mean one class, use one spelling",
            stacklevel=3,
        )


def voc_colours(count: int) -> list[list[int]]:
    """Returns VOC's RGB mask colours, 0 to 255, of ``count`` classes including the background, at most 256.

    The bits of a class id are spread over the high bits of the three channels.
    """
    return [
        [sum((number >> (3 * bit + c) & 1) << (7 - bit) for bit in range(8)) for c in range(3)]
        for number in range(count)
    ]
