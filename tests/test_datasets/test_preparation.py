"""Downloads from a real server that breaks off, extraction that stays inside, data sets verified and completed."""

import gzip
import hashlib
import http.server
import io
import json
import os
import re
import subprocess
import sys
import tarfile
import threading
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat
from torchvision.datasets import SBDataset
from torchvision.datasets.voc import DATASET_YEAR_DICT

from sspyr_mm.datasets.preparation import (
    CocoSplit,
    MaskCounts,
    VocSplit,
    coco_parts,
    prepare,
    voc12_parts,
    voc_parts,
)
from sspyr_mm.datasets.preparation.archives import extract
from sspyr_mm.datasets.preparation.coco import ANNOTATIONS_MD5
from sspyr_mm.datasets.preparation.coco import SPLITS as COCO_SPLITS
from sspyr_mm.datasets.preparation.download import DownloadError, download
from sspyr_mm.datasets.preparation.voc import SPLITS as VOC_SPLITS

ROOT = Path(__file__).resolve().parents[2]
DATA = bytes(range(256)) * 4096  # 1 MiB


class Handler(http.server.BaseHTTPRequestHandler):
    """Files of `server.files`; knows ranges unless told otherwise, and breaks off after `server.breaks` bytes."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        server, asked = self.server, self.headers.get("Range")
        server.asked.append((self.path, asked))
        data = server.files.get(self.path)
        if server.statuses:
            return self.refuse(server.statuses.pop(0))
        if data is None:
            return self.refuse(404)
        start = int(re.fullmatch(r"bytes=(\d+)-", asked)[1]) if asked and server.ranges else 0
        if start and start >= len(data):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(data)}")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return None
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        if server.sizes:
            self.send_header("Content-Length", str(len(data) - start))
        else:
            self.send_header("Connection", "close")
            self.close_connection = True
        self.end_headers()
        if server.breaks:
            self.wfile.write(data[start : start + server.breaks.pop(0)])
            self.close_connection = True
            return None
        self.wfile.write(data[start:])
        return None

    def refuse(self, status):
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *args):
        pass


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.files, server.breaks, server.statuses, server.asked = {"/file": DATA}, [], [], []
        server.ranges = server.sizes = True
        server.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def md5(data):
    return hashlib.md5(data).hexdigest()


class TestDownload:
    def test_goes_on_where_the_connection_broke(self, server, tmp_path):
        server.breaks = [300_000, 200_000]
        told = []
        path = tmp_path / "new" / "file"
        download(
            f"{server.url}/file",
            path,
            md5=md5(DATA),
            pause_s=0,
            progress=lambda *sizes: told.append(sizes),
        )
        assert path.read_bytes() == DATA
        assert [asked for _, asked in server.asked] == [None, "bytes=300000-", "bytes=500000-"]
        assert told[-1] == (len(DATA), len(DATA)) and not list(path.parent.glob("*.partial"))

    def test_goes_on_in_another_process_and_needs_nothing_more_if_all_is_there(
        self, server, tmp_path
    ):
        for have in (1000, len(DATA)):
            path = tmp_path / f"{have}"
            (tmp_path / f"{have}.partial").write_bytes(DATA[:have])
            download(f"{server.url}/file", path, md5=md5(DATA))
            assert path.read_bytes() == DATA
            assert server.asked[-1] == ("/file", f"bytes={have}-")

    def test_starts_anew_where_the_server_knows_no_ranges(self, server, tmp_path):
        server.ranges, server.breaks = False, [300_000]
        download(f"{server.url}/file", tmp_path / "file", md5=md5(DATA), pause_s=0)
        assert (tmp_path / "file").read_bytes() == DATA

    def test_starts_anew_where_more_is_there_than_there_is(self, server, tmp_path):
        (tmp_path / "file.partial").write_bytes(DATA + b"another file's")
        download(f"{server.url}/file", tmp_path / "file", md5=md5(DATA), pause_s=0)
        assert (tmp_path / "file").read_bytes() == DATA

    def test_a_busy_server_is_asked_again(self, server, tmp_path):
        server.statuses = [503, 503]
        download(f"{server.url}/file", tmp_path / "file", pause_s=0)
        assert len(server.asked) == 3

    def test_gives_up_without_progress_and_keeps_what_has_arrived(self, server, tmp_path):
        server.breaks = [1000, 0, 0, 0]
        with pytest.raises(DownloadError, match=r"/file: it broke off at 1000 of 1048576 bytes"):
            download(f"{server.url}/file", tmp_path / "file", attempts=3, pause_s=0)
        assert [path.name for path in tmp_path.iterdir()] == ["file.partial"]
        server.breaks = []
        download(f"{server.url}/file", tmp_path / "file", md5=md5(DATA))
        assert (tmp_path / "file").read_bytes() == DATA

    def test_gives_up_on_a_server_that_starts_anew_for_ever(self, server, tmp_path):
        server.ranges, server.breaks = False, [2000, 1000] * 20
        with pytest.raises(DownloadError, match=r"/file: it broke off at \d+ of 1048576 bytes"):
            download(f"{server.url}/file", tmp_path / "file", attempts=3, pause_s=0)
        assert len(server.asked) < 6

    def test_refusals_and_dead_servers(self, server, tmp_path):
        with pytest.raises(DownloadError, match="/none: HTTP 404"):
            download(f"{server.url}/none", tmp_path / "file", pause_s=0)
        assert len(server.asked) == 1
        server.sizes = False
        with pytest.raises(DownloadError, match="does not say which bytes it sends, of how many"):
            download(f"{server.url}/file", tmp_path / "file", pause_s=0)
        with pytest.raises(DownloadError, match=r"127\.0\.0\.1:9/file: .*refused"):
            download("http://127.0.0.1:9/file", tmp_path / "file", attempts=2, pause_s=0)
        assert not (tmp_path / "file").exists()

    def test_another_file_is_removed(self, server, tmp_path):
        with pytest.raises(ValueError, match=f"is not the official file: its MD5 is {md5(DATA)}"):
            download(f"{server.url}/file", tmp_path / "file", md5="0" * 32)
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
    def test_files_that_are_whole_are_left_and_others_done_again(self, make, tmp_path):
        archive, out = tmp_path / "archive", tmp_path / "out"
        archive.write_bytes(make({"a/1": b"one", "a/2": b"two", "3": b"three"}))
        (out / "a").mkdir(parents=True)
        (out / "a" / "1").write_bytes(b"ONE")  # of the right size: it is not looked into
        (out / "a" / "2").write_bytes(b"t")
        (out / "3.partial").write_bytes(b"th")
        extract(archive, out)
        found = {str(p.relative_to(out)): p.read_bytes() for p in out.rglob("*") if p.is_file()}
        assert found == {"a/1": b"ONE", "a/2": b"two", "3": b"three"}

    @pytest.mark.parametrize("name", ["../evil", "a/../../evil"])
    def test_nothing_is_written_outside(self, make, name, tmp_path):
        archive, out = tmp_path / "archive", tmp_path / "in" / "out"
        archive.write_bytes(make({"fine": b"1", name: b"2"}))
        with pytest.raises(ValueError, match=r"archive would write outside of .*; remove it"):
            extract(archive, out)
        assert not (tmp_path / "in" / "evil").exists() and not (tmp_path / "evil").exists()

    def test_broken_archives(self, make, tmp_path):
        archive = tmp_path / "archive"
        data = bytearray(make({"a": os.urandom(5000), "b": b"2"}))
        archive.write_bytes(data[:3000])
        with pytest.raises(ValueError, match=r"archive is (broken|neither a zip nor a tar)"):
            extract(archive, tmp_path / "out")
        assert not (tmp_path / "out" / "a").exists()
        archive.write_bytes(b"<html>")
        with pytest.raises(ValueError, match="is neither a zip nor a tar archive: remove it"):
            extract(archive, tmp_path / "out")


def test_zip_with_a_flipped_bit_leaves_no_file(tmp_path):
    data = bytearray(make_zip({"a": os.urandom(5000)}))
    data[2000] ^= 1
    (tmp_path / "archive").write_bytes(data)
    with pytest.raises(ValueError, match=r"archive is broken \(.*: remove it, and have it down"):
        extract(tmp_path / "archive", tmp_path / "out")
    assert not (tmp_path / "out" / "a").exists()


def test_links_of_a_tar_that_lead_outside(tmp_path):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as opened:
        link = tarfile.TarInfo("link")
        link.type, link.linkname = tarfile.SYMTYPE, "../../somewhere"
        opened.addfile(link)
    (tmp_path / "archive").write_bytes(out.getvalue())
    with pytest.raises(ValueError, match=r"would write outside of .* or is unsafe otherwise"):
        extract(tmp_path / "archive", tmp_path / "out")
    assert not list((tmp_path / "out").iterdir())


def coco_set():
    """Parts of a tiny COCO, and the files its server has."""
    content = {"images": [{}] * 3, "annotations": [{}] * 5, "categories": [{}] * 2}
    images = make_zip({f"val2014/{i}.jpg": b"jpeg" for i in range(3)})
    annotations = make_zip({"annotations/instances_val2014.json": json.dumps(content)})
    parts = coco_parts(
        ["val2014"],
        splits={"val2014": CocoSplit(3, 5, md5(images))},
        annotations_md5={"2014": md5(annotations)},
        num_categories=2,
    )
    return parts, {"/val2014.zip": images, "/annotations_trainval2014.zip": annotations}


def test_coco_is_completed_and_then_left_alone(server, tmp_path, capsys):
    parts, server.files = coco_set()
    server.breaks = [50]
    assert prepare(tmp_path, parts, mirror=server.url) == 0
    assert (tmp_path / "annotations" / "instances_val2014.json").is_file()
    assert len(list((tmp_path / "val2014").iterdir())) == 3
    asked = len(server.asked)
    capsys.readouterr()
    assert prepare(tmp_path, parts, mirror=server.url) == 0 and len(server.asked) == asked
    lines = capsys.readouterr().out.splitlines()
    assert "json: 3 images, 5 annotations, 2 categories" in lines[0]
    assert lines[1].startswith("images val2014: 3 of 3 images in ")
    # One image lost: the archive that is still there mends it.
    (tmp_path / "val2014" / "1.jpg").unlink()
    assert prepare(tmp_path, parts, may_download=False) == 0 and len(server.asked) == asked


def test_a_server_with_other_files_completes_nothing(server, tmp_path, capsys):
    """As many images of the right names, but other bytes."""
    parts, server.files = coco_set()
    server.files["/val2014.zip"] = make_zip({f"val2014/{i}.jpg": b"JPEG" for i in range(3)})
    assert prepare(tmp_path, parts, mirror=server.url) == 2
    wrong = md5(server.files["/val2014.zip"])
    assert f"is not the official file: its MD5 is {wrong}" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "annotations",
        "annotations_trainval2014.zip",
    ]


def test_what_is_there_but_wrong_is_said(tmp_path, capsys):
    parts, files = coco_set()
    path = tmp_path / "annotations" / "instances_val2014.json"
    path.parent.mkdir()
    path.write_text('{"images": [{}, {}], "annotations": [], "categories": [{}, {}]}')
    (tmp_path / "val2014.zip").write_bytes(files["/val2014.zip"][:-1])
    assert prepare(tmp_path, parts, may_download=False) == 2
    done = capsys.readouterr()
    assert "2 images, 0 annotations, 2 categories, [3, 5, 2] wanted" in done.out
    assert "val2014.zip is not the official file: its MD5 is" in done.err
    assert (tmp_path / "val2014.zip").exists()  # the user's
    path.write_text("[]")
    assert prepare(tmp_path, parts[:1], may_download=False) == 2
    assert "is not a COCO json of instances (TypeError" in capsys.readouterr().out


def voc_set():
    """Parts of a tiny VOC 2007, and the files its server has."""
    archives = {}
    for split, name in (("trainval", "000001"), ("test", "000002")):
        objects = "<object><difficult>1</difficult></object><object><name>a</name></object>"
        tree = {
            f"ImageSets/Main/{split}.txt": f"{name}\n".encode(),
            f"JPEGImages/{name}.jpg": b"jpeg",
            f"Annotations/{name}.xml": f"<annotation>{objects}</annotation>".encode(),
        }
        archives[split] = make_tar({f"VOCdevkit/VOC2007/{k}": v for k, v in tree.items()})
    parts = voc_parts({split: VocSplit(1, 1, md5(data)) for split, data in archives.items()})
    return parts, {f"/VOC{split}_06-Nov-2007.tar": data for split, data in archives.items()}


def test_voc_is_completed(server, tmp_path, capsys):
    parts, server.files = voc_set()
    test = server.files.pop("/VOCtest_06-Nov-2007.tar")
    assert prepare(tmp_path, parts, mirror=f"{server.url}/") == 2
    done = capsys.readouterr()
    assert "HTTP 404" in done.err and "Incomplete: VOC2007 test." in done.out
    where = tmp_path / "VOCtest_06-Nov-2007.tar"
    official = "http://host.robots.ox.ac.uk/pascal/VOC/voc2007/VOCtest_06-Nov-2007.tar"
    assert f"{official}\n    -> {where}" in done.out
    where.write_bytes(test)  # as told
    assert prepare(tmp_path, parts, may_download=False) == 0
    assert "1 images, 1 annotations, 1 objects that are not difficult" in capsys.readouterr().out
    (tmp_path / "VOCdevkit" / "VOC2007" / "Annotations" / "000002.xml").write_text("<anno")
    where.unlink()
    assert prepare(tmp_path, parts, may_download=False) == 2
    assert "can't be read" in capsys.readouterr().out


def sbd_mask(path, mask):
    """As SBD's: a MATLAB struct of masks and boundaries."""
    savemat(path, {"GTcls": {"Segmentation": mask, "Boundaries": np.zeros((20, 1))}})
    return path.read_bytes()


