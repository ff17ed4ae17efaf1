"""The README's first command, for real."""

import json
import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]


def quickstart(*args, **kwargs):
    env = {**os.environ, "VIRTUAL_ENV": sys.prefix}
    command = ["bash", "tools/quickstart.sh", *map(str, args)]
    return subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, **kwargs)


def test_wrong_arguments_end_before_anything_is_installed():
    done = quickstart("--images", "/nowhere/at/all")
    assert done.returncode == 2
    assert "--images /nowhere/at/all does not exist: give a folder of pictures" in done.stderr
    done = quickstart("--frobnicate")
    assert done.returncode == 2 and "unknown option --frobnicate" in done.stderr


@pytest.mark.slow
def test_on_generated_scenes(tmp_path):
    done = quickstart("--out", tmp_path, "--epochs", 1, timeout=550)
    assert done.returncode == 0, done.stdout + done.stderr
    work = tmp_path / "toy_scenes"
    trained, random = json.loads((work / "probe.json").read_text())["results"]
    for row in (trained, random):
        assert f"mAP {row['value']:5.1f}" in done.stdout
    assert "epoch 1/1" in done.stdout and "loss / ln K: s0" in done.stdout
    assert (work / "backbone.pth").is_file()
    assert cv2.imread(str(work / "views.png")) is not None


@pytest.mark.slow
def test_on_own_pictures(tmp_path):
    rng = np.random.default_rng(0)
    (tmp_path / "mine" / "sub").mkdir(parents=True)
    for i in range(70):
        picture = cv2.resize(rng.integers(0, 256, (6, 8, 3), np.uint8), (160, 120))
        cv2.imwrite(str(tmp_path / "mine" / "sub" / f"{i}.png"), picture)
    done = quickstart("--images", tmp_path / "mine", "--out", tmp_path, "--epochs", 2, timeout=550)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "no labels, no probe" in done.stdout
    (work,) = tmp_path.glob("mine-*")
    assert (work / "backbone.pth").is_file()
    assert {p.suffix for p in (tmp_path / "mine").rglob("*") if p.is_file()} == {".png"}
