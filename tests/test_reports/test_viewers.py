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
from atlas_of_colours import measure_maps
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
        for _ in range(1200):
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