def voc12_set(tmp_path):
    """Parts of a tiny VOC 2012 and SBD, the files their servers have, and SBD's masks."""
    lists = {"train": "a b", "val": "c"}
    tree = {f"ImageSets/Segmentation/{name}.txt": ids.encode() for name, ids in lists.items()}
    tree |= {f"JPEGImages/{one}.jpg": b"jpeg" for one in "abcdef"}
    tree |= {f"SegmentationClass/{one}.png": b"png" for one in "abc"}
    voc = make_tar({f"VOCdevkit/VOC2012/{k}": v for k, v in tree.items()})
    generator = np.random.default_rng(0)
    masks = {one: generator.integers(0, 21, (4, 6), np.uint8) for one in "bcdef"}
    files = {
        f"cls/{one}.mat": sbd_mask(tmp_path / f"{one}.mat", mask) for one, mask in masks.items()
    }
    files |= {"train.txt": b"f\nb\nd\n", "val.txt": b"c\ne\n"}
    sbd = gzip.compress(make_tar({f"benchmark_RELEASE/dataset/{k}": v for k, v in files.items()}))
    parts = voc12_parts(MaskCounts(2, 1, 3), voc_md5=md5(voc), sbd_md5=md5(sbd))
    return parts, {"/VOCtrainval_11-May-2012.tar": voc, "/benchmark.tgz": sbd}, masks


