"""Class names that differ in case or blanks only, and colours of classes."""

import os
import warnings
from collections.abc import Iterable

from sspyr_mm.files import shortened


def alike_names(names: Iterable[str]) -> list[list[str]]:
    """Groups different names that are equal but for case and blanks.

    Args:
        names: Names of classes.

    Returns:
        The groups of two names or more.
    """
    groups: dict[str, list[str]] = {}
    for name in dict.fromkeys(names):
        groups.setdefault("".join(name.split()).casefold(), []).append(name)
    return [group for group in groups.values() if len(group) > 1]


def warn_of_alike_classes(classes: Iterable[str], source: str | os.PathLike[str]) -> None:
    """Warns of classes that probably are one: each is trained and measured as a class of its own.

    Args:
        classes: Names of classes.
        source: Annotations that hold them.
    """
    if groups := alike_names(classes):
        shown = shortened(" / ".join(map(repr, group)) for group in groups)
        warnings.warn(
            f"{source}: classes differ in case or blanks only: {shown}; each counts as a class of its own. If "
            "they mean one class, spell them alike",
            stacklevel=3,
        )


def voc_colours(count: int) -> list[list[int]]:
    """Returns the RGB colours of VOC's masks, 0 to 255: the bits of a class id, spread over the high bits of each.

    Args:
        count: Number of classes with the background, at most 256.
    """
    return [
        [sum((number >> (3 * bit + c) & 1) << (7 - bit) for bit in range(8)) for c in range(3)]
        for number in range(count)
    ]
