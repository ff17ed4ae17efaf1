"""Image labels of a table with one image file and its labels per row."""

import ast
import csv
import io
import os
import re
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from sspyr_mm.datasets.finding import require_files
from sspyr_mm.datasets.labelled.labelled_images import ELSEWHERE, IGNORED, LabelledImages
from sspyr_mm.datasets.names import resolve_names, warn_of_alike_classes
from sspyr_mm.datasets.text import read_text
from sspyr_mm.files import shortened

_FILE, _LABELS = "file", "labels"
_SEPARATOR = re.compile("[;|]")  # class names may contain spaces and commas
_VALUES = {"1": 1, "0": 0, "-1": IGNORED, "1.0": 1, "0.0": 0, "-1.0": IGNORED}
_Row = tuple[int, dict[str, str]]
"""Line number, and cells by column."""


def read_table(source: Path, image_root: str | None) -> LabelledImages:
    """Reads a table with a header, separated by commas (csv), tabs (tsv), semicolons or the character of ``sep=``.

    The table has a column ``file``, with paths relative to ``image_root``, by default the folder of the table; and
    either a column ``labels`` with names separated by ``;`` or ``|`` or as a Python list (empty: the image shows no
    class), or one column per class with 1, 0 or -1 (ignored). Classes are the sorted labels, or the columns in their
    order. Warnings report class names that differ only in case or spaces, and labels with a comma. Raises
    FileNotFoundError if an image does not exist, and ValueError for a malformed or empty table, with the line.
    """
    header, rows = _read_rows(source)
    if not rows:
        raise ValueError(f"{source} has a header and no rows: add one row per image")
    _check_files_once(source, rows)
    listed = _LABELS in header
    classes, targets = _labels(source, rows) if listed else _columns(source, header, rows)
    warn_of_alike_classes(classes, source)
    if listed and (joined := [repr(name) for name in classes if "," in name]):
        warnings.warn(
            f"{source}: labels contain a comma: {shortened(joined)}; each counts as one class. If they are several "
            "labels, separate them by ; (dog;cat)",
            stacklevel=2,
        )
    names = [row[_FILE] for _, row in rows]
    root = Path(image_root).expanduser() if image_root else source.parent
    paths = resolve_names(names, [root]) or [str(root / name) for name in names]
    require_files(paths, source, f"add them, or {ELSEWHERE}")
    return LabelledImages(paths, targets, classes, multi_label=True, image_ids=tuple(names))


def _read_rows(source: Path) -> tuple[list[str], list[_Row]]:
    text = read_text(source)
    first, _, rest = text.partition("\n")
    stated = re.fullmatch(r'"?sep=(.)"?[\s,;]*', first, re.IGNORECASE)  # by Excel
    skipped = 1 if stated else 0
    delimiter = stated[1] if stated else _delimiter(first, source)
    reader = csv.reader(io.StringIO(rest if stated else text), delimiter=delimiter, strict=True)
    try:
        header = [name.strip() for name in next(reader, [])]
        _check_header(source, header)
        rows = [_check_row(source, reader.line_num + skipped, header, row) for row in reader if row]
    except csv.Error as error:
        raise ValueError(f"{source}:{reader.line_num + skipped}: {error}") from error
    return header, rows


def _delimiter(header: str, source: Path) -> str:
    """Returns the separator under which the header has a column ``file``, else the one of the file extension."""
    usual = "\t" if source.suffix.lower() == ".tsv" else ","
    for one in (usual, ";", "\t", ","):
        cells = [cell.strip(' "') for cell in header.split(one)]
        if _FILE in cells and len(cells) > 1:
            return one
    return usual


def _check_header(source: Path, header: list[str]) -> None:
    wanted = f"{source}:1: the header must have a column '{_FILE}' and either '{_LABELS}' or one column per class"
    if _FILE not in header or len(header) < 2 or "" in header:
        raise ValueError(f"{wanted}, got {', '.join(header) or 'nothing'}")
    if _LABELS in header and len(header) > 2:
        others = [name for name in header if name not in (_FILE, _LABELS)]
        raise ValueError(f"{wanted}, not both: also got {shortened(others)}")
    if len(set(header)) < len(header):
        raise ValueError(f"{wanted}, each once, got {', '.join(header)}")


def _check_row(source: Path, line: int, header: list[str], row: list[str]) -> _Row:
    if len(row) != len(header):
        raise ValueError(
            f"{source}:{line}: {len(row)} cells, the header has {len(header)}; quote cells that contain the separator, "
            "or separate labels by |"
        )
    cells = dict(zip(header, (cell.strip() for cell in row), strict=True))
    if not cells[_FILE]:
        raise ValueError(f"{source}:{line}: no file; fill the column '{_FILE}'")
    return line, cells


def _check_files_once(source: Path, rows: list[_Row]) -> None:
    """Raises an error for two rows of one image: each would mark the labels of the other one as absent."""
    lines: dict[str, int] = {}
    for line, row in rows:
        name = row[_FILE].replace("\\", "/")
        first = lines.setdefault(os.path.normpath(name), line)
        if first != line:
            raise ValueError(
                f"{source}:{line}: {row[_FILE]} already has a row, in line {first}: put all labels of an image "
                "in one row (dog;cat, or a 1 in the column of each) and remove the other"
            )


def _split_labels(source: Path, line: int, cell: str) -> list[str]:
    """Returns the labels of a cell: separated, or as a Python list."""
    names: Any = _SEPARATOR.split(cell) if cell else []
    if cell.startswith("[") and cell.endswith("]"):
        try:
            names = ast.literal_eval(cell)
        except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
            names = None
        if names is None or not all(isinstance(name, str) for name in names):
            raise ValueError(
                f"{source}:{line}: labels must be separated by ; or |, or be a list of quoted names, got {cell!r}: "
                "write dog;cat or ['dog', 'cat']"
            )
    names = [name.strip() for name in names]
    if "" in names:
        raise ValueError(f"{source}:{line}: an empty label in {cell!r}; remove the extra separator")
    return names


def _labels(source: Path, rows: list[_Row]) -> tuple[tuple[str, ...], np.ndarray]:
    labels = [_split_labels(source, line, row[_LABELS]) for line, row in rows]
    classes = tuple(sorted({name for names in labels for name in names}))
    if not classes:
        raise ValueError(f"{source} has no labels: the column '{_LABELS}' is empty in every row")
    targets = np.zeros((len(rows), len(classes)), np.int8)
    columns = {name: column for column, name in enumerate(classes)}
    for target, names in zip(targets, labels, strict=True):
        target[[columns[name] for name in names]] = 1
    return classes, targets


def _columns(source: Path, header: list[str], rows: list[_Row]) -> tuple[tuple[str, ...], np.ndarray]:
    classes = tuple(name for name in header if name != _FILE)
    targets = np.zeros((len(rows), len(classes)), np.int8)
    for target, (line, row) in zip(targets, rows, strict=True):
        for column, name in enumerate(classes):
            if row[name] not in _VALUES:
                raise ValueError(f"{source}:{line}: '{name}' must be 1, 0 or -1, got {row[name]!r}")
            target[column] = _VALUES[row[name]]
    return classes, targets
