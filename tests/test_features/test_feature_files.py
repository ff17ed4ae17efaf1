"""Files of features equal the network's output, whatever the format, and after a kill."""

import csv
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from mmpretrain.models import ResNet, VisionTransformer
from PIL import Image
from pretrained_files import save_resnet18
from project import ROOT
from torch.nn import functional as F

from sspyr_mm.__main__ import main
from sspyr_mm.features import FrozenEncoder, extraction, write_features
from sspyr_mm.features.extraction import CentreCrops
from sspyr_mm.files import folder_lock


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    for number in range(30):
        pixels = rng.integers(0, 256, (5, 6, 3), np.uint8)
        Image.fromarray(pixels).resize((72, 60)).save(folder / f"{number:02}, ü.png")
    return folder


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return save_resnet18(tmp_path_factory.mktemp("checkpoint") / "c.pth", width=8, seed=0)


def expected(checkpoint, images, grid=2):
    """Features of images, and of cells, from the plain network."""
    net = ResNet(depth=18, stem_channels=8, base_channels=8)
    net.eval()
    net.load_state_dict(torch.load(checkpoint, weights_only=True))
    paths = sorted(map(str, images.iterdir()))
    pixels = torch.stack([one for one in CentreCrops(paths, 64)]).float()
    mean, std = torch.tensor([123.675, 116.28, 103.53]), torch.tensor([58.395, 57.12, 57.375])
    with torch.no_grad():
        maps = net((pixels - mean[:, None, None]) / std[:, None, None])[-1]
    assert maps.shape[2:] == (2, 2)
    return paths, maps.mean((2, 3)).numpy(), maps.flatten(2).transpose(1, 2).numpy()


def read_csv(path):
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.reader(file))


def embed(checkpoint, images, out, *options):
    line = ["embed", str(checkpoint), "--images", str(images), "-o", str(out), "--size", "64", "--workers", "0"]
    return main([*line, *map(str, options)])


@pytest.fixture(scope="module")
def embedded(checkpoint, images, tmp_path_factory):
    out = tmp_path_factory.mktemp("out") / "features"
    assert embed(checkpoint, images, out, "--grid", 2, "--format", "npy", "parquet", "csv") == 0
    return out


def test_npy_holds_images_and_cells(embedded, checkpoint, images):
    paths, whole, cells = expected(checkpoint, images)
    found = np.load(embedded / "images.npy", mmap_mode="r")
    assert found.dtype == np.float32 and np.allclose(found, whole, atol=1e-5)
    found = np.load(embedded / "cells.npy")
    assert found.dtype == np.float16 and np.allclose(found, cells, rtol=2e-3, atol=1e-4)
    rows = read_csv(embedded / "paths.csv")
    assert rows == [["row", "path"], *([str(n), path] for n, path in enumerate(paths))]
    about = json.loads((embedded / "about.json").read_text())
    assert (about["num_images"], about["size"], about["grid"]) == (30, 64, 2)
    assert not (embedded / "parts").exists()


def test_parquet_and_csv_hold_the_same(embedded, checkpoint, images):
    parquet = pytest.importorskip("pyarrow.parquet")
    paths, whole, cells = expected(checkpoint, images)
    table = parquet.read_table(embedded / "features.parquet").to_pydict()
    assert table["path"] == paths
    assert np.allclose(table["image"], whole, atol=1e-5)
    assert np.allclose(np.reshape(table["cells"], cells.shape), cells, atol=1e-5)
    rows = read_csv(embedded / "features.csv")
    assert rows[0][:3] == ["path", "cell", "f0"] and len(rows) == 1 + 30 * 5
    assert [row[1] for row in rows[1:6]] == ["", "0", "1", "2", "3"] and rows[6][0] == paths[1]
    assert np.allclose(np.array(rows[1 + 5 * 7][2:], float), whole[7], rtol=1e-5, atol=1e-6)
    assert np.allclose(np.array(rows[4 + 5 * 7][2:], float), cells[7, 2], rtol=1e-5, atol=1e-6)


