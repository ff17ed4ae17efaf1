"""Reading of text files from any editor: lists, tables, class names, annotations."""

import codecs
import json
import os
import xml.etree.ElementTree as ElementTree
from typing import Any

from sspyr_mm.files import printable, read_regular

MAX_LINE = 10_000
"""Number of characters above which a line of a list cannot be a path or a name."""


def read_text(path: str | os.PathLike[str], *, errors: str = "strict") -> str:
    r"""Reads a text file as UTF-8, or as UTF-16 or UTF-32 where it starts with their byte order mark.

    UTF-16 without a mark is detected by the zero byte of its first character, which has to be ASCII. Bytes that are not
    UTF-8 are treated by ``errors`` as in :func:`open`. The text has no mark, and line ends are ``\n``.
    Raises ValueError if the bytes do not fit the encoding, and OSError if the file is not a regular one.
    """
    data = read_regular(path).removeprefix(codecs.BOM_UTF8)
    encoding = "utf-8"
    if data.startswith((codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)):  # first: the former begins with BOM_UTF16_LE
        encoding = "utf-32"
    elif data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        encoding = "utf-16"
    elif len(data) >= 2 and (data[0] == 0) != (data[1] == 0):
        encoding = "utf-16-be" if data[0] == 0 else "utf-16-le"
    try:
        text = data.decode(encoding, errors=errors)
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{printable(path)} is not {encoding.upper()} text (byte 0x{data[error.start]:02x} at {error.start}): "
            f"save it as UTF-8, e.g. iconv -f ISO-8859-1 -t UTF-8 {printable(path)} > NEW"
        ) from error
    return text.replace("\r\n", "\n").replace("\r", "\n")


def read_json(path: str | os.PathLike[str]) -> Any:
    """Parses the JSON of :func:`read_text`; raises ValueError, also for one that is nested too deeply."""
    try:
        return json.loads(read_text(path))
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def read_xml(path: str | os.PathLike[str]) -> ElementTree.Element:
    """Parses an XML file; raises ValueError if it is malformed, or declares entities, which can take any memory."""
    data = read_regular(path)
    if b"<!ENTITY" in data.replace(b"\0", b""):  # also in UTF-16 and UTF-32
        raise ValueError("it declares entities (<!ENTITY), which annotations do not need")
    try:
        return ElementTree.fromstring(data)
    except (ElementTree.ParseError, LookupError):  # also for UTF-16 whose declaration says UTF-8
        try:
            return ElementTree.fromstring(read_text(path))
        except (ElementTree.ParseError, LookupError) as error:
            raise ValueError(str(error)) from error


def read_lines(path: str | os.PathLike[str], *, errors: str = "strict") -> list[str]:
    """Returns the lines of :func:`read_text` without surrounding spaces and without empty lines.

    Raises ValueError, with the number of the line, for a NUL byte and for more than 10,000 characters.
    """
    # Not splitlines(), which also breaks lines at characters that a file name may contain.
    raw = read_text(path, errors=errors).split("\n")
    number = next((number for number, line in enumerate(raw, 1) if len(line) > MAX_LINE or "\0" in line), None)
    if number is not None:
        place, line = f"{printable(path)}, line {number}", raw[number - 1]
        if "\0" in line:
            raise ValueError(f"{place}: contains a NUL byte; save the list again as UTF-8 text")
        raise ValueError(
            f"{place}: {len(line)} characters, more than the limit of {MAX_LINE}; write one path or name per line"
        )
    return [line for one in raw if (line := one.strip())]


def line_with(path: str | os.PathLike[str], part: str) -> str:
    """Returns a file's name with the number of the first line that contains ``part``, for a message."""
    lines = read_text(path, errors="surrogateescape").split("\n")
    number = next((number for number, line in enumerate(lines, 1) if part in line), None)
    return printable(path) + (f", line {number}" if number else "")
