"""Commands on a checkpoint that tools/train.py has saved."""

import errno
import json
import signal
import subprocess
import sys
import time

import pytest
import torch
from commands import run
from mmpretrain.registry import MODELS
from PIL import Image
from project import ROOT

from sspyr_mm.__main__ import main
from sspyr_mm.checkpoints import load_pretraining


def test_help_lists_every_command_without_importing_the_stack():
    code = (
        "import sys, runpy; sys.argv = ['-m', '--help']\n"
        "try: runpy.run_module('sspyr_mm', run_name='__main__', alter_sys=False)\n"
        "except SystemExit: pass\n"
        "print('HEAVY', sorted({'torch', 'mmengine', 'mmpretrain'} & set(sys.modules)))"
    )
    done = run("-c", code)
    for command in ("doctor", "toy-scenes", "export", "inspect", "health", "probe"):
        assert command in done.stdout
    assert "HEAVY []" in done.stdout


def test_interrupt_ends_any_command_with_a_line(tmp_path, monkeypatch, capsys):
    def interrupt(*args, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr("sspyr_mm.checkpoints.inspect_checkpoint", interrupt)
    assert main(["inspect", "checkpoint.pth"]) == 130
    assert capsys.readouterr().err.endswith(" inspect: interrupted; run the same command again\n")


def test_full_disk_is_reported_with_what_to_do(monkeypatch, capsys):
    def fill(_):
        raise OSError(errno.ENOSPC, "No space left on device", "x.npy")

    monkeypatch.setattr("sspyr_mm.cli.doctor.run", fill)
    assert main(["doctor"]) == 2
    assert (
        "No space left on device: 'x.npy': free disk space, and run the same command again" in capsys.readouterr().err
    )


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_to_a_command_leaves_nothing_unfinished(tmp_path, number):
    command = ["-m", "sspyr_mm", "toy-scenes", tmp_path / "scenes", "--num-train", "40000", "--workers", "2"]
    process = subprocess.Popen([sys.executable, *command], cwd=ROOT, stderr=subprocess.PIPE, text=True)
    while not any(tmp_path.glob(".scenes.*/train2017/*")):
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.1)
    process.send_signal(number)
    said = process.communicate(timeout=60)[1]
    assert process.returncode == 130 and "Traceback" not in said, said
    assert said.endswith(" toy-scenes: interrupted; run the same command again\n")
    assert not list(tmp_path.iterdir())


def test_imports_print_nothing_to_stdout(tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    assert run("-c", "import sspyr_mm").stdout == ""
    done = run("-m", "sspyr_mm", "doctor", "--quick", "--json", "--data", tmp_path)
    assert json.loads(done.stdout)["ready"]


def test_probe_prints_and_writes_both_networks(checkpoint, scenes, tmp_path):
    annotations = scenes / "annotations"
    out = tmp_path / "probe.json"
    done = run(
        *("-m", "sspyr_mm", "probe", checkpoint, "--json", out),
        *("--train", annotations / "instances_train2017.json"),
        *("--val", annotations / "instances_val2017.json"),
    )
    figures = json.loads(out.read_text())
    assert (figures["train"], figures["val"]) == (48, 24)
    trained, random = figures["results"]
    assert trained["network"] == str(checkpoint) and "random" in random["network"]
    for row in (trained, random):
        assert row["size"] == 64 and row["metric"] == "mAP" and 5 < row["value"] < 100
        assert f"mAP {row['value']:5.1f}  {row['network']}" in done.stdout
    assert trained["value"] != random["value"]


def test_probe_of_a_voc_tree_by_splits(checkpoint, scenes):
    done = run(
        *("-m", "sspyr_mm", "probe", checkpoint, "--no-random"),
        *("--train", scenes, "--train-split", "trainval", "--test", scenes, "--test-split", "test"),
    )
    lines = [line for line in done.stdout.splitlines() if line.startswith("mAP")]
    assert len(lines) == 1 and lines[0].endswith(str(checkpoint))
    assert 5 < float(lines[0].split()[1]) < 100


def test_probe_rejects_sets_with_different_classes(checkpoint, scenes, tmp_path):
    for name in ("a/1.jpg", "b/1.jpg"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).symlink_to(next((scenes / "val2017").iterdir()))
    done = run(
        *("-m", "sspyr_mm", "probe", checkpoint, "--train", tmp_path),
        *("--val", scenes / "annotations" / "instances_val2017.json"),
        check=False,
    )
    assert done.returncode != 0
    assert "--val has 12 classes that --train lacks: " in done.stderr


def test_health_prints_a_line_per_scale_and_one_of_the_features(checkpoint, scenes):
    done = run("-m", "sspyr_mm", "health", checkpoint, "--images", scenes, "--num-images", "32", check=False)
    lines = {line.split()[0]: line for line in done.stdout.splitlines() if line.startswith("  ")}
    assert list(lines) == ["s0", "s1", "features"]
    assert "of 12 prototypes in codes" in lines["s0"] and "of 60 prototypes in codes" in lines["s1"]
    assert "32 patches" in lines["s0"] and "128 patches" in lines["s1"]


def test_exported_backbone_is_the_trained_one_and_loads_by_init_cfg(checkpoint, tmp_path):
    out = tmp_path / "sub" / "backbone.pth"
    done = run("-m", "sspyr_mm", "export", checkpoint, out)
    assert (
        "model.backbone=dict(type='ResNet', " in done.stdout
        and "depth=18" in done.stdout
        and not list(out.parent.glob("*.partial"))
    )
    cfg, model = load_pretraining(str(checkpoint))
    settings = {**cfg.model.backbone, "norm_cfg": {"type": "BN"}}
    backbone = MODELS.build({**settings, "init_cfg": {"type": "Pretrained", "checkpoint": str(out)}})
    backbone.init_weights()
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        backbone.eval()
        expected, actual = model.backbone(images)[-1], backbone(images)[-1]
    torch.testing.assert_close(actual, expected, atol=2e-5, rtol=1e-4)  # channels last, then not
    assert model.backbone.bn1.running_mean.abs().sum() > 0


def test_browse_views_writes_an_image(scenes, tmp_path):
    out = tmp_path / "new" / "views.png"
    done = run(
        *("tools/browse_views.py", "configs/ssprl/r18_quickstart.py", "--out", out),
        *("--data-root", scenes / "val2017", "--num-images", 2),
    )
    assert "2 images" in done.stdout
    assert out.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["export", "nowhere.pth", "out.pth"], "No checkpoint at nowhere.pth"),
        (["export", "README.md", "out.pth"], "README.md is a text file, not a checkpoint"),
        (["health", "nowhere.pth", "--num-images", "0"], "must be an integer >= 1, got '0'"),
    ],
)
def test_invalid_checkpoints_are_reported(args, message):
    done = run("-m", "sspyr_mm", *args, check=False)
    assert done.returncode == 2
    assert message in done.stderr and "Traceback" not in done.stderr


def test_probe_reports_a_broken_image_in_one_line(checkpoint, tmp_path):
    for index, name in enumerate(("a/1.png", "b/2.png", "b/3.png")):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (16, 16), (index, 9, 9)).save(tmp_path / name)
    (tmp_path / "b/3.png").write_bytes(b"no image")
    done = run(*("-m", "sspyr_mm", "probe", checkpoint, "--train", tmp_path, "--val", tmp_path), check=False)
    assert done.returncode == 2
    assert "b/3.png: not an image that can be decoded" in done.stderr
    assert "Traceback" not in done.stderr