def test_voc12_gets_the_masks_of_sbd(server, tmp_path, capsys):
    parts, server.files, masks = voc12_set(tmp_path)
    data = tmp_path / "data"
    assert prepare(data, parts, mirror=server.url) == 0
    tree = data / "VOCdevkit/VOC2012"
    assert (tree / "ImageSets/Segmentation/aug.txt").read_text().split() == ["d", "e", "f"]
    written = {path.stem: np.asarray(Image.open(path)) for path in tree.glob("*Aug/*")}
    assert written.keys() == set("def")
    assert all(np.array_equal(written[one], masks[one]) for one in written)
    assert "SBD: aug: 3 images and 3 masks" in capsys.readouterr().out
    # A lost mask, or list, is made anew from what is unpacked, without its archive.
    (data / "benchmark.tgz").unlink()
    (tree / "SegmentationClassAug/e.png").unlink()
    (tree / "ImageSets/Segmentation/aug.txt").unlink()
    assert prepare(data, parts, may_download=False) == 0
    assert "converting 1 masks" in capsys.readouterr().out
    assert prepare(data, parts, may_download=False) == 0
    assert "converting" not in capsys.readouterr().out


@pytest.mark.parametrize("bad", [b"text", np.full((4, 6), 21, np.uint8), {"other": 1}])
def test_a_mask_of_sbd_that_is_none(server, tmp_path, capsys, bad):
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
    assert re.search(r"e\.mat is not a mask of SBD \(.*: remove benchmark_RELEASE", done.err)
    assert not (data / "VOCdevkit/VOC2012/ImageSets/Segmentation/aug.txt").exists()
    assert "Incomplete: SBD." in done.out and not list(data.rglob("*.partial"))


