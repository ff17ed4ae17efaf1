"""Maps of an atlas in other programs: the files that they read, and the programs themselves."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import urllib.parse
import urllib.request

import numpy as np
import pytest
from atlas_of_colours import COLOURS, make_maps, measure_maps
from PIL import Image, ImageOps
from project import ROOT
from pyarrow import parquet

from sspyr_mm.__main__ import main
from sspyr_mm.reports.atlas.atlas_files import write_table
from sspyr_mm.reports.atlas.viewers import VIEWERS


@pytest.fixture(scope="module")
def atlas(checkpoint, atlas_of_colours, tmp_path_factory):
    """Folder with a table, scales, and maps of a part of their cells."""
    _, paths, _, _ = atlas_of_colours
    _, found, maps = measure_maps(checkpoint, paths, 30)
    out = tmp_path_factory.mktemp("atlas")
    write_table(out / "atlas.parquet", found, paths, maps)
    return out, found, maps


def get(address):
    with urllib.request.urlopen(address, timeout=20) as answer:
        return answer.read()


def wait_for_server(address, process):
    for _ in range(600):
        assert process.poll() is None
        try:
            return get(address)
        except OSError:
            time.sleep(0.1)
    raise TimeoutError(address)


def test_table_of_embedding_atlas_has_the_cells_of_the_maps_and_their_neighbours(atlas):
    _, scales, maps = atlas
    command = VIEWERS["embedding-atlas"].write(*atlas)
    rows = parquet.read_table(command[1]).to_pylist()
    assert len(rows) == sum(len(part.mapped) for part in scales) and len(scales[1].mapped) < len(scales[1].prototype)
    assert len({len(row["neighbours"]["ids"]) for row in rows}) == 1  # as the program expects
    start = 0
    for number, part in enumerate(scales):
        found = rows[start : start + len(part.mapped)]
        assert [row["prototype"] for row in found] == [f"{part.scale} {p}" for p in part.prototype[part.mapped]]
        assert np.allclose([row["x"] - 2.5 * number for row in found], maps[part.scale].place[:, 0], atol=1e-5)
        cosine = part.embedding @ part.embedding.T - 2 * np.eye(len(found))
        for row, similar in zip(found, cosine, strict=True):
            near = row["neighbours"]
            assert np.allclose(1 - similar[np.array(near["ids"]) - start], near["distances"], atol=1e-5)
            assert np.allclose(near["distances"], np.sort(1 - similar)[: len(near["ids"])], atol=1e-5)
            assert row["thumbnail"]["bytes"].startswith(b"\xff\xd8")  # JPEG
        start += len(found)


@pytest.fixture(scope="module")
def file_of_fiftyone(atlas_of_colours, tmp_path_factory):
    """File of the map of scale s1, on which cell 3 of image 4 has prototype 3 alone."""
    scales, paths, _, colours = atlas_of_colours
    out = tmp_path_factory.mktemp("fiftyone")
    maps = make_maps(colours)
    write_table(out / "atlas.parquet", scales, paths, maps)
    return VIEWERS["fiftyone"].write(out, scales, maps)[-1], maps["s1"]


def check_cells(images, points, atlas_of_colours):
    """``images`` are cells by file, each of box (left, top, right, bottom) and prototype."""
    _, paths, _, colours = atlas_of_colours
    assert list(images) == paths[:9]
    for path, row in zip(paths[:9], colours[:9], strict=True):
        assert [prototype for _, prototype in images[path]] == row.tolist()
        image = ImageOps.exif_transpose(Image.open(path))
        for box, prototype in images[path]:
            left, top, right, bottom = np.rint(box).astype(int).tolist()
            assert image.getpixel((left, top)) == image.getpixel((right - 1, bottom - 1)) == COLOURS[prototype]
    assert np.allclose(points, make_maps(colours)["s1"].place, atol=1e-6)


def test_file_of_fiftyone_has_the_cells_of_the_map_by_image(file_of_fiftyone, atlas_of_colours):
    with open(file_of_fiftyone[0]) as file:
        images = json.load(file)["images"]
    assert all(list(scales) == ["s1"] for scales in images.values())  # s0 has no map
    cells = {path: [(cell["box"], cell["prototype"]) for cell in scales["s1"]] for path, scales in images.items()}
    check_cells(cells, [cell["place"] for scales in images.values() for cell in scales["s1"]], atlas_of_colours)
    assert images[atlas_of_colours[1][4]]["s1"][3]["score"] == pytest.approx(0.9 - 0.4 * 19 / 39)


def test_missing_image_is_reported(atlas_of_colours, tmp_path):
    scales, paths, _, colours = atlas_of_colours
    write_table(tmp_path / "atlas.parquet", scales, paths, make_maps(colours))
    table = parquet.read_table(tmp_path / "atlas.parquet")
    names = ["/no/such.png" if name == paths[0] else name for name in table["image"].to_pylist()]
    parquet.write_table(table.set_column(0, "image", [names]), tmp_path / "atlas.parquet")
    with pytest.raises(ValueError, match=r"needs image files, and /no/such\.png"):
        VIEWERS["fiftyone"].write(tmp_path, scales, {})
    assert not (tmp_path / "fiftyone.json").exists()


@pytest.mark.slow
@pytest.mark.skipif(not VIEWERS["fiftyone"].is_installed(), reason="FiftyOne is not installed")
def test_fiftyone_has_the_cells_and_the_map(file_of_fiftyone, atlas_of_colours):
    """In the environment of FiftyOne, with its database."""
    code = """
