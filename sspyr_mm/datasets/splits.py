"""Reproducible subsets of a data set, as lists of image ids.

Images are sorted by the SHA-256 of ``"{seed}:{id}"``, so that a list depends only on the seed and the ids: not on their
order, a library's random generator or the platform. Lists of one seed are nested: the 10 % list starts with the 1 %
list.
"""

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path

from sspyr_mm.datasets.text import read_lines
from sspyr_mm.files import whole_file


def rank_ids(ids: Iterable[str], seed: int) -> list[str]:
    """Returns ids sorted by the SHA-256 of ``"{seed}:{id}"``; raises ValueError if one occurs twice."""
    ids = list(ids)
    if len(set(ids)) < len(ids):
        raise ValueError("duplicate image ids: a list could contain an image twice; give each id once")
    return sorted(ids, key=lambda one: hashlib.sha256(f"{seed}:{one}".encode(errors="surrogateescape")).digest())


def write_split(path: str | os.PathLike, ids: Iterable[str], *, percent: int, seed: int) -> int:
    """Draws ``percent`` of the ids, rounded down, writes them after a comment on the draw, and returns their number.

    Raises ValueError if ``percent`` is out of range or selects no image, or an id cannot be written as a line.
    """
    ranked = rank_ids(ids, seed)
    if not 1 <= percent <= 100:
        raise ValueError(f"percent must be a percentage between 1 and 100, got {percent}")
    chosen = ranked[: len(ranked) * percent // 100]
    if not chosen:
        raise ValueError(
            f"{percent} % of {len(ranked)} images selects no image: give more images or a higher percentage"
        )
    # Equal for lists that are drawn from the same images.
    checksum = hashlib.sha256("".join(f"{one}\n" for one in sorted(ranked)).encode()).hexdigest()
    header = (
        f"# {percent} % of {len(ranked)} images, those with the lowest SHA-256 of '{seed}:ID': seed {seed}, "
        f"{len(chosen)} ids; SHA-256 of all ids, sorted as text, one a line: {checksum}"
    )
    write_ids(path, chosen, header=header)
    return len(chosen)


def write_ids(path: str | os.PathLike, ids: Iterable[str], *, header: str = "# ids") -> None:
    """Writes a list that :func:`read_split` reads; raises ValueError if an id cannot be written as a line."""
    ids = list(ids)
    for one in ids:
        if not one or one != one.strip() or one.startswith("#") or "\n" in one or "\r" in one:
            raise ValueError(
                f"id {one!r} cannot be a line of a list: an id must not be empty, contain a line break, start "
                "or end with a space, or start with '#'; rename the image"
            )
    with whole_file(path) as partial:
        partial.write_text("\n".join([header, *ids]) + "\n", encoding="utf-8")


def read_split(path: str | os.PathLike) -> tuple[str, ...]:
    """Reads a list with one id per line; lines that start with ``#`` are comments.

    Raises FileNotFoundError, or ValueError if the list is empty, contains duplicates, or is not Unicode text.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise FileNotFoundError(
            f"No list of image ids at {path}: give an existing file, or draw one with "
            "tools/dataset_converters/make_coco_splits.py"
        )
    ids = tuple(line for line in read_lines(path) if not line.startswith("#"))
    if not ids:
        raise ValueError(f"{path} lists no images: write one id per line")
    if len(set(ids)) < len(ids):
        raise ValueError(f"{path} lists {len(ids) - len(set(ids))} duplicate ids: keep each id once")
    return ids
