"""Parameters of a data set, and what may be in its folder already."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from sspyr_mm.datasets.toy_scenes.scene import MIN_SIZE

#: In a finished folder: what it was made from.
RECORD_NAME = "toy_scenes.json"

_MAX_SIDE = 4096


def parse_size(size: int | str | tuple[int, int]) -> tuple[int, int]:
    """Reads an image size.

    Args:
        size (int | str | tuple[int, int]): a side in pixels, "HxW" or (height, width).

    Returns:
        tuple[int, int]: height and width, pixels.

    Raises:
        ValueError: if it is not readable as a size, or out of range.
    """
    if isinstance(size, str):
        match = re.fullmatch(r"(\d+)(?:[xX](\d+))?", size.strip())
        pair = (int(match[1]), int(match[2] or match[1])) if match else None
    elif isinstance(size, int) and not isinstance(size, bool):
        pair = (size, size)
    elif (
        isinstance(size, tuple | list)
        and len(size) == 2
        and all(isinstance(side, int) for side in size)
    ):
        pair = (size[0], size[1])
    else:
        pair = None
    if pair is None:
        raise ValueError(
            f"size must be a side in pixels or HxW, such as 128 or 96x128, got {size!r}"
        )
    if min(pair) < MIN_SIZE or max(pair) > _MAX_SIDE:
        raise ValueError(
            f"size must be {MIN_SIZE} to {_MAX_SIDE} pixels in height and width, got {pair[0]}x{pair[1]}: "
            f"{'give a larger' if min(pair) < MIN_SIZE else 'give a smaller'} one, such as 128"
        )
    return pair


def check_whole(name: str, value: int, low: int, high: int, remedy: str) -> None:
    """Checks a whole number.

    Args:
        name (str): the argument's name.
        value (int): what came.
        low (int): smallest value allowed.
        high (int): largest value allowed.
        remedy (str): how to mend it.

    Raises:
        ValueError: if it is no whole number or out of range.
    """
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise ValueError(
            f"{name} must be a whole number from {low} to {high}, got {value!r}: {remedy}"
        )


def is_finished(root: Path, parameters: dict[str, Any]) -> bool:
    """Tells whether a folder holds the finished data set already.

    Args:
        root (Path): the folder.
        parameters (dict): what it should be made from.

    Returns:
        bool: True if it does, False if the folder is absent or empty.

    Raises:
        FileExistsError: if there is anything else in the way.
    """
    if not root.exists() or (root.is_dir() and not any(root.iterdir())):
        return False
    try:
        found = json.loads((root / RECORD_NAME).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise FileExistsError(
            f"{root} exists and holds no toy scenes (no readable {RECORD_NAME}): give another folder, "
            "or move this one away"
        ) from None
    if found == parameters:
        return True
    names = sorted(set(found) | set(parameters)) if isinstance(found, dict) else []
    differ = [f"{name} {found.get(name)} instead of {parameters.get(name)}" for name in names
              if found.get(name) != parameters.get(name)]  # fmt: skip
    raise FileExistsError(
        f"{root} holds toy scenes made from other parameters ({', '.join(differ)}): give another folder, "
        "or delete this one first"
    )
