"""Detection of image files in folders, and the report of skipped files."""

import io
import os
import socket

import numpy as np
import pytest
from PIL import Image

from sspyr_mm.datasets import UnlabelledImages
from sspyr_mm.datasets.finding import ImageFinder
from sspyr_mm.datasets.finding.file_kinds import image_kind, missing_reader

HEIC = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(200)


def image_bytes(fmt):
    out = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (12, 16, 3), np.uint8)).save(out, fmt)
    return out.getvalue()


def write(folder, **files):
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        (folder / name).write_bytes(data)


def names(folder, **options):
    finder = ImageFinder(**options)
    found = [os.path.relpath(path, folder) for path in finder.find(folder)]
    return found, finder.notice(len(found))


@pytest.mark.parametrize(
    ("fmt", "kind"),
    [
        ("JPEG", "JPEG"),
        ("PNG", "PNG"),
        ("GIF", "GIF"),
        ("WEBP", "WebP"),
        ("TIFF", "TIFF"),
        ("BMP", "BMP"),
        ("PPM", "PNM"),
        ("JPEG2000", "JP2"),
        ("AVIF", "AVIF"),
        ("MPO", "JPEG"),
    ],
)
def test_format_is_detected_by_first_bytes(fmt, kind):
    assert image_kind(image_bytes(fmt)[:32]) == kind


@pytest.mark.parametrize("head", [b"", b"\xff\xd8", b"BM text", b"Pxyz", b"P5", b"\0\0\0\x18ftypmp42", b"RIFF....WAVE"])
def test_other_files_are_not_detected_as_images(head):
    assert image_kind(head) is None


def test_images_are_found_by_extension_and_content(tmp_path):
    jpeg = image_bytes("JPEG")
    endings = ("JPG", "jfif", "jpe", "mpo", "jp2", "pgm", "Tif", "foto", "jpg_original", "heic")
    write(tmp_path, **{f"a.{ending}": jpeg for ending in endings}, plain=jpeg)
    write(tmp_path, **{"b.foto": b"no image", "c.txt": jpeg, "d.unknown": b"x", "e": b"text"})
    found, notice = names(tmp_path)
    assert found == sorted([*(f"a.{ending}" for ending in endings), "plain"])
    assert notice == "4 of 15 files skipped: 1 .foto, 1 .txt, 1 .unknown, 1 without an extension"


def test_missing_readers_are_reported(tmp_path):
    if missing_reader(".heic") is None:
        pytest.skip("HEIC can be read here")
    write(tmp_path, **{f"{i}.HEIC": HEIC for i in range(70)}, **{"a.jpg": b"", "labels.txt": b""})
    assert names(tmp_path) == (["a.jpg"], "71 of 72 files skipped: 70 .heic (install pillow-heif), 1 .txt")
    with pytest.raises(ValueError, match=r"No images in .*70 \.heic \(install pillow-heif\)"):
        (tmp_path / "a.jpg").unlink()
        UnlabelledImages(tmp_path)


def test_few_files_of_an_unknown_extension_are_opened(tmp_path, monkeypatch):
    jpeg = image_bytes("JPEG")
    for ending, data in (("yes", jpeg), ("no", b"text")):
        write(tmp_path, **{f"{i:03}.{ending}": data for i in range(150)})
    write(tmp_path, **{f"{i:03}.mixed": (jpeg, b"text")[i % 2] for i in range(150)})
    opened = []
    monkeypatch.setattr("builtins.open", lambda path, *a, real=open, **k: opened.append(path) or real(path, *a, **k))
    found, _ = names(tmp_path)
    assert len(found) == 150 + 75
    counts = {e: sum(p.endswith(e) for p in opened) for e in ("yes", "no", "mixed")}
    assert counts == dict(yes=64, no=64, mixed=150)


def test_rare_kinds_are_summarised(tmp_path):
    write(tmp_path, **{"a.png": b""}, **{f"x.e{i}": b"" for i in range(12)})
    assert names(tmp_path)[1].endswith("1 .e5, 4 more kinds")
    (tmp_path / "only").mkdir()
    write(tmp_path / "only", **{"a.png": b""})
    assert names(tmp_path / "only")[1] is None


def test_folders_of_servers_and_systems_are_ignored(tmp_path):
    write(tmp_path, **{"a.jpg": b"", "Thumbs.db": b"", "desktop.ini": b"", ".DS_Store": b""})
    write(tmp_path / "@eaDir/a.jpg", **{"SYNOPHOTO_THUMB_XL.jpg": b""})
    for folder in ("__MACOSX", "#recycle", "$RECYCLE.BIN", "lost+found"):
        write(tmp_path / folder, **{"a.jpg": b"", "a.txt": b""})
    assert names(tmp_path) == (["a.jpg"], None)


def test_pipes_and_broken_links_are_skipped(tmp_path):
    write(tmp_path, **{"a.jpg": b""})
    os.mkfifo(tmp_path / "pipe.jpg")
    os.symlink("/dev/zero", tmp_path / "zero.jpg")
    os.symlink(tmp_path / "gone", tmp_path / "dead.jpg")
    os.symlink(tmp_path / "self.jpg", tmp_path / "self.jpg")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "socket.jpg"))
        assert names(tmp_path) == (["a.jpg"], "5 of 6 files skipped: 5 broken links, pipes, sockets or devices")


def test_file_names_that_are_not_utf_8_are_found_or_reported(tmp_path):
    write(tmp_path, **{"a.jpg": b""})
    for name in (b"caf\xe9.jpg", b"caf.\xe9\xe9"):
        with open(os.fsencode(tmp_path) + b"/" + name, "wb"):
            pass
    found, notice = names(tmp_path)
    assert found == ["a.jpg", os.fsdecode(b"caf\xe9.jpg")]
    assert notice.encode().endswith(rb"1 .\udce9\udce9")


def test_root_folder_of_any_name_is_searched(tmp_path):
    write(tmp_path / "@eaDir", **{"a.jpg": b""})
    assert names(tmp_path / "@eaDir")[0] == ["a.jpg"]
