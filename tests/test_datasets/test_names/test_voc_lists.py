"""Forms of lines in VOC's lists."""

import pytest

from sspyr_mm.datasets.names import read_voc_ids

KNOWN = {"2007_01", "a b", "a b 1", "x.v2", "sub/c"}


@pytest.mark.parametrize(
    ("line", "wanted"),
    [
        ("2007_01", "2007_01"),
        ("  2007_01\t", "2007_01"),
        ("2007_01  1", "2007_01"),
        ("2007_01 -1", "2007_01"),
        ("2007_01.jpg", "2007_01"),
        ("2007_01.JPG 1", "2007_01"),
        ("JPEGImages/2007_01.jpg", "2007_01"),
        ("..\\JPEGImages\\2007_01.jpg", "2007_01"),
        ("/JPEGImages/2007_01.jpg /SegmentationClass/2007_01.png", "2007_01"),
        ("a b", "a b"),
        ("a b -1", "a b"),
        ("a b 1", "a b 1"),
        ("a b.jpg", "a b"),
        ("x.v2", "x.v2"),
        ("x.v2.jpg", "x.v2"),
        ("sub/c", "sub/c"),
        ("sub/c.jpg", "sub/c"),
        ("gone", "gone"),
        ("gone 1", "gone 1"),
        ("2007_01.1", "2007_01.1"),
        ("2007_01 2", "2007_01 2"),
        ("/", "/"),
    ],
)
def test_forms_of_a_line_resolve_to_an_id(tmp_path, line, wanted):
    path = tmp_path / "list.txt"
    path.write_text(f"{line}\n")
    assert read_voc_ids(path, KNOWN.__contains__) == [wanted]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_encodings_line_ends_and_empty_lines_are_read(tmp_path, encoding):
    path = tmp_path / "list.txt"
    path.write_bytes("a b\r\n\r\nsub/c 1\r\n\r\n".encode(encoding))
    assert read_voc_ids(path, KNOWN.__contains__) == ["a b", "sub/c"]


def test_an_image_listed_in_two_spellings_is_refused(tmp_path):
    path = tmp_path / "list.txt"
    path.write_text("a b\nsub/c\nimages/a b.jpg\n")
    with pytest.raises(ValueError, match=r"list\.txt lists 1 images more than once, such as a b:"):
        read_voc_ids(path, KNOWN.__contains__)
    path.write_text(" \n")
    with pytest.raises(ValueError, match=r"list\.txt is empty"):
        read_voc_ids(path, KNOWN.__contains__)