def test_finished_features_are_not_computed_again(embedded, checkpoint, images, capsys):
    before = (embedded / "images.npy").stat().st_mtime_ns
    assert embed(checkpoint, images, embedded, "--grid", 2) == 0
    assert (embedded / "images.npy").stat().st_mtime_ns == before
    assert embed(checkpoint, images, embedded, "--grid", 1) == 2
    assert "with another grid: give another folder" in capsys.readouterr().err


def test_refused_call_leaves_the_folder_usable(checkpoint, images, tmp_path, capsys):
    def refused(network, *options):
        assert embed(network, images, tmp_path / "out", *options) == 2
        return capsys.readouterr().err

    vectors = FrozenEncoder(VisionTransformer("deit-tiny"), (0, 0, 0), (1, 1, 1), identity="x", grid=2)
    with pytest.raises(ValueError, match=r"VisionTransformer returns \(1, 192\): omit --grid"):
        write_features(vectors, [], tmp_path / "out", size=224, formats=["npy"], source={})
    assert "that of 64 pixels is 2 x 2: use --grid 2, or --size 128" in refused(checkpoint, "--grid", 4)
    assert not (tmp_path / "out").exists()
    broken = images / "broken.png"
    broken.write_bytes(b"no image")
    try:
        assert "broken.png: not an image" in refused(checkpoint)
    finally:
        broken.unlink()
    assert list((tmp_path / "out/parts").iterdir())
    with folder_lock(tmp_path / "out"):
        assert re.search(r"Another command \(process \d+ .*\) writes to .*out: wait for it", refused(checkpoint))
    assert embed(checkpoint, images, tmp_path / "out") == 0
    assert not (tmp_path / "out/parts").exists()  # of both calls