def test_checksums_are_the_well_known_ones():
    voc12, sbd = voc12_parts()
    official = DATASET_YEAR_DICT["2012"]
    assert (voc12.url, voc12.md5) == (official["url"], official["md5"])
    assert (sbd.url, sbd.md5) == (SBDataset.url, SBDataset.md5)
    counts = MaskCounts()  # mmsegmentation's AUG_LEN, and the devkit's documentation
    assert counts.train + counts.aug == 10582 and counts.train + counts.val == 2913
    for split, year in (("trainval", "2007"), ("test", "2007-test")):
        assert VOC_SPLITS[split].md5 == DATASET_YEAR_DICT[year]["md5"]
        (part,) = voc_parts({split: VOC_SPLITS[split]})
        assert part.url == DATASET_YEAR_DICT[year]["url"]
    # The devkit's documentation: 9,963 images, 24,640 objects that are not difficult.
    assert sum(split.num_images for split in VOC_SPLITS.values()) == 9963
    assert sum(split.num_objects for split in VOC_SPLITS.values()) == 24640


def test_numbers_of_coco():
    """Checksums as in LAVIS (2014) and PaddlePaddle (2017); both years split the same images."""
    assert {name: split.md5 for name, split in COCO_SPLITS.items()} == {
        "train2014": "0da8c0bd3d6becc4dcb32757491aca88",
        "val2014": "a3d79f5ed8d289b7a7554ce06a5782b3",
        "train2017": "cced6f7f71b7629ddf16f17bbcfab6b2",
        "val2017": "442b8da7639aecaf257c1dceb8ba8c80",
    }
    assert ANNOTATIONS_MD5 == {
        "2014": "0a379cfc70b0e71301e0f377548639bd",
        "2017": "f4bbac642086de4f52a3fdda2de5fa2c",
    }
    for year in ("2014", "2017"):
        train, val = COCO_SPLITS[f"train{year}"], COCO_SPLITS[f"val{year}"]
        assert train.num_images + val.num_images == 123_287
        assert train.num_annotations + val.num_annotations == 896_782
    assert (COCO_SPLITS["val2014"].num_images, COCO_SPLITS["val2017"].num_images) == (40_504, 5_000)


