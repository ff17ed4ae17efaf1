"""Downloads from unreliable servers, safe extraction, and verification of data sets."""

import gzip
import hashlib
import http.server
import io
import json
import os
import re
import runpy
import socket
import stat
import sys
import tarfile
import threading
import zipfile

import numpy as np
import pytest
from PIL import Image
from project import ROOT
from scipy.io import savemat

from sspyr_mm.datasets.preparation import COCO_SPLITS, Split, archives, coco_parts, prepare, voc07_parts, voc12_parts
from sspyr_mm.datasets.preparation.archives import download, extract
from sspyr_mm.datasets.preparation.coco_archives import ANNOTATIONS_MD5
from sspyr_mm.datasets.preparation.voc_archives import VOC07_SPLITS, VOC12_COUNTS

DATA = bytes(range(256)) * 4096  # 1 MiB


class Handler(http.server.SimpleHTTPRequestHandler):
    """Serves `server.files`; closes the connection after `server.limit` bytes, or stalls there."""

    def do_GET(self):
        server = self.server
        server.requests.append(self.path)
        data = server.files.get(self.path)
        if data is None:
            return self.send_error(404)
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data[: server.limit])
        server.stall.wait(5)
        return None

    def log_message(self, *args):
        pass


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request, address):
        """Ignores clients that close the connection: torchvision asks for redirects first."""


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    with Server(("127.0.0.1", 0), Handler) as server:
        server.files, server.limit, server.requests = {"/file": DATA}, None, []
        server.stall = threading.Event()
        server.stall.set()
        server.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server
        server.stall.set()
        server.shutdown()
        thread.join()


def md5(data):
    return hashlib.md5(data).hexdigest()


class TestDownload:
    def test_partial_file_of_a_killed_run_is_replaced(self, server, tmp_path):
        path = tmp_path / "new" / "file"
        path.parent.mkdir()
        (path.parent / "file.partial").write_bytes(DATA[:1000])
        download(f"{server.url}/file", path, md5(DATA))
        assert path.read_bytes() == DATA and list(path.parent.iterdir()) == [path]

    def test_broken_connection_leaves_no_file(self, server, tmp_path):
        server.limit = 300_000
        with pytest.raises(ValueError, match=rf"/file was truncated, .* is {md5(DATA[:300_000])}"):
            download(f"{server.url}/file", tmp_path / "file", md5(DATA))
        assert not list(tmp_path.iterdir())

    def test_stalled_download_times_out(self, server, tmp_path, monkeypatch):
        monkeypatch.setattr(archives, "_TIMEOUT_S", 0.2)
        server.limit = 300_000
        server.stall.clear()
        with pytest.raises(OSError, match="/file: timed out"):
            download(f"{server.url}/file", tmp_path / "file", md5(DATA))
        assert not list(tmp_path.iterdir()) and socket.getdefaulttimeout() is None

    def test_refusals_and_unreachable_servers_are_reported(self, server, tmp_path):
        with pytest.raises(OSError, match=r"/none: .*404"):
            download(f"{server.url}/none", tmp_path / "file", md5(DATA))
        with pytest.raises(OSError, match=r"127\.0\.0\.1:9/file: .*refused"):
            download("http://127.0.0.1:9/file", tmp_path / "file", md5(DATA))
        assert not list(tmp_path.iterdir())


def make_zip(files):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as opened:
        for name, data in files.items():
            opened.writestr(name, data)
    return out.getvalue()


def make_tar(files):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as opened:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            opened.addfile(info, io.BytesIO(data))
    return out.getvalue()


