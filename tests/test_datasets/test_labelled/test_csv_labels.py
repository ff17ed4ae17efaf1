"""Image labels of tables, also those of spreadsheets, pandas and Windows."""

import warnings

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


def test_column_of_label_names_is_read(write, tmp_path):
    found = read_labelled(write("file,labels\na.jpg,tree; dog\ndeep/b.jpg,\n"))
    assert found.classes == ("dog", "tree") and found.multi_label
    assert found.targets.tolist() == [[1, 1], [0, 0]]
    assert found.image_ids == ("a.jpg", "deep/b.jpg")
    assert found.paths == [str(tmp_path / "a.jpg"), str(tmp_path / "deep/b.jpg")]


@pytest.mark.parametrize("separator", [";", "|", " ; ", " | "])
def test_labels_are_split_at_semicolons_and_bars(write, separator):
    rows = f"a.jpg,tree{separator}wild dog\ndeep/b.jpg,wild dog\n"
    found = read_labelled(write(f"file,labels\n{rows}"))
    assert found.classes == ("tree", "wild dog")
    assert found.targets.tolist() == [[1, 1], [0, 1]]


def test_column_per_class_is_read(write, tmp_path):
    text = "tree\tfile\tdog, wild\n1\tb.jpg\t-1\n"
    source = write(text, "set.tsv")
    found = read_labelled(source, image_root=str(tmp_path / "deep"))
    assert found.classes == ("tree", "dog, wild")
    assert found.targets.tolist() == [[1, -1]]
    assert found.paths == [str(tmp_path / "deep" / "b.jpg")]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r":1: the header must have a column 'file' .*, got nothing"),
        ("path,labels\na.jpg,dog\n", r":1: the header must have .* got path, labels"),
        ("file,labels,dog\na.jpg,dog,1\n", r"not both: also got dog"),
        ("file,dog,dog\na.jpg,1,1\n", r"each once, got file, dog, dog"),
        ("file,labels\n", "has a header and no rows"),
        ("file,labels\na.jpg,\n", "has no labels"),
        ("file,labels\na.jpg,dog\ndeep/b.jpg,dog,cat\n", r"set\.csv:3: 3 cells, the header"),
        ("file,labels\na.jpg,dog\n,dog\n", r"set\.csv:3: no file"),
        ("file,labels\na.jpg,dog;;cat\n", r"set\.csv:2: an empty label in 'dog;;cat'"),
        ("file,dog\na.jpg,1\ndeep/b.jpg,2\n", r"set\.csv:3: 'dog' must be 1, 0 or -1, got '2'"),
        (
            "file,labels\na.jpg,dog\ndeep/b.jpg,dog\na.jpg,cat\n",
            r"set\.csv:4: a\.jpg already has a row, in line 2: .* one row \(dog;cat, ",
        ),
        ("file,dog\ndeep/b.jpg,1\n./deep//b.jpg,0\n", r"set\.csv:3: \./deep//b\.jpg already has a row, in line 2"),
        ('file,labels\na.jpg,"dog\n', r"set\.csv:2: unexpected end of data"),
        ('file,labels\na.jpg,"[cat, dog]"\n', r"set\.csv:2: labels must be .*got '\[cat, dog\]'"),
        ("file,labels\na.jpg,[1]\n", r"set\.csv:2: labels must be .*got '\[1\]'"),
        ("file,labels\na.jpg,['']\n", r"set\.csv:2: an empty label"),
        ("sep=;\nfile;labels\na.jpg;cat;dog\n", r"set\.csv:3: 3 cells, .* separate labels by \|"),
        ("sep=;\nfile,labels\na.jpg,dog\n", r"must have a column 'file' .*, got file,labels"),
        ("file,labels\ndeep/b.jpg,dog\ndeep\\b.jpg,cat\n", r"set\.csv:3: .* already has a row, in line 2"),
        ("file,labels\nx/a.jpg,dog\ny/a.jpg,cat\n", r"x/a\.jpg and y/a\.jpg both resolve to"),
    ],
)
def test_malformed_rows_are_reported_with_their_line(write, text, message):
    with pytest.raises(ValueError, match=message):
        read_labelled(write(text))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "file,labels\na.jpg,traffic light;dog\ndeep/b.jpg,Traffic  Light\n",
            r"set\.csv: class names differ only in case or spaces: 'Traffic  Light' / 'traffic light'; each",
        ),
        ("file,Dog,cat,dog\na.jpg,1,0,0\n", r"case or spaces: 'Dog' / 'dog'; each counts as a separate class"),
        (
            'file,labels\na.jpg,"dog,cat"\ndeep/b.jpg,dog\n',
            r"set\.csv: labels contain a comma: 'dog,cat'; .* separate them by ; \(dog;cat\)",
        ),
    ],
)
def test_probable_typing_errors_in_labels_are_reported(write, text, message):
    with pytest.warns(UserWarning, match=message):
        read_labelled(write(text))


def test_ordinary_labels_are_not_reported(write):
    text = 'file,"dog, wild",cat\na.jpg,1,0\n'
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        read_labelled(write(text))
        read_labelled(write("file,labels\na.jpg,dog; cat\ndeep/b.jpg, dog\n"))


def test_text_that_is_not_utf_8_is_reported(write):
    message = r"set\.csv is not UTF-8 text \(byte 0xe4 at 19\): .* iconv .*/set\.csv > NEW"
    with pytest.raises(ValueError, match=message):
        read_labelled(write("file,labels\na.jpg,bär\n", encoding="latin-1"))


def test_missing_image_is_reported(write):
    source = write("file,dog\na.jpg,1\ngone/c.jpg,0\n")
    with pytest.raises(FileNotFoundError, match=r"1 of 2 files .*gone/c\.jpg; add them"):
        read_labelled(source)
