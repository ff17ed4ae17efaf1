"""Reading of text files from any editor: lists, tables, class names, annotations."""

import codecs
import json
import os
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any


def read_text(path: str | os.PathLike[str], *, errors: str = "strict") -> str:
    r"""Reads a text file as UTF-8, or as UTF-16 or UTF-32 where it starts with their byte order mark.

    UTF-16 without a mark is detected by the zero byte of its first character, which has to be ASCII. Bytes that are not
    UTF-8 are treated by ``errors`` as in :func:`open`. The text has no mark, and line ends are ``\n``.
    Raises ValueError if the bytes do not fit the encoding.
    """
    data = Path(path).read_bytes().removeprefix(codecs.BOM_UTF8)
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
            f"{path} is not {encoding.upper()} text (byte 0x{data[error.start]:02x} at {error.start}): "
            f"save it as UTF-8, e.g. iconv -f ISO-8859-1 -t UTF-8 {path} > NEW"
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
    data = Path(path).read_bytes()
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
    """Returns the lines of :func:`read_text` without surrounding spaces and without empty lines."""
    # Not splitlines(), which also breaks lines at characters that a file name may contain.
    return [line for raw in read_text(path, errors=errors).split("\n") if (line := raw.strip())]
