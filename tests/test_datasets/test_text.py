"""Encodings of text files."""

import codecs

import pytest

from sspyr_mm.datasets.text import read_text

TEXT = "Müller/a.jpg\nb c.jpg\n"


@pytest.mark.parametrize(
    ("mark", "encoding"),
    [
        (b"", "utf-8"),
        (codecs.BOM_UTF8, "utf-8"),
        (codecs.BOM_UTF16_LE, "utf-16-le"),
        (codecs.BOM_UTF16_BE, "utf-16-be"),
        (codecs.BOM_UTF32_LE, "utf-32-le"),
        (codecs.BOM_UTF32_BE, "utf-32-be"),
        (b"", "utf-16-le"),
        (b"", "utf-16-be"),
    ],
)
@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r"])
def test_unicode_text_reads_alike_in_every_encoding(tmp_path, mark, encoding, line_end):
    file = tmp_path / "list.txt"
    file.write_bytes(mark + TEXT.replace("\n", line_end).encode(encoding))
    assert read_text(file) == TEXT


def test_other_encodings_are_reported_with_a_remedy(tmp_path):
    file = tmp_path / "list.txt"
    file.write_bytes(TEXT.encode("latin-1"))
    with pytest.raises(ValueError, match=r"not UTF-8 text \(byte 0xfc at 1\).*iconv"):
        read_text(file)
    assert read_text(file, errors="surrogateescape") == TEXT.replace("ü", "\udcfc")


def test_empty_file_is_empty_text(tmp_path):
    (tmp_path / "list.txt").touch()
    assert read_text(tmp_path / "list.txt") == ""