def test_broken_images_are_named_together_and_other_parts_are_kept(checkpoint, images, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(extraction, "SHARD", 10)
    folder = tmp_path / "images"
    shutil.copytree(images, folder)
    intact = {name: (folder / name).read_bytes() for name in ("00, ü.png", "25, ü.png")}
    for name in intact:
        (folder / name).write_bytes(b"")
    assert embed(checkpoint, folder, tmp_path / "out") == 2
    message = capsys.readouterr().err
    assert all(f"{name}: an empty file" in message for name in intact)
    (kept,) = (tmp_path / "out/parts").glob("*/*.npy")
    for name, content in intact.items():
        (folder / name).write_bytes(content)
    written = []
    save = extraction.Shard.save
    monkeypatch.setattr(extraction.Shard, "save", lambda self, x: (written.append(self.file), save(self, x)))
    assert embed(checkpoint, folder, tmp_path / "out") == 0
    assert len(written) == 2 and kept not in written
    assert np.allclose(np.load(tmp_path / "out/images.npy"), expected(checkpoint, images)[1], atol=1e-5)


def test_parts_left_by_a_kill_are_removed(checkpoint, images, tmp_path):
    assert embed(checkpoint, images, tmp_path) == 0
    left = tmp_path / "parts" / ("0" * 32) / "about.json"
    left.parent.mkdir(parents=True)
    left.write_text("{}")
    partial = tmp_path / "features.csv.host.1.0123abcd.partial"
    partial.write_text("")
    os.utime(partial, (0, 0))
    assert embed(checkpoint, images, tmp_path, "--format", "csv") == 0
    assert not (tmp_path / "parts").exists() and not partial.exists()


def test_another_part_of_the_same_file_is_another_network(images, tmp_path, capsys):
    one, other = (ResNet(depth=18, stem_channels=8, base_channels=8).state_dict() for _ in range(2))
    both = {**{f"encoder_q.{k}": v for k, v in one.items()}, **{f"encoder_k.{k}": v for k, v in other.items()}}
    torch.save({"state_dict": both}, tmp_path / "both.pth")
    line = tmp_path / "both.pth", images, tmp_path / "out", "--prefix"
    assert embed(*line, "encoder_q.") == 0
    assert embed(*line, "encoder_k.") == 2
    assert "with another encoder: give another folder" in capsys.readouterr().err
    pytest.importorskip("faiss")
    image = str(next(images.iterdir()))
    assert main(["search", str(tmp_path / "out"), image, "--prefix", "encoder_k."]) == 2
    assert "are of another network than that of" in capsys.readouterr().err
    assert main(["search", str(tmp_path / "out"), image, "--prefix", "encoder_q."]) == 0


def test_files_of_others_stay(checkpoint, images, tmp_path, capsys):
    own = tmp_path / "a" / "parts" / "mine.txt"
    own.parent.mkdir(parents=True)
    own.write_text("mine")
    assert embed(checkpoint, images, tmp_path / "a") == 0 and own.read_text() == "mine"
    np.save(tmp_path / "images.npy", np.zeros(3))
    assert embed(checkpoint, images, tmp_path) == 2
    assert "holds images.npy of another program: give another folder" in capsys.readouterr().err
    assert np.load(tmp_path / "images.npy").shape == (3,)


def test_killed_command_continues_to_the_same_files(embedded, checkpoint, images, tmp_path, monkeypatch):
    monkeypatch.setattr(extraction, "SHARD", 4)  # has no effect on results
    code = (
        "import sys, time; from sspyr_mm.features import extraction as e; e.SHARD = 4; e.BATCH = 4\n"
        "save = e.Shard.save\n"
        "def slow(self, x): save(self, x); time.sleep(0.4)\n"
        "e.Shard.save = slow\n"
        "from sspyr_mm.__main__ import main; sys.exit(main(sys.argv[1:]))"
    )
    line = ["embed", checkpoint, "--images", images, "-o", tmp_path / "x", "--size", 64, "--workers", 0, "--grid", 2]
    process = subprocess.Popen([sys.executable, "-c", code, *map(str, line)], cwd=ROOT)
    give_up = time.monotonic() + 120
    while len(list(tmp_path.glob("x/parts/*/*.npy"))) < 3:
        assert process.poll() is None and time.monotonic() < give_up
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    kept = {file: file.stat().st_mtime_ns for file in tmp_path.glob("x/parts/*/*.npy")}
    assert 3 <= len(kept) < 8 and not (tmp_path / "x/images.npy").exists()
    written = []
    save = extraction.Shard.save
    monkeypatch.setattr(extraction.Shard, "save", lambda self, x: (written.append(self.file), save(self, x)))
    assert embed(checkpoint, images, tmp_path / "x", "--grid", 2) == 0
    assert not set(written) & set(kept) and len(written) + len(kept) == 8
    for name in ("images.npy", "cells.npy", "paths.csv"):
        assert (tmp_path / "x" / name).read_bytes() == (embedded / name).read_bytes(), name


def test_nearest_images_and_cells_are_those_of_brute_force(embedded, checkpoint, images, capsys):
    pytest.importorskip("faiss")
    paths, whole, cells = expected(checkpoint, images)
    assert main(["search", str(embedded), paths[3], "-k", "4"]) == 0
    lines = [line.split("  ") for line in capsys.readouterr().out.splitlines()]
    unit = F.normalize(torch.from_numpy(whole).double(), dim=1)
    cosines, order = (unit @ unit[3]).topk(4)
    assert [line[1] for line in lines] == [paths[i] for i in order.tolist()] and lines[0][1] == paths[3]
    assert [float(line[0]) for line in lines] == pytest.approx(cosines.tolist(), abs=2e-4)

    assert main(["search", str(embedded), paths[3], "-k", "5", "--cell", "1", "0"]) == 0
    lines = [line.split("  ") for line in capsys.readouterr().out.splitlines()]
    unit = F.normalize(torch.from_numpy(cells).double(), dim=2).flatten(0, 1)
    cosines, order = (unit @ unit[3 * 4 + 2]).topk(5)
    assert [float(line[0]) for line in lines] == pytest.approx(cosines.tolist(), abs=1e-3)
    assert lines[0][1:] == [paths[3], "cell 1 0"]
    assert {(line[1], line[2]) for line in lines} == {
        (paths[i // 4], f"cell {i % 4 // 2} {i % 2}") for i in order.tolist()
    }


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--cell", "0", "2"], "--cell 0 2 is not in the grid"),
        (["--checkpoint", "{other}"], "are of another network than that of"),
    ],
)
def test_wrong_search_is_reported(options, message, embedded, checkpoint, images, tmp_path, capsys):
    other = tmp_path / "other.pth"
    content = torch.load(checkpoint, weights_only=True)
    content["conv1.weight"] += 1
    torch.save(content, other)
    image = str(next(images.iterdir()))
    assert main(["search", str(embedded), image, *(option.format(other=other) for option in options)]) == 2
    assert message in capsys.readouterr().err
    assert main(["search", str(tmp_path), image]) == 2
    assert "holds no features of `python -m sspyr_mm embed`" in capsys.readouterr().err


@pytest.mark.parametrize("damage", ["[1]", "{}", '{"size": "1"}', "[" * 100000, "\ud800"])
def test_damaged_description_is_reported(damage, embedded, images, tmp_path, capsys):
    about = json.loads((embedded / "about.json").read_text())
    text = json.dumps(about | {"size": "64"}) if damage.startswith('{"') else damage
    (tmp_path / "about.json").write_text(text, errors="surrogatepass")
    assert main(["search", str(tmp_path), str(next(images.iterdir()))]) == 2
    assert "holds no features of `python -m sspyr_mm embed`" in capsys.readouterr().err


def test_features_without_cells_are_not_searched_by_cell(checkpoint, images, tmp_path, capsys):
    pytest.importorskip("faiss")
    assert embed(checkpoint, images, tmp_path) == 0
    assert main(["search", str(tmp_path), str(next(images.iterdir())), "--cell", "0", "0"]) == 2
    assert "holds no cells: run `python -m sspyr_mm embed` with --grid" in capsys.readouterr().err


def test_names_that_are_not_utf_8_are_printed(checkpoint, tmp_path):
    pytest.importorskip("faiss")
    folder = os.fsencode(tmp_path) + b"/images"
    os.mkdir(folder)
    for name in (b"a\xff.png", b"b.png"):
        Image.new("RGB", (70, 70), (len(name) * 20, 30, 40)).save(folder + b"/" + name)
    assert embed(checkpoint, os.fsdecode(folder), tmp_path / "out") == 0
    command = [sys.executable, "-m", "sspyr_mm", "search", tmp_path / "out", folder + b"/b.png"]
    done = subprocess.run(
        command, capture_output=True, env={**os.environ, "PYTHONIOENCODING": "utf-8:strict"}, cwd=ROOT
    )
    assert done.returncode == 0 and b"a\\udcff.png" in done.stdout, done.stderr


def test_missing_image_and_damaged_features_are_reported(embedded, images, tmp_path, capsys):
    pytest.importorskip("faiss")
    image = str(next(images.iterdir()))

    def refused(folder, file=image):
        assert main(["search", str(folder), file]) == 2
        return capsys.readouterr().err

    assert "no.png does not exist or is not a file: give an image" in refused(embedded, "no.png")
    out = tmp_path / "out"
    shutil.copytree(embedded, out)
    rows = (out / "paths.csv").read_bytes().splitlines(keepends=True)
    (out / "paths.csv").write_bytes(b"".join(rows[:5]))
    assert "is damaged (30 and 4 rows, not 30): remove it, and run the same embed again" in refused(out)
    (out / "paths.csv").unlink()
    assert "paths.csv is missing or damaged" in refused(out)
    (out / "paths.csv").write_bytes(b"".join(rows))
    content = (out / "images.npy").read_bytes()
    for size in (0, 5, 1000):
        (out / "images.npy").write_bytes(content[:size])
        assert re.search(r"images\.npy or paths\.csv is damaged \(", refused(out))