@pytest.mark.parametrize("make", [make_zip, make_tar])
class TestExtract:
    def test_existing_files_stay_unless_they_are_in_the_archive(self, make, tmp_path):
        archive, out = tmp_path / "archive", tmp_path / "out"
        archive.write_bytes(make({"a/1": b"one", "3": b"three"}))
        (out / "a").mkdir(parents=True)
        (out / "a" / "1").write_bytes(b"o")
        (out / "a" / "2").write_bytes(b"two")
        (out / "archive.partial").mkdir()  # of a killed run
        (out / "archive.partial" / "4").write_bytes(b"f")
        extract(archive, out)
        found = {str(p.relative_to(out)): p.read_bytes() for p in out.rglob("*") if p.is_file()}
        assert found == {"a/1": b"one", "a/2": b"two", "3": b"three"}
        assert not (out / "archive.partial").exists()

    @pytest.mark.parametrize("name", ["../evil", "a/../../evil", "/evil", "a\\..\\..\\evil", "C:\\evil"])
    def test_extraction_does_not_write_outside_of_the_folder(self, make, name, tmp_path):
        archive, out = tmp_path / "archive", tmp_path / "in" / "out"
        out.mkdir(parents=True)
        archive.write_bytes(make({"fine": b"1", name: b"2"}))
        with pytest.raises(ValueError, match=r"archive cannot be extracted: .*evil.* outside"):
            extract(archive, out)
        assert [path.name for path in (tmp_path / "in").rglob("*")] == ["out"]

    def test_damaged_archives_leave_no_file(self, make, tmp_path):
        archive, out = tmp_path / "archive", tmp_path / "out"
        out.mkdir()
        for data in (make({"b": b"2", "a": os.urandom(5000)})[:3000], b"<html>"):
            archive.write_bytes(data)
            with pytest.raises(ValueError, match=r"(?s)archive cannot be extracted: .*Remove it"):
                extract(archive, out)
            assert not list(out.iterdir())


