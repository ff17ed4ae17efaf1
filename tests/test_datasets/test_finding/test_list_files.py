"""Forms of list files, and reports of missing images."""

import json
import os
import re

import cv2
import numpy as np
import pytest

from sspyr_mm.datasets import LoadRGBImage, UnlabelledImages
from sspyr_mm.datasets.finding import list_files

NAMES = [f"image {i:02}.png" for i in range(24)]


@pytest.fixture
def folder(tmp_path):
    for name in NAMES:
        cv2.imwrite(str(tmp_path / name), np.zeros((2, 3, 3), np.uint8))
    return tmp_path


@pytest.fixture(params=[1, 1000], ids=["whole folders", "one by one"])
def scan(request, monkeypatch):
    """Checks files by listing folders, or one by one."""
    monkeypatch.setattr(list_files, "_WORTH_A_SCAN", request.param)


def found(source, **options):
    dataset = UnlabelledImages(source, **options)
    return [os.path.basename(path) for path in dataset.list_images()], dataset.notices


@pytest.mark.parametrize(
    "text",
    [
        "\r\n".join(NAMES).encode(),
        "\r".join(NAMES).encode(),
        b"\xef\xbb\xbf" + "\n".join(NAMES).encode(),
        "\n".join(NAMES).encode("utf-16"),
        "\n\n".join(f"  {name}  " for name in NAMES).encode(),
        "\n".join(["# chosen by hand", *NAMES]).encode(),
    ],
    ids=["CRLF", "CR", "BOM", "UTF-16", "blanks", "comment"],
)
@pytest.mark.parametrize("ending", [".txt", ".TXT", ".lst"])
def test_text_encodings_and_line_ends_are_read(folder, text, ending):
    (folder / f"list{ending}").write_bytes(text)
    assert found(folder / f"list{ending}") == (NAMES, [])


@pytest.mark.parametrize(
    ("line", "form"),
    [
        ('"{}"', "quotes removed"),
        ("..\\{folder}\\{}", "backslashes read as slashes"),
        ("{} 3", "numbers after the paths (labels) ignored"),
        ("{},3", "numbers after the paths (labels) ignored"),
        ('"{}";-1.5', "numbers after the paths (labels) ignored"),
        ("file://{root}/{}", None),
        ("{root}/{}", None),
    ],
)
def test_other_forms_of_lines_are_read_and_reported(folder, line, form):
    lines = [line.format(name, folder=folder.name, root=folder) for name in NAMES]
    (folder / "list.txt").write_text("\n".join(lines))
    assert found(folder / "list.txt") == (NAMES, [f"{folder}/list.txt: {form}"] if form else [])


def test_home_folder_and_file_names_that_start_with_a_hash_are_found(folder, monkeypatch):
    monkeypatch.setenv("HOME", str(folder))
    (folder / "#tag.png").touch()
    (folder / "list.txt").write_text(f"# comment\n#tag.png\n~/{NAMES[3]}\n")
    assert found(folder / "list.txt")[0] == ["#tag.png", NAMES[3]]


def test_urls_are_kept(folder):
    (folder / "list.txt").write_text("http://host/a.png\nhttps://host/b.png\n")
    assert UnlabelledImages(folder / "list.txt").list_images() == ["http://host/a.png", "https://host/b.png"]


def test_file_names_that_are_not_utf_8_are_found(folder):
    with open(os.fsencode(folder) + b"/caf\xe9.png", "wb"):
        pass
    (folder / "list.txt").write_bytes(b"caf\xe9.png\n" + NAMES[0].encode())
    assert found(folder / "list.txt")[0] == [os.fsdecode(b"caf\xe9.png"), NAMES[0]]


def write_list(folder, lines, kind):
    if kind == "json":
        (folder / "a.json").write_text(json.dumps(dict(images=[dict(file_name=n) for n in lines])))
        return folder / "a.json"
    (folder / "a.txt").write_text("\n".join(lines))
    return folder / "a.txt"


@pytest.mark.parametrize("kind", ["txt", "json"])
@pytest.mark.usefixtures("scan")
def test_too_many_missing_images_are_an_error(folder, kind):
    source = write_list(folder, [NAMES[0], *(f"gone_{name}" for name in NAMES)], kind)
    message = f"{source} lists 25 images, of which 24 are missing, such as {folder}/gone_image 00.png (does"
    with pytest.raises(FileNotFoundError, match=re.escape(message)) as error:
        found(source)
    assert "max_missing=0.05" in str(error.value)
    names, notices = found(source, max_missing=0.96)
    assert names == NAMES[:1] and notices == [f"{message} not exist); the other 1 are used"]


