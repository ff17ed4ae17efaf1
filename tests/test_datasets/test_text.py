"""Encodings of text files, and of all files with names of images or labels."""

import codecs
import json
import locale
import os
import sys

import pytest
from PIL import Image

from sspyr_mm.datasets import UnlabelledImages
from sspyr_mm.datasets.labelled import read_labelled
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
def test_unicode_text_is_the_same_in_every_encoding(tmp_path, mark, encoding, line_end):
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


@pytest.fixture
def image(tmp_path):
    """Writes an image, and files of every kind that contain its name, in UTF-8."""
    path = tmp_path / "JPEGImages/a.png"
    path.parent.mkdir()
    Image.new("RGB", (9, 9)).save(path)
    coco = {
        "images": [{"id": 1, "file_name": "JPEGImages/a.png", "licence": "für alle"}],
        "categories": [{"id": 1, "name": "Bär"}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1}],
    }
    texts = {
        "list.txt": "JPEGImages/a.png\n# Bären\n",
        "coco.json": json.dumps(coco, ensure_ascii=False),
        "table.csv": "file,labels\nJPEGImages/a.png,Bär\n",
        "ImageSets/Main/train.txt": "a 1\n",
        "Annotations/a.xml": "<annotation><object><name>Bär</name></object></annotation>",
    }
    for name, text in texts.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8")
    return str(path)


@pytest.mark.parametrize("name", ["list.txt", "table.csv"])
def test_byte_order_mark_is_not_part_of_a_name(image, tmp_path, name):
    file = tmp_path / name
    file.write_bytes(codecs.BOM_UTF8 + file.read_bytes())
    if name == "table.csv":
        found = read_labelled(file)
        assert (found.paths, found.classes) == ([image], ("Bär",))
    else:
        assert UnlabelledImages(file).list_images() == [image]


@pytest.fixture
def ascii_locale():
    """Makes ASCII the encoding of files that are opened without one."""
    before = locale.setlocale(locale.LC_CTYPE)
    locale.setlocale(locale.LC_CTYPE, "C")
    yield
    locale.setlocale(locale.LC_CTYPE, before)


@pytest.mark.skipif(sys.flags.utf8_mode, reason="UTF-8 mode ignores the locale")
def test_files_are_read_as_utf_8_in_every_locale(image, tmp_path, monkeypatch, ascii_locale):
    monkeypatch.chdir(tmp_path)
    with open("list.txt") as file, pytest.raises(UnicodeDecodeError):
        file.read()
    for name in ("list.txt", "coco.json"):
        (path,) = UnlabelledImages(name).list_images()
        assert os.path.normpath(path) == "JPEGImages/a.png"
    for source in ("coco.json", "table.csv", "."):
        assert read_labelled(source).classes == ("Bär",)