@pytest.mark.parametrize(
    ("tool", "addresses"),
    [
        (
            "prepare_coco.py",
            [
                "http://images.cocodataset.org/zips/train2014.zip",
                "http://images.cocodataset.org/zips/val2014.zip",
                "http://images.cocodataset.org/annotations/annotations_trainval2014.zip",
            ],
        ),
        (
            "prepare_voc07.py",
            [
                f"http://host.robots.ox.ac.uk/pascal/VOC/voc2007/VOC{split}_06-Nov-2007.tar"
                for split in ("trainval", "test")
            ],
        ),
        (
            "prepare_voc12.py",
            [
                "http://host.robots.ox.ac.uk/pascal/VOC/voc2012/VOCtrainval_11-May-2012.tar",
                "https://www2.eecs.berkeley.edu/Research/Projects/CS/vision/grouping/"
                "semantic_contours/benchmark.tgz",
            ],
        ),
    ],
)
def test_tools_say_what_to_download(tool, addresses, tmp_path):
    command = [sys.executable, ROOT / "tools/dataset_converters" / tool, tmp_path / "data"]
    done = subprocess.run(
        [*map(str, command), "--no-download"], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 2, done.stderr
    for address in addresses:
        archive = tmp_path / "data" / address.rsplit("/", 1)[1]
        assert f"{address}\n    -> {archive}" in done.stdout