def test_zip_with_a_flipped_bit_leaves_no_file(tmp_path):
    data = bytearray(make_zip({"b": b"2", "a": os.urandom(5000)}))
    data[2000] ^= 1
    (tmp_path / "archive").write_bytes(data)
    with pytest.raises(ValueError, match="archive cannot be extracted: "):
        extract(tmp_path / "archive", tmp_path / "out")
    assert not list((tmp_path / "out").rglob("*"))


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE])
@pytest.mark.parametrize("target", ["../../somewhere", "file"])
def test_links_of_a_tar_are_not_extracted(kind, target, tmp_path):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as opened:
        opened.addfile(tarfile.TarInfo("file"))
        link = tarfile.TarInfo("link")
        link.type, link.linkname = kind, target
        opened.addfile(link)
    (tmp_path / "archive").write_bytes(out.getvalue())
    extract(tmp_path / "archive", tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["file"]


def test_crafted_links_do_not_lead_outside(tmp_path):
    """extractall(filter="data") of Python 3.11.7 follows such links."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as opened:
        for name, kind, target in (
            ("a", tarfile.SYMTYPE, "."),
            ("a/b", tarfile.SYMTYPE, ".."),
            ("link", tarfile.SYMTYPE, "a/b/.."),
            ("hard", tarfile.LNKTYPE, "../../secret"),
            ("device", tarfile.CHRTYPE, ""),
            ("fifo", tarfile.FIFOTYPE, ""),
        ):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, target
            opened.addfile(info)
        for name in ("link/evil", "hard/evil"):
            info = tarfile.TarInfo(name)
            info.size = 4
            opened.addfile(info, io.BytesIO(b"evil"))
    (tmp_path / "in").mkdir()
    (tmp_path / "secret").write_text("secret")
    archive = tmp_path / "in" / "archive"
    archive.write_bytes(out.getvalue())
    extract(archive, tmp_path / "in" / "out")
    found = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if not path.is_dir()}
    assert found == {"secret", "in/archive", "in/out/link/evil", "in/out/hard/evil"}
    assert not any(path.is_symlink() for path in tmp_path.rglob("*"))
    assert (tmp_path / "secret").read_text() == "secret"


def test_links_of_a_zip_are_not_extracted(tmp_path):
    with zipfile.ZipFile(tmp_path / "archive", "w") as opened:
        link = zipfile.ZipInfo("link")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        opened.writestr(link, "../secret")
        opened.writestr("file", "1")
    extract(tmp_path / "archive", tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["file"]


@pytest.mark.parametrize("stated", [3, 30_000])
def test_a_zip_that_misstates_a_size_is_refused(stated, tmp_path):
    data = make_zip({"file": bytes(20_000)})
    assert data.count((20_000).to_bytes(4, "little")) == 2
    (tmp_path / "archive").write_bytes(data.replace((20_000).to_bytes(4, "little"), stated.to_bytes(4, "little")))
    with pytest.raises(ValueError, match="archive cannot be extracted: "):
        extract(tmp_path / "archive", tmp_path / "out")
    assert not list((tmp_path / "out").rglob("*"))


def coco_set():
    """Returns the parts of a tiny COCO, and the files on its server."""
    content = {"images": [{}] * 3, "annotations": [{}] * 5, "categories": [{}] * 2}
    images = make_zip({f"val2014/{i}.jpg": b"jpeg" for i in range(3)})
    annotations = make_zip({"annotations/instances_val2014.json": json.dumps(content)})
    parts = coco_parts(
        ["val2014"],
        splits={"val2014": Split(3, 5, md5(images))},
        annotations_md5={"2014": md5(annotations)},
        num_categories=2,
    )
    return parts, {"/val2014.zip": images, "/annotations_trainval2014.zip": annotations}


def test_coco_is_downloaded_once(server, tmp_path, capsys):
    parts, server.files = coco_set()
    assert prepare(tmp_path, parts, mirror=server.url) == 0
    assert (tmp_path / "annotations" / "instances_val2014.json").is_file()
    assert len(list((tmp_path / "val2014").iterdir())) == 3
    asked = len(server.requests)
    capsys.readouterr()
    assert prepare(tmp_path, parts, mirror=server.url) == 0 and len(server.requests) == asked
    lines = capsys.readouterr().out.splitlines()
    assert "json: 3 images, 5 annotations, 2 categories" in lines[0]
    assert lines[1].startswith("images val2014: 3 of 3 images in ")
    # A missing image is restored from the archive.
    (tmp_path / "val2014" / "1.jpg").unlink()
    assert prepare(tmp_path, parts, may_download=False) == 0 and len(server.requests) == asked


def test_archive_with_a_wrong_checksum_is_not_extracted(server, tmp_path, capsys):
    """Names and number of images are right, but their bytes are not."""
    parts, server.files = coco_set()
    server.files["/val2014.zip"] = make_zip({f"val2014/{i}.jpg": b"JPEG" for i in range(3)})
    assert prepare(tmp_path, parts, mirror=server.url) == 2
    wrong = md5(server.files["/val2014.zip"])
    assert f"sent another file: its MD5 is {wrong}" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["annotations", "annotations_trainval2014.zip"]


def test_wrong_content_is_reported(tmp_path, capsys):
    parts, files = coco_set()
    path = tmp_path / "annotations" / "instances_val2014.json"
    path.parent.mkdir()
    path.write_text('{"images": [{}, {}], "annotations": [], "categories": [{}, {}]}')
    (tmp_path / "val2014.zip").write_bytes(files["/val2014.zip"][:-1])
    assert prepare(tmp_path, parts, may_download=False) == 2
    done = capsys.readouterr()
    assert "2 images, 0 annotations, 2 categories, expected [3, 5, 2]" in done.out
    assert "val2014.zip is not the official file: its MD5 is" in done.err
    assert (tmp_path / "val2014.zip").exists()  # it may be the user's
    path.write_text("[]")
    assert prepare(tmp_path, parts[:1], may_download=False) == 2
    assert "is not a COCO instances file (TypeError" in capsys.readouterr().out


def voc_set():
    """Returns the parts of a tiny VOC 2007, and the files on its server."""
    archives = {}
    for split, name in (("trainval", "000001"), ("test", "000002")):
        objects = "<object><difficult>1</difficult></object><object><name>a</name></object>"
        tree = {
            f"ImageSets/Main/{split}.txt": f"{name}\n".encode(),
            f"JPEGImages/{name}.jpg": b"jpeg",
            f"Annotations/{name}.xml": f"<annotation>{objects}</annotation>".encode(),
        }
        archives[split] = make_tar({f"VOCdevkit/VOC2007/{k}": v for k, v in tree.items()})
    parts = voc07_parts({split: Split(1, 1, md5(data)) for split, data in archives.items()})
    return parts, {f"/VOC{split}_06-Nov-2007.tar": data for split, data in archives.items()}


def test_voc_is_completed(server, tmp_path, capsys):
    parts, server.files = voc_set()
    test = server.files.pop("/VOCtest_06-Nov-2007.tar")
    assert prepare(tmp_path, parts, mirror=f"{server.url}/") == 2
    done = capsys.readouterr()
    assert "404" in done.err and "Incomplete: VOC2007 test." in done.out
    where = tmp_path / "VOCtest_06-Nov-2007.tar"
    official = "http://host.robots.ox.ac.uk/pascal/VOC/voc2007/VOCtest_06-Nov-2007.tar"
    assert f"{official}\n    -> {where}" in done.out
    where.write_bytes(test)  # as instructed
    assert prepare(tmp_path, parts, may_download=False) == 0
    assert "1 images, 1 annotations, 1 objects that are not difficult" in capsys.readouterr().out
    (tmp_path / "VOCdevkit" / "VOC2007" / "Annotations" / "000002.xml").write_text("<anno")
    where.unlink()
    assert prepare(tmp_path, parts, may_download=False) == 2
    assert "cannot be read" in capsys.readouterr().out


def sbd_mask(path, mask):
    """Writes a mask like SBD, a MATLAB struct of masks and boundaries; returns the content of the file."""
    savemat(path, {"GTcls": {"Segmentation": mask, "Boundaries": np.zeros((20, 1))}})
    return path.read_bytes()


def voc12_set(tmp_path):
    """Returns the parts of a tiny VOC 2012 and SBD, the files on their servers, and the masks of SBD."""
    lists = {"train": "a b", "val": "c"}
    tree = {f"ImageSets/Segmentation/{name}.txt": ids.encode() for name, ids in lists.items()}
    tree |= {f"JPEGImages/{one}.jpg": b"jpeg" for one in "abcdef"}
    tree |= {f"SegmentationClass/{one}.png": b"png" for one in "abc"}
    voc = make_tar({f"VOCdevkit/VOC2012/{k}": v for k, v in tree.items()})
    generator = np.random.default_rng(0)
    masks = {one: generator.integers(0, 21, (4, 6), np.uint8) for one in "bcdef"}
    files = {f"cls/{one}.mat": sbd_mask(tmp_path / f"{one}.mat", mask) for one, mask in masks.items()}
    files |= {"train.txt": b"f\nb\nd\n", "val.txt": b"c\ne\n"}
    sbd = gzip.compress(make_tar({f"benchmark_RELEASE/dataset/{k}": v for k, v in files.items()}))
    parts = voc12_parts({"train": 2, "val": 1, "aug": 3}, voc_md5=md5(voc), sbd_md5=md5(sbd))
    return parts, {"/VOCtrainval_11-May-2012.tar": voc, "/benchmark.tgz": sbd}, masks


def test_voc12_is_completed_with_the_masks_of_sbd(server, tmp_path, capsys):
    parts, server.files, masks = voc12_set(tmp_path)
    data = tmp_path / "data"
    assert prepare(data, parts, mirror=server.url) == 0
    tree = data / "VOCdevkit/VOC2012"
    assert (tree / "ImageSets/Segmentation/aug.txt").read_text().split() == ["d", "e", "f"]
    written = {path.stem: np.asarray(Image.open(path)) for path in tree.glob("*Aug/*")}
    assert written.keys() == set("def")
    assert all(np.array_equal(written[one], masks[one]) for one in written)
    assert "SBD: aug: 3 images and 3 masks" in capsys.readouterr().out
    # A missing mask or list is written again from the extracted files, without the archive.
    (data / "benchmark.tgz").unlink()
    (tree / "SegmentationClassAug/e.png").unlink()
    (tree / "ImageSets/Segmentation/aug.txt").unlink()
    assert prepare(data, parts, may_download=False) == 0
    assert "converting 1 masks" in capsys.readouterr().out
    assert prepare(data, parts, may_download=False) == 0
    assert "converting" not in capsys.readouterr().out
    # A list with an image of val is replaced, although it has the right length.
    (val,) = (tree / "ImageSets/Segmentation/val.txt").read_text().split()
    (tree / "ImageSets/Segmentation/aug.txt").write_text(f"{val}\ne\nf\n")
    (tree / f"SegmentationClassAug/{val}.png").write_bytes((tree / "SegmentationClassAug/e.png").read_bytes())
    assert prepare(data, parts, may_download=False) == 0
    assert (tree / "ImageSets/Segmentation/aug.txt").read_text().split() == ["d", "e", "f"]


@pytest.mark.parametrize("bad", [b"text", np.full((4, 6), 21, np.uint8), {"other": 1}])
def test_broken_mask_of_sbd_is_reported(server, tmp_path, capsys, bad):
    parts, server.files, _ = voc12_set(tmp_path)
    data = tmp_path / "data"
    assert prepare(data, parts, mirror=server.url) == 0
    path = data / "benchmark_RELEASE/dataset/cls/e.mat"
    if isinstance(bad, bytes):
        path.write_bytes(bad)
    elif isinstance(bad, dict):
        savemat(path, bad)
    else:
        sbd_mask(path, bad)
    (data / "VOCdevkit/VOC2012/SegmentationClassAug/e.png").unlink()
    (data / "VOCdevkit/VOC2012/ImageSets/Segmentation/aug.txt").unlink()
    assert prepare(data, parts, may_download=False) == 2
    done = capsys.readouterr()
    assert re.search(r"e\.mat is not a mask of SBD \(.*; remove benchmark_RELEASE", done.err)
    assert not (data / "VOCdevkit/VOC2012/ImageSets/Segmentation/aug.txt").exists()
    assert "Incomplete: SBD." in done.out and not list(data.rglob("*.partial"))


def test_real_voc_has_the_published_counts():
    """Numbers of the devkits' documentation and of mmsegmentation (train_aug); checksums are torchvision's."""
    counts = VOC12_COUNTS
    assert counts["train"] + counts["aug"] == 10582 and counts["train"] + counts["val"] == 2913
    assert sum(split.num_images for split in VOC07_SPLITS.values()) == 9963
    assert sum(split.num_objects for split in VOC07_SPLITS.values()) == 24640


def test_real_coco_has_the_published_counts_and_checksums():
    """Checksums as in LAVIS (2014) and PaddlePaddle (2017); both years split the same images."""
    assert {name: split.md5 for name, split in COCO_SPLITS.items()} == {
        "train2014": "0da8c0bd3d6becc4dcb32757491aca88",
        "val2014": "a3d79f5ed8d289b7a7554ce06a5782b3",
        "train2017": "cced6f7f71b7629ddf16f17bbcfab6b2",
        "val2017": "442b8da7639aecaf257c1dceb8ba8c80",
    }
    assert ANNOTATIONS_MD5 == {"2014": "0a379cfc70b0e71301e0f377548639bd", "2017": "f4bbac642086de4f52a3fdda2de5fa2c"}
    for year in ("2014", "2017"):
        train, val = COCO_SPLITS[f"train{year}"], COCO_SPLITS[f"val{year}"]
        assert train.num_images + val.num_images == 123_287
        assert train.num_objects + val.num_objects == 896_782
    assert (COCO_SPLITS["val2014"].num_images, COCO_SPLITS["val2017"].num_images) == (40_504, 5_000)


COCO = "http://images.cocodataset.org"
OXFORD = "http://host.robots.ox.ac.uk/pascal/VOC"
BERKELEY = "https://www2.eecs.berkeley.edu/Research/Projects/CS/vision/grouping/semantic_contours"
TOOLS = {
    "prepare_coco.py": [
        f"{COCO}/zips/train2014.zip",
        f"{COCO}/zips/val2014.zip",
        f"{COCO}/annotations/annotations_trainval2014.zip",
    ],
    "prepare_voc07.py": [
        f"{OXFORD}/voc2007/VOCtrainval_06-Nov-2007.tar",
        f"{OXFORD}/voc2007/VOCtest_06-Nov-2007.tar",
    ],
    "prepare_voc12.py": [f"{OXFORD}/voc2012/VOCtrainval_11-May-2012.tar", f"{BERKELEY}/benchmark.tgz"],
}


@pytest.mark.parametrize(("tool", "addresses"), TOOLS.items())
def test_tools_print_download_instructions(tool, addresses, tmp_path, monkeypatch, capsys):
    path = str(ROOT / "tools/dataset_converters" / tool)
    monkeypatch.setattr(sys, "argv", [path, str(tmp_path / "data"), "--no-download"])
    with pytest.raises(SystemExit) as done:
        runpy.run_path(path, run_name="__main__")
    assert done.value.code == 2
    out = capsys.readouterr().out
    for address in addresses:
        archive = tmp_path / "data" / address.rsplit("/", 1)[1]
        assert f"{address}\n    -> {archive}" in out