import json, sys
sys.path.insert(0, sys.argv[1])
from fiftyone_app import make_dataset
with open(sys.argv[2]) as file:
    dataset = make_dataset("test of sspyr_mm", json.load(file)["images"])
cells = {one.filepath: [(cell.bounding_box, cell.label) for cell in one.s1.detections] for one in dataset}
result = dataset.load_brain_results("map_s1")
ids = [cell.id for one in dataset for cell in one.s1.detections]
place = dict(zip(result.label_ids, result.points.tolist()))
json.dump([cells, [place[one] for one in ids]], open(sys.argv[3], "w"))
dataset.delete()
"""
    file, _ = file_of_fiftyone
    python, script, _ = VIEWERS["fiftyone"].write(os.path.dirname(file), *atlas_of_colours[:1], {})
    out = os.path.join(os.path.dirname(file), "found.json")
    subprocess.run([python, "-c", code, os.path.dirname(script), file, out], check=True, timeout=400)
    with open(out) as found:
        cells, points = json.load(found)
    cells = {
        path: [([80 * x, 60 * y, 80 * (x + w), 60 * (y + h)], int(label)) for (x, y, w, h), label in found]
        for path, found in cells.items()
    }
    check_cells(cells, points, atlas_of_colours)


def test_tensorboard_shows_the_embeddings(atlas):
    _, scales, _ = atlas
    for _ in range(2):  # a second call replaces the files
        command = VIEWERS["tensorboard"].write(*atlas)
    address = "http://127.0.0.1:16123"
    with subprocess.Popen([*command, "--host", "127.0.0.1", "--port", "16123"]) as process:
        try:
            wait_for_server(address, process)
            base = f"{address}/data/plugin/projector"
            (run,) = json.loads(get(f"{base}/runs"))
            tensors = json.loads(get(f"{base}/info?run={urllib.parse.quote(run)}"))["embeddings"]
            assert [one["tensorName"].split(":")[0] for one in tensors] == [part.scale for part in scales]
            for part, one in zip(scales, tensors, strict=True):
                query = urllib.parse.urlencode({"run": run, "name": one["tensorName"]})
                values = np.frombuffer(get(f"{base}/tensor?{query}"), np.float32)
                assert np.allclose(values.reshape(len(part.mapped), -1), part.embedding, atol=1e-5)
                labels = get(f"{base}/metadata?{query}").decode().splitlines()[1:]
                assert [int(line.split("\t")[0]) for line in labels] == part.prototype[part.mapped].tolist()
                assert get(f"{base}/sprite_image?{query}").startswith(b"\x89PNG")
        finally:
            process.terminate()


def test_folder_of_another_program_is_kept(atlas, tmp_path):
    out, scales, maps = atlas
    shutil.copy(out / "atlas.parquet", tmp_path)
    (tmp_path / "tensorboard").mkdir()
    (tmp_path / "tensorboard/mine").touch()
    with pytest.raises(ValueError, match="is not of an atlas"):
        VIEWERS["tensorboard"].write(tmp_path, scales, maps)
    assert (tmp_path / "tensorboard/mine").exists()


def test_missing_program_is_reported_before_anything_is_computed(
    checkpoint, atlas_of_colours, tmp_path, capsys, monkeypatch
):
    monkeypatch.setenv("PATH", "")
    images = os.path.dirname(atlas_of_colours[1][0])
    arguments = ["atlas", str(checkpoint), "--images", images, "-o", str(tmp_path / "out"), "--open", "embedding-atlas"]
    assert main(arguments) == 2
    assert "pipx install embedding-atlas" in capsys.readouterr().err and not (tmp_path / "out").exists()
    assert main([*arguments, "--points", "0"]) == 2
    assert "--points 0" in capsys.readouterr().err


def test_option_names_every_program(capsys):
    with pytest.raises(SystemExit):
        main(["atlas", "--help"])
    assert f"{{{','.join(VIEWERS)}}}" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        pytest.param(
            "embedding-atlas",
            marks=pytest.mark.skipif(
                shutil.which("embedding-atlas") is None, reason="embedding-atlas is not installed"
            ),
        ),
        pytest.param(
            "fiftyone",
            marks=pytest.mark.skipif(not VIEWERS["fiftyone"].is_installed(), reason="FiftyOne is not installed"),
        ),
        "tensorboard",
    ],
)
def test_command_opens_the_program(name, checkpoint, atlas_of_colours, tmp_path):
    images = os.path.dirname(atlas_of_colours[1][0])
    command = [sys.executable, "-m", "sspyr_mm", "atlas", str(checkpoint), "--images", images, "-o", str(tmp_path)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
    log = tmp_path / "log"
    with open(log, "w") as file:
        process = subprocess.Popen(
            [*command, "--open", name], stdout=file, stderr=subprocess.STDOUT, env=environment, start_new_session=True
        )
    try:
        for _ in range(3000):
            if found := re.search(r"http://[\w.]+:\d+", log.read_text()):
                break
            assert process.poll() is None, log.read_text()
            time.sleep(0.1)
        assert b"<html" in wait_for_server(found[0], process).lower()
        os.killpg(process.pid, signal.SIGINT)
        assert process.wait(20) == 0
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
