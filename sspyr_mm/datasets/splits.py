"""Lists of images: parts of a data set that everyone draws alike.

An image's place is the SHA-256 of ``"{seed}:{id}"``, so that a list depends on the seed and the ids alone: not on their
order, on a library's random generator or on a platform. Lists of one seed are nested: 1 % is the head of 10 %.
"""

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path

from sspyr_mm.datasets.text import read_text
from sspyr_mm.files import whole_file


def rank_ids(ids: Iterable[str], seed: int) -> list[str]:
    """Brings ids into an order that is random, but always the same.

    Args:
        ids: Of images, each once.
        seed: Another one gives another order.

    Returns:
        The ids by the SHA-256 of ``"{seed}:{id}"``.

    Raises:
        ValueError: If an id occurs twice.
    """
    ids = list(ids)
    if len(set(ids)) < len(ids):
        raise ValueError("ids of images occur twice: a list could hold an image twice")
    return sorted(ids, key=lambda one: hashlib.sha256(f"{seed}:{one}".encode()).digest())


def ids_checksum(ids: Iterable[str]) -> str:
    """SHA-256 of the ids, sorted as text, one a line: tells whether two lists were drawn from the same images."""
    return hashlib.sha256("".join(f"{one}\n" for one in sorted(ids)).encode()).hexdigest()


def write_split(path: str | os.PathLike, ids: Iterable[str], *, percent: int, seed: int) -> int:
    """Writes a list: a comment that says how it was drawn, then an id per line in the order drawn.

    Args:
        path: The file; it appears when it is complete.
        ids: All images to draw from.
        percent: Part to draw, 1 to 100; rounded down to whole images.
        seed: Of the draw.

    Returns:
        How many ids it lists.

    Raises:
        ValueError: If ``percent`` is out of range, or so small that no image is left, or an id would not be read
            back from a line.
    """
    ranked = rank_ids(ids, seed)
    if not 1 <= percent <= 100:
        raise ValueError(f"percent must be from 1 to 100, got {percent}")
    chosen = ranked[: len(ranked) * percent // 100]
    if not chosen:
        raise ValueError(f"{percent} % of {len(ranked)} images is none: give more images or percent")
    header = (
        f"# {percent} % of {len(ranked)} images, those with the lowest SHA-256 of '{seed}:ID': seed {seed}, "
        f"{len(chosen)} ids; SHA-256 of all ids, sorted as text, one a line: {ids_checksum(ranked)}"
    )
    write_ids(path, chosen, header=header)
    return len(chosen)


def write_ids(path: str | os.PathLike, ids: Iterable[str], *, header: str = "# ids") -> None:
    """Writes a list that :func:`read_split` reads.

    Args:
        path: The file; it appears when it is complete.
        ids: An id per line.
        header: First line, a comment.

    Raises:
        ValueError: If an id would not be read back from a line.
    """
    ids = list(ids)
    for one in ids:
        if not one or one != one.strip() or one.startswith("#") or "\n" in one or "\r" in one:
            raise ValueError(
                f"id {one!r} can't be a line of a list: ids must have no line break, no spaces around them and no "
                "'#' at the beginning; rename the image"
            )
    with whole_file(path) as partial:
        partial.write_text("\n".join([header, *ids]) + "\n", encoding="utf-8")


def read_split(path: str | os.PathLike) -> tuple[str, ...]:
    """Reads a list of ids.

    Args:
        path: An id per line; lines that begin with ``#`` are comments.

    Returns:
        The ids, in the order of the file.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it lists nothing, or an id twice, or is not Unicode text.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise FileNotFoundError(
            f"No list of image ids at {path}: give an existing file, or draw one with "
            "tools/dataset_converters/make_coco_splits.py"
        )
    # Not splitlines(), which also ends a line at characters that a file's name may hold.
    lines = (line.strip() for line in read_text(path).split("\n"))
    ids = tuple(line for line in lines if line and not line.startswith("#"))
    if not ids:
        raise ValueError(f"{path} lists no image: it needs an id per line")
    if len(set(ids)) < len(ids):
        raise ValueError(f"{path} lists {len(ids) - len(set(ids))} ids twice: keep each once")
    return ids
