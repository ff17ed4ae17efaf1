"""The benchmark of the loader's workers compares the same views, and runs."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from sspyr_mm.pyramid import PyramidSpec

SCRIPT = Path(__file__).parents[2] / "tools/benchmarks/worker_cost.py"
PYRAMID = dict(
    s0=dict(region=32, patch=32, num_prototypes=3, alpha=1.0, area=(0.14, 1.0)),
    s1=dict(region=45, grid=2, patch=16, num_prototypes=3, alpha=0.25, beta=0.25),
    s2=dict(region=50, grid=3, patch=12, num_prototypes=3, alpha=0.25, beta=0.25),
)


@pytest.fixture(scope="module")
def worker_cost():
    spec = importlib.util.spec_from_file_location("worker_cost", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    threads = torch.get_num_threads()
    spec.loader.exec_module(module)
    yield module
    torch.set_num_threads(threads)


def test_both_pipelines_make_the_same_views(worker_cost, tmp_path):
    path = str(tmp_path / "ramp.png")
    image = np.zeros((100, 100, 3), np.uint8)
    image[..., 0] = np.arange(100) * 2
    Image.fromarray(image).save(path)
    spec = PyramidSpec.from_config(PYRAMID)
    plain = worker_cost.PlainPipeline(spec)
    patches = plain(path)
    assert [p.shape[-1] for p in patches] == [32] * 2 + [16] * 8 + [12] * 18  # 28 patches
    assert all(p.shape == (3, p.shape[-1], p.shape[-1]) for p in patches)
    ours = worker_cost.Ours(spec)(path)["inputs"]
    assert {k: tuple(v.shape) for k, v in ours.items() if k != "seed"} == dict(
        s0=(2, 32, 32, 3), s1=(1, 45, 45, 3), s2=(1, 50, 50, 3)
    )
    # Without colours and flips: patch m of both views comes from the same cell, left of the next one's.
    plain.jitter = plain.gray = plain.flip = lambda patch: patch
    red = [float(p[0].mean()) for p in plain(path)[2:10]]
    assert max(red[0::2]) < min(red[1::2])


def test_median_and_interleaving(worker_cost, monkeypatch):
    calls, clock = [], iter([0, 1, 1, 3, 3, 9, 0, 4, 4, 9, 9, 11, *range(100)])
    monkeypatch.setattr(worker_cost.time, "process_time", lambda: next(clock))
    pipelines = {name: lambda path, name=name: calls.append(path + name) for name in "ab"}
    medians = worker_cost.measure(pipelines, ["x", "y", "z"], block=3)
    assert calls == ["xa", "xa", "ya", "za", "xb", "xb", "yb", "zb"]
    assert medians == dict(a=2000, b=4000)
    calls.clear()
    worker_cost.measure(pipelines, ["x", "y", "z"], block=2)
    assert calls == ["xa", "xa", "ya", "xb", "xb", "yb", "za", "za", "zb", "zb"]


def test_it_prints_a_table_and_json(worker_cost, capsys):
    worker_cost.main(["--num-images", "2"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "2 images, median CPU time of one core per image"
    assert [line.split()[0] for line in lines[2:]] == ["decode", "ours", "plain"]
    worker_cost.main(["--num-images", "2", "--json"])
    found = json.loads(capsys.readouterr().out)
    assert found["num_images"] == 2
    assert found["plain_over_ours"] == found["ms"]["plain"] / found["ms"]["ours"]


def test_images_of_ones_own(worker_cost, tmp_path, capsys):
    for index, size in enumerate([(64, 48), (48, 64), (50, 50)]):
        Image.fromarray(np.full((*size, 3), 99, np.uint8)).save(tmp_path / f"{index}.jpg")
    worker_cost.main(["--images", str(tmp_path), "--size", "64x48", "--json"])
    assert json.loads(capsys.readouterr().out)["num_images"] == 2
    with pytest.raises(SystemExit, match=r"No image of 9x9 in .*: leave --size out"):
        worker_cost.main(["--images", str(tmp_path), "--size", "9x9"])
