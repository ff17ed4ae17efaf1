"""The README's first command, for real."""

import json
import os
import shlex
import shutil
import subprocess
import sys

import cv2
import numpy as np
import pytest
from commands import run
from project import ROOT

CONFIG = ROOT / "configs/ssprl/r18_quickstart.py"


def quickstart(*args, **kwargs):
    env = {**os.environ, "VIRTUAL_ENV": sys.prefix}
    command = ["bash", "tools/quickstart.sh", *map(str, args)]
    return subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, **kwargs)


def test_wrong_arguments_are_reported_before_anything_is_installed():
    done = quickstart("--images", "/nowhere/at/all")
    assert done.returncode == 2
    assert "--images /nowhere/at/all does not exist: give a folder of images" in done.stderr
    done = quickstart("--frobnicate")
    assert done.returncode == 2 and "unknown option --frobnicate" in done.stderr


def images(folder, count):
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for i in range(count):
        picture = cv2.resize(rng.integers(0, 256, (6, 8, 3), np.uint8), (160, 120))
        cv2.imwrite(str(folder / f"{i}.png"), picture)


@pytest.fixture
def copy(tmp_path):
    """Runs a copy of the script whose environment is this one; `python` is what it finds there."""
    repo = tmp_path / "repo"
    for name in ("tools", "configs"):
        shutil.copytree(ROOT / name, repo / name)
    (repo / "sspyr_mm").symlink_to(ROOT / "sspyr_mm")
    bin_ = tmp_path / "bin"
    bin_.mkdir()
    # As on macOS, where it knows no -m.
    (bin_ / "realpath").write_text("#!/bin/sh\necho illegal option >&2; exit 1\n")
    (bin_ / "realpath").chmod(0o755)

    def run(*args, python=f'exec "{sys.executable}" "$@"'):
        (bin_ / "python").write_text(f"#!/bin/bash\n{python}\n")
        (bin_ / "python").chmod(0o755)
        (repo / "tools/setup_env.sh").write_text(f'[[ $1 == --no-ops ]] || echo "{bin_}/python"\n')
        env = {**os.environ, "PATH": f"{bin_}:{os.environ['PATH']}"}
        command = ["bash", str(repo / "tools/quickstart.sh"), *map(str, args)]
        return subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True)

    return run


def test_too_few_images(tmp_path, copy):
    images(tmp_path / "mine", 7)
    done = copy("--images", "mine")
    assert done.returncode == 1
    assert f"--images {tmp_path}/mine has 7 images; at least 8 are needed" in done.stderr
    assert "Traceback" not in done.stderr


def choose_batch(folder):
    """Runs the program inside the script that counts the images, in this process."""
    program = folder.parent / "program.py"
    after = (ROOT / "tools/quickstart.sh").read_text().split("<<'PY'")[1]
    program.write_text(after.split("\nPY\n")[0].partition("\n")[2])
    return run(program, folder, CONFIG, check=False)


def test_batch_is_at_most_that_of_the_config(tmp_path):
    images(tmp_path / "mine", 70)
    assert choose_batch(tmp_path / "mine").stdout.splitlines()[-1] == "64"


def test_folder_without_images_is_reported(tmp_path):
    (tmp_path / "none").mkdir()
    done = choose_batch(tmp_path / "none")
    assert done.returncode == 1 and f"quickstart: No images in {tmp_path}/none" in done.stderr
    assert "Traceback" not in done.stderr


# Instead of training: what it was asked to do.
SAY = f'if [[ $1 == - ]]; then exec "{sys.executable}" "$@"; else echo "CALL $*"; exit 130; fi'


def test_few_images_make_smaller_batches(tmp_path, copy):
    images(tmp_path / "mine/sub", 15)
    done = copy("--images", "mine/", "--out", "new/out", "--epochs", 3, python=SAY)
    (call,) = [line for line in done.stdout.splitlines() if line.startswith("CALL")]
    assert f"--data-root {tmp_path}/mine --work-dir {tmp_path}/new/out/mine-" in call
    assert call.endswith("--cfg-options train_dataloader.batch_size=8 train_cfg.max_epochs=3")
    assert done.returncode == 130
    assert "quickstart: stopped; run the same command again to resume" in done.stdout


def test_interrupt_during_toy_scenes_is_reported(tmp_path, copy):
    done = copy("--out", "here", python=SAY)
    assert done.returncode == 130
    assert f"toy-scenes {tmp_path}/here/toy_scenes/data" in done.stdout
    assert done.stdout.endswith("quickstart: stopped; run the same command again to resume\n")


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
def test_on_own_images(tmp_path):
    images(tmp_path / "mine" / "sub", 12)
    done = quickstart("--images", tmp_path / "mine", "--out", tmp_path, "--epochs", 2, timeout=550)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "no labels, so no probe" in done.stdout
    (work,) = tmp_path.glob("mine-*")
    assert (work / "backbone.pth").is_file()
    line = done.stdout.splitlines()[-1].removeprefix("To see what its prototypes have learned: ")
    subprocess.run(shlex.split(line), cwd=ROOT, check=True, timeout=550)
    assert (work / "atlas/index.html").is_file()
    assert {p.suffix for p in (tmp_path / "mine").rglob("*") if p.is_file()} == {".png"}
