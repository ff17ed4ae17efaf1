"""Tables from spreadsheets, pandas and Windows."""

import pytest

from sspyr_mm.datasets.labelled import read_labelled


@pytest.fixture
def write(tmp_path):
    for name in ("a.jpg", "deep/b.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()

    def write(text, name="set.csv", encoding="utf-8"):
        (tmp_path / name).write_bytes(text.encode(encoding))
        return tmp_path / name

    return write


@pytest.mark.parametrize(
    "text",
    [
        "file;labels\na.jpg;cat|dog\ndeep/b.jpg;dog\n",
        'file;labels\na.jpg;"cat;dog"\ndeep/b.jpg;dog\n',
        "file\tlabels\na.jpg\tcat;dog\ndeep/b.jpg\tdog\n",
        "sep=;\nfile;labels\na.jpg;cat|dog\ndeep/b.jpg;dog\n",
        '"sep=|";;\nfile|labels\na.jpg|cat;dog\ndeep/b.jpg|dog\n',
        "file,labels\na.jpg,\"['cat', 'dog']\"\ndeep/b.jpg,['dog']\n",
        "file,labels\na.jpg,cat;dog\ndeep\\b.jpg,dog\n",
        "file,labels\r\nC:\\x\\a.jpg,cat;dog\r\nC:\\x\\deep\\b.jpg,dog\r\n",
        "file;cat;dog\na.jpg;1;1.0\ndeep/b.jpg;0.0;1\n",
    ],
)
def test_separators_lists_and_windows_paths_are_read_alike(write, tmp_path, text):
    found = read_labelled(write(text))
    assert found.classes == ("cat", "dog") and found.targets.tolist() == [[1, 1], [0, 1]]
    assert found.paths == [str(tmp_path / "a.jpg"), str(tmp_path / "deep/b.jpg")]


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_unicode_encodings_and_upper_case_extensions_are_read(write, encoding):
    text = "file\tlabels\na.jpg\tбык\n"
    assert read_labelled(write(text, "SET.TSV", encoding)).classes == ("бык",)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('file,labels\na.jpg,"[cat, dog]"\n', r"set\.csv:2: labels must be .*got '\[cat, dog\]'"),
        ("file,labels\na.jpg,[1]\n", r"set\.csv:2: labels must be .*got '\[1\]'"),
        ("file,labels\na.jpg,['']\n", r"set\.csv:2: an empty label"),
        ("sep=;\nfile;labels\na.jpg;cat;dog\n", r"set\.csv:3: 3 cells, .* separate labels by \|"),
        ("sep=;\nfile,labels\na.jpg,dog\n", r"must have a column 'file' .*, got file,labels"),
        ("file,labels\ndeep/b.jpg,dog\ndeep\\b.jpg,cat\n", r"set\.csv:3: .* already has a row, in line 2"),
        ("file,labels\nx/a.jpg,dog\ny/a.jpg,cat\n", r"x/a\.jpg and y/a\.jpg both resolve to"),
    ],
)
def test_unreadable_rows_are_reported_with_their_line(write, text, message):
    with pytest.raises(ValueError, match=message):
        read_labelled(write(text))
