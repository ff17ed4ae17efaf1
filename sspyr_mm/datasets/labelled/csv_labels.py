"""Image labels of a table with one image file and its labels per row."""

import ast
import csv
import io
import os
import re
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from sspyr_mm.datasets.labelled.labelled_images import IGNORED, LabelledImages, check_files, image_targets
from sspyr_mm.datasets.names import resolve_names, warn_of_alike_classes
from sspyr_mm.datasets.text import read_text
from sspyr_mm.files import shortened

FILE_COLUMN, LABEL_COLUMN = "file", "labels"
_SEPARATOR = re.compile("[;|]")  # class names may contain spaces and commas
_VALUES = {"1": 1, "0": 0, "-1": IGNORED, "1.0": 1, "0.0": 0, "-1.0": IGNORED}


def read_table(source: Path, image_root: str | None = None) -> LabelledImages:
    """Reads a table with a header, separated by commas (csv), tabs (tsv), semicolons or the character of ``sep=``.

    Args:
        source: Table with a column ``file``, and either one column ``labels`` with names separated by ``;`` or ``|`` or
            as a Python list (empty: the image shows no class), or one column per class with 1, 0 or -1 (ignored).
        image_root: Base folder of relative paths; default: that of the table.

    Returns:
        Labelled set. Classes are the sorted labels, or the columns in their order. Warnings report class names that
        differ only in case or spaces, and labels with a comma.

    Raises:
        FileNotFoundError: If an image does not exist.
        ValueError: If the header or a row is malformed (the message gives its line), a file has two rows, the table has
            no rows or no classes, or it is not Unicode text.
    """
    header, rows = _read_rows(source)
    if not rows:
        raise ValueError(f"{source} has a header and no rows: add one row per image")
    _check_files_once(source, rows)
    listed = LABEL_COLUMN in header
    classes, targets = _labels(source, rows) if listed else _columns(source, header, rows)
    warn_of_alike_classes(classes, source)
    if listed:
        _warn_of_commas(source, classes)
    names = [row[FILE_COLUMN] for _, row in rows]
    root = Path(image_root).expanduser() if image_root else source.parent
    paths = resolve_names(names, [root]) or [str(root / name) for name in names]
    check_files(paths, source)
    return LabelledImages(paths, targets, classes, multi_label=True, image_ids=tuple(names))


def _read_rows(source: Path) -> tuple[list[str], list[tuple[int, dict[str, str]]]]:
    """Returns the header, and the rows with their line numbers."""
    text = read_text(source)
    first, _, rest = text.partition("\n")
    said = re.fullmatch(r'"?sep=(.)"?[\s,;]*', first, re.IGNORECASE)  # for Excel
    skipped = 1 if said else 0
    text = rest if said else text
    reader = csv.reader(io.StringIO(text), delimiter=_delimiter(text, source, said), strict=True)
    try:
        header = [name.strip() for name in next(reader, [])]
        _check_header(source, header)
        rows = []
        for row in reader:
            line = reader.line_num + skipped
            if row:
                rows.append((line, _check_row(source, line, header, row)))
    except csv.Error as error:
        raise ValueError(f"{source}:{reader.line_num + skipped}: {error}") from error
    return header, rows


def _delimiter(text: str, source: Path, said: re.Match[str] | None) -> str:
    """Returns the separator: that of ``sep=``, else the one under which the header has a column ``file``."""
    if said:
        return said[1]
    usual = "\t" if source.suffix.lower() == ".tsv" else ","
    header = text.partition("\n")[0]
    for one in (usual, ";", "\t", ","):
        cells = [cell.strip(' "') for cell in header.split(one)]
        if FILE_COLUMN in cells and len(cells) > 1:
            return one
    return usual


def _check_header(source: Path, header: list[str]) -> None:
    wanted = (
        f"{source}:1: the header must have a column '{FILE_COLUMN}' and either '{LABEL_COLUMN}' or one column per class"
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
            f"{source}:{line}: {len(row)} cells, the header has {len(header)}; quote cells that contain the separator, "
            "or separate labels by |"
        )
    cells = dict(zip(header, (cell.strip() for cell in row), strict=True))
    if not cells[FILE_COLUMN]:
        raise ValueError(f"{source}:{line}: no file; fill the column '{FILE_COLUMN}'")
    return cells


def _check_files_once(source: Path, rows: list[tuple[int, dict[str, str]]]) -> None:
    """Raises an error for two rows of one image: each would mark the other row's labels as absent."""
    lines: dict[str, int] = {}
    for line, row in rows:
        name = row[FILE_COLUMN].replace("\\", "/")
        first = lines.setdefault(os.path.normpath(name), line)
        if first != line:
            raise ValueError(
                f"{source}:{line}: {row[FILE_COLUMN]} already has a row, in line {first}: put all labels of an image "
                "in one row (dog;cat, or a 1 in the column of each) and remove the other"
            )


def _warn_of_commas(source: Path, classes: Sequence[str]) -> None:
    """Warns about labels with a comma, which probably are several: each is trained and evaluated as one class."""
    if joined := [repr(name) for name in classes if "," in name]:
        warnings.warn(
            f"{source}: labels contain a comma: {shortened(joined)}; each counts as one class. If they are several "
            "labels, separate them by ; (dog;cat)",
            stacklevel=3,
        )


def _split_labels(source: Path, line: int, cell: str) -> list[str]:
    """Returns the labels of a cell: separated, or as a Python list."""
    if cell.startswith("[") and cell.endswith("]"):
        try:
            names = ast.literal_eval(cell)
            if all(isinstance(name, str) for name in names):
                return [name.strip() for name in names]
        except (ValueError, SyntaxError):
            pass
        raise ValueError(
            f"{source}:{line}: labels must be separated by ; or |, or be a list of quoted names, got {cell!r}: write "
            "dog;cat or ['dog', 'cat']"
        )
    return [name.strip() for name in _SEPARATOR.split(cell)] if cell else []


def _labels(source: Path, rows: list[tuple[int, dict[str, str]]]) -> tuple[tuple[str, ...], np.ndarray]:
    labels = []
    for line, row in rows:
        names = _split_labels(source, line, row[LABEL_COLUMN])
        if "" in names:
            raise ValueError(f"{source}:{line}: an empty label in {row[LABEL_COLUMN]!r}; remove the extra separator")
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
