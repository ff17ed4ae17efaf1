"""Reading of list files, and detection of missing images."""

import os
import re
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import suppress
from itertools import compress
from pathlib import Path
from urllib.parse import unquote

from sspyr_mm.datasets.finding.walk import is_kind
from sspyr_mm.datasets.text import read_lines
from sspyr_mm.files import printable, shortened

_SAMPLE = 32
"""Number of lines from which the form of a list is detected."""
_WORTH_A_SCAN = 100
"""Number of files from which their folder is listed once; fewer are checked one by one."""
_URL = re.compile(r"[\w+.:-]+://")
_LABEL = re.compile(r"(?:\s+|[,;]\s*)-?\d+(?:\.\d+)?$")
_FORMS: dict[str, Callable[[str], str]] = {
    "": str,
    "quotes removed": lambda line: line.strip("\"'"),
    "backslashes read as slashes": lambda line: line.replace("\\", "/"),
    "numbers after the paths (labels) ignored": lambda line: _LABEL.sub("", line).strip("\"'"),
}
"""Forms of lines; the first form under which most images exist is used."""


def read_list(source: Path, folder: str) -> tuple[list[str], str]:
    """Reads a list of images, one path per line; ``#`` starts a comment. File names need not be UTF-8.

    Relative paths start at ``folder``. Also returns a description of the form of the lines, empty for plain paths.
    Raises ValueError if the list is not Unicode text and its files do not exist.
    """
    text_error = None
    try:
        lines = read_lines(source)
    except ValueError as error:
        lines, text_error = read_lines(source, errors="surrogateescape"), error
    lines = [line for line in lines if line[0] != "#" or os.path.isfile(os.path.join(folder, line))]
    sample = lines[:: len(lines) // _SAMPLE + 1]
    counts = {
        form: sum(os.path.isfile(_resolve(change(line), folder)) for line in sample) for form, change in _FORMS.items()
    }
    form = max(counts, key=lambda name: counts[name])
    if text_error is not None and not counts[form]:
        raise text_error
    change = _FORMS[form]
    for index, line in enumerate(lines):  # in place, so that a list of millions is not held twice
        lines[index] = _resolve(change(line), folder)
    return lines, form


def _resolve(line: str, folder: str) -> str:
    if line.startswith("file://"):
        return unquote(line.removeprefix("file://"))
    if "://" in line:
        return line
    return os.path.join(folder, os.path.expanduser(line) if line[0:1] == "~" else line)


def drop_missing(paths: list[str], source: Path, *, max_missing: float, remedy: str) -> tuple[list[str], str | None]:
    """Returns the existing files of a list or annotation file, and a notice about missing ones, None if all exist.

    A folder with many listed files is read once: on a file server, checking files one by one takes a thousand times as
    long. URLs are not checked. Raises FileNotFoundError, with the ``remedy``, if a larger share than ``max_missing``,
    0 to 1, is missing.
    """
    present = _present(paths)
    if all(present):
        return paths, None
    kept = list(compress(paths, present))
    num_missing, first = len(paths) - len(kept), paths[present.index(0)]
    found = (
        f"{printable(source)} lists {len(paths)} images, of which {num_missing} are missing, such as "
        f"{printable(first):.300} ({_what_is(first)})"
    )
    if num_missing > max_missing * len(paths):
        raise FileNotFoundError(
            f"{found}: {remedy}. Up to max_missing={max_missing:g} of the images may be missing "
            "(--cfg-options train_dataloader.dataset.max_missing=SHARE)"
        )
    return kept, f"{found}; the other {len(kept)} are used"


def is_url(path: str) -> bool:
    """Returns whether a path of a list names a server or store."""
    return _URL.match(path) is not None


def _what_is(path: str) -> str:
    if os.path.isdir(path):
        return "is a folder"
    return "is a pipe, socket or device" if os.path.exists(path) else "does not exist"


def require_files(paths: Sequence[str], source: str | os.PathLike[str], remedy: str = "add them") -> None:
    """Raises FileNotFoundError, with the ``remedy``, if files that ``source`` names are missing."""
    if missing := [path for path, found in zip(paths, _present(paths), strict=True) if not found]:
        raise FileNotFoundError(
            f"{source}: {len(missing)} of {len(paths)} files do not exist: {shortened(missing)}; {remedy}"
        )


def _present(paths: Sequence[str]) -> bytearray:
    """Returns 1 for each path that is a regular file or a URL, else 0."""
    present = bytearray(len(paths))
    by_folder: dict[str, list[int]] = defaultdict(list)
    for index, path in enumerate(paths):
        if is_url(path):
            present[index] = 1
        else:
            by_folder[os.path.dirname(path)].append(index)
    for folder, indices in by_folder.items():
        if len(indices) < _WORTH_A_SCAN:
            for index in indices:
                present[index] = os.path.isfile(paths[index])
            continue
        with suppress(OSError), os.scandir(folder or ".") as entries:
            names = {entry.name for entry in entries if is_kind(entry.is_file)}
            for index in indices:
                present[index] = os.path.basename(paths[index]) in names
    return present