@pytest.mark.usefixtures("scan")
def test_few_missing_images_are_skipped_and_reported(folder):
    (folder / NAMES[7]).unlink()
    source = write_list(folder, NAMES, "txt")
    names, notices = found(source)
    assert names == NAMES[:7] + NAMES[8:]
    assert notices == [
        f"{source} lists 24 images, of which 1 are missing, such as {folder}/{NAMES[7]} (does not exist); the other "
        "23 are used"
    ]


@pytest.mark.usefixtures("scan")
def test_folders_and_pipes_count_as_missing(folder):
    (folder / "sub").mkdir()
    os.mkfifo(folder / "pipe.png")
    source = write_list(folder, [*NAMES, "sub", "pipe.png"], "txt")
    with pytest.raises(FileNotFoundError, match=r"of which 2 are missing, such as .*sub \(is a f"):
        found(source)


def test_circular_link_does_not_hide_files(folder, monkeypatch):
    monkeypatch.setattr(list_files, "_WORTH_A_SCAN", 1)
    os.symlink("loop.png", folder / "loop.png")
    (folder / "list.txt").write_text("\n".join(NAMES))
    assert found(folder / "list.txt")[0] == NAMES


def test_max_missing_must_be_a_share(folder):
    with pytest.raises(ValueError, match=r"max_missing must be a share between 0 and 1, got 5"):
        UnlabelledImages(folder, max_missing=5)


@pytest.mark.parametrize("missing", [0.05, 1.0])
@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("a\0b.png", "contains a NUL byte; save the list again as UTF-8 text"),
        ("x" * 100_000, "100000 characters, more than the limit of 10000; write one path or name per line"),
        ("s3://bucket/a.png", r"s3://bucket/a\.png cannot be read \(.*petrel.*\): download the images, pack them"),
        ("gopher://host/a.png", r"gopher://host/a\.png cannot be read \(.*\): download the images"),
    ],
    ids=["NUL", "long", "s3", "gopher"],
)
def test_impossible_line_is_reported_with_its_number(folder, line, problem, missing):
    (folder / "list.txt").write_text("\n".join(["# comment", "", *NAMES, line, NAMES[0]]))
    with pytest.raises(ValueError, match=rf"list\.txt, line {len(NAMES) + 3}: {problem}") as error:
        UnlabelledImages(folder / "list.txt", max_missing=missing)
    assert len(str(error.value).splitlines()) == 1 and len(str(error.value)) < 600


def test_url_of_a_given_backend_is_kept(folder):
    (folder / "list.txt").write_text("s3://bucket/a.png\n")
    load = LoadRGBImage(backend_args=dict(backend="http"))
    assert found(folder / "list.txt", pipeline=[load])[0] == ["a.png"]


@pytest.mark.parametrize("name", ["a\0b.png", "x" * 100_000, ""], ids=["NUL", "long", "empty"])
def test_impossible_name_in_a_json_is_reported(folder, name):
    images = [dict(file_name=one) for one in [*NAMES, name]]
    (folder / "a.json").write_text(json.dumps(dict(images=images)))
    with pytest.raises(
        ValueError, match=rf"a\.json is not a COCO json: .*images\[{len(NAMES)}\]\.file_name is no path"
    ):
        UnlabelledImages(folder / "a.json")


def test_url_in_a_json_is_reported(folder):
    (folder / "a.json").write_text(json.dumps(dict(images=[dict(file_name="gopher://host/a.png")])))
    with pytest.raises((ValueError, FileNotFoundError), match=r"a\.json.*gopher://host/a\.png"):
        UnlabelledImages(folder / "a.json")


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 100_000])
def test_deeply_nested_json_is_reported(folder, text):
    (folder / "a.json").write_text(text)
    with pytest.raises(ValueError, match=r"a\.json is not a COCO json: .*nested too deeply"):
        UnlabelledImages(folder / "a.json")


def test_pipe_in_a_list_is_reported(folder):
    os.mkfifo(folder / "pipe.png")
    (folder / "list.txt").write_text("\n".join([*NAMES, "pipe.png"]))
    listed, (notice,) = found(folder / "list.txt")
    assert listed == NAMES and "pipe.png (is a pipe, socket or device)" in notice
