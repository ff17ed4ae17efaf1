"""Image labels of a table: a file and its labels per row."""

import csv
import os
import re
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from sspyr_mm.datasets.labelled.images import (
    IGNORED,
    LabelledImages,
    check_files,
    image_targets,
    shortened,
)

FILE_COLUMN, LABEL_COLUMN = "file", "labels"
_SEPARATOR = re.compile("[;|]")  # class names may well hold blanks and commas
_VALUES = {"1": 1, "0": 0, "-1": IGNORED}


def read_table(source: Path, image_root: str | None = None) -> LabelledImages:
    """Reads a csv (commas) or tsv (tabs) with a header.

    Args:
        source: With a column ``file``, and either one column ``labels`` with names separated by ``;`` or ``|`` (none:
            the image shows no class), or one column per class with 1, 0 or -1 (ignored).
        image_root: What relative paths count from; default: the table's folder.

    Returns:
        Classes are the sorted labels, or the columns in their order. A warning says if they look like slips: names that
        differ in capitals or blanks only, labels with a comma.

    Raises:
        FileNotFoundError: If an image does not exist.
        ValueError: If the header or a row is malformed, with its line; if a file has two rows; if there are no rows or
            no classes; if it is not UTF-8.
    """
    with source.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.reader(file, delimiter="\t" if source.suffix == ".tsv" else ",", strict=True)
        try:
            header = [name.strip() for name in next(reader, [])]
            _check_header(source, header)
            rows = [
                (reader.line_num, _check_row(source, reader.line_num, header, row))
                for row in reader
                if row
            ]
        except csv.Error as error:
            raise ValueError(f"{source}:{reader.line_num}: {error}") from error
        except UnicodeDecodeError as error:
            raise ValueError(
                f"{source} is not UTF-8 text (byte 0x{error.object[error.start]:02x}): save it as UTF-8, e.g. "
                f"iconv -f ISO-8859-1 -t UTF-8 {source} > NEW{source.suffix}"
            ) from error
    if not rows:
        raise ValueError(f"{source} has a header and no rows: a set needs an image")
    _check_files_once(source, rows)
    listed = LABEL_COLUMN in header
    classes, targets = _labels(source, rows) if listed else _columns(source, header, rows)
    _warn_of_names(source, classes, listed=listed)
    names = [row[FILE_COLUMN] for _, row in rows]
    root = Path(image_root).expanduser() if image_root else source.parent
    paths = [str(root / name) for name in names]
    check_files(paths, source)
    return LabelledImages(paths, targets, classes, multi_label=True, image_ids=tuple(names))


def _check_header(source: Path, header: list[str]) -> None:
    wanted = (
        f"{source}:1: the header must have a column '{FILE_COLUMN}' and either '{LABEL_COLUMN}' or one column per "
        "class"
    )
    if FILE_COLUMN not in header or len(header) < 2 or "" in header:
        raise ValueError(f"{wanted}, got {', '.join(header) or 'nothing'}")
    if LABEL_COLUMN in header and len(header) > 2:
        others = [name for name in header if name not in (FILE_COLUMN, LABEL_COLUMN)]
        raise ValueError(f"{wanted}, not both: also got {shortened(others)}")
    if len(set(header)) < len(header):
        raise ValueError(f"{wanted}, each once, got {', '.join(header)}")


def _check_row(source: Path, line: int, header: list[str], row: list[str]) -> dict[str, str]:
    if len(row) != len(header):
        raise ValueError(
            f"{source}:{line}: {len(row)} cells, the header has {len(header)}; quote cells that hold separators"
        )
    cells = dict(zip(header, (cell.strip() for cell in row), strict=True))
    if not cells[FILE_COLUMN]:
        raise ValueError(f"{source}:{line}: no file")
    return cells


def _check_files_once(source: Path, rows: list[tuple[int, dict[str, str]]]) -> None:
    """Refuses two rows of one image: each would say that what the other one shows is not there."""
    lines: dict[str, int] = {}
    for line, row in rows:
        first = lines.setdefault(os.path.normpath(row[FILE_COLUMN]), line)
        if first != line:
            raise ValueError(
                f"{source}:{line}: {row[FILE_COLUMN]} has a row already, in line {first}: put all labels of an image "
                "in one row (dog;cat, or a 1 in the column of each), and remove the other"
            )


def _warn_of_names(source: Path, classes: Sequence[str], *, listed: bool) -> None:
    """Says which classes are probably not meant: they are learned and measured as any other."""
    alike: dict[str, list[str]] = {}
    for name in classes:
        alike.setdefault("".join(name.split()).casefold(), []).append(name)
    found = [" / ".join(map(repr, names)) for names in alike.values() if len(names) > 1]
    if found:
        warnings.warn(
            f"{source}: classes differ in capitals or blanks only: {shortened(found)}; they count as several. If one "
            "is meant, write it in one way",
            stacklevel=4,
        )
    joined = [repr(name) for name in classes if "," in name] if listed else []
    if joined:
        warnings.warn(
            f"{source}: labels hold a comma: {shortened(joined)}; each counts as one class. If several are meant, "
            "separate them by ; (dog;cat)",
            stacklevel=4,
        )


def _labels(
    source: Path, rows: list[tuple[int, dict[str, str]]]
) -> tuple[tuple[str, ...], np.ndarray]:
    labels = []
    for line, row in rows:
        names = (
            [name.strip() for name in _SEPARATOR.split(row[LABEL_COLUMN])]
            if row[LABEL_COLUMN]
            else []
        )
        if "" in names:
            raise ValueError(f"{source}:{line}: an empty label in {row[LABEL_COLUMN]!r}")
        labels.append(names)
    classes = tuple(sorted({name for names in labels for name in names}))
    if not classes:
        raise ValueError(f"{source} has no labels: every row's '{LABEL_COLUMN}' is empty")
    targets = image_targets(len(rows), len(classes))
    columns = {name: column for column, name in enumerate(classes)}
    for target, names in zip(targets, labels, strict=True):
        target[[columns[name] for name in names]] = 1
    return classes, targets


def _columns(
    source: Path, header: list[str], rows: list[tuple[int, dict[str, str]]]
) -> tuple[tuple[str, ...], np.ndarray]:
    classes = tuple(name for name in header if name != FILE_COLUMN)
    targets = image_targets(len(rows), len(classes))
    for target, (line, row) in zip(targets, rows, strict=True):
        for column, name in enumerate(classes):
            if row[name] not in _VALUES:
                raise ValueError(f"{source}:{line}: '{name}' must be 1, 0 or -1, got {row[name]!r}")
            target[column] = _VALUES[row[name]]
    return classes, targets
