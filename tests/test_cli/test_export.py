"""The commands ``export`` and ``inspect`` on foreign checkpoints and ours."""

import json
import types

import pytest
import timm
import torch
from commands import run

from sspyr_mm.__main__ import main
from sspyr_mm.checkpoints.formats import TARGETS
from sspyr_mm.cli.export import _USE


@pytest.fixture(scope="module")
def foreign(tmp_path_factory):
    path = tmp_path_factory.mktemp("foreign") / "checkpoint.tar"
    state = {f"module.encoder_q.{k}": v for k, v in timm.create_model("resnet18").state_dict().items()}
    torch.save({"epoch": 200, "state_dict": state, "args": types.SimpleNamespace(lr=0.03)}, path)
    return path


def test_export_from_moco_to_timm(foreign, tmp_path):
    out = tmp_path / "timm.pth"
    refused = run("-m", "sspyr_mm", "export", foreign, "--to", "timm", out, check=False)
    assert refused.returncode == 2 and "Traceback" not in refused.stderr
    assert "needs arbitrary pickle (types.SimpleNamespace)" in refused.stderr
    assert "--allow-pickle" in refused.stderr and not out.exists()
    done = run("-m", "sspyr_mm", "export", foreign, "--to", "timm", out, "--allow-pickle")
    assert "120 tensors" in done.stdout and "timm.create_model('resnet18', num_classes=0).load" in done.stdout
    timm.create_model("resnet18", num_classes=0).load_state_dict(torch.load(out), strict=True)


def test_inspect_summarises_a_file(foreign, checkpoint):
    done = run("-m", "sspyr_mm", "inspect", foreign, "--allow-pickle", "--json")
    found = json.loads(done.stdout)
    assert (found["format"], found["epoch"]) == ("moco_v2", 200)
    assert found["backbone"] == {"type": "ResNet", "depth": 18}
    done = run("-m", "sspyr_mm", "inspect", checkpoint)
    lines = {line.split()[0]: line for line in done.stdout.splitlines()}
    assert "sspyr_mm" in lines["format"] and "base_channels=16" in lines["backbone"]
    assert "64 px" in lines["patch"] and "epoch 2" in lines["trained"]
    assert "head" in lines["also"] and "neck" in lines["also"]


def test_full_prefix_is_written(checkpoint, tmp_path):
    out = tmp_path / "out.pth"
    done = run("-m", "sspyr_mm", "export", checkpoint, out, "--to", "mmseg", "--full-prefix")
    assert "model.init_cfg=dict(type='Pretrained'" in done.stdout
    assert all(name.startswith("backbone.") for name in torch.load(out)["state_dict"])


def test_every_target_has_a_usage():
    assert set(_USE) == {*TARGETS, "sspyr_mm"}


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--to", "keras"], "invalid choice: 'keras'"),
        (["--to", "sspyr_mm"], "has the format sspyr_mm: only checkpoints of the official SS-PRL code"),
        (["--to", "sspyr_mm", "--full-prefix"], "--full-prefix is for backbones"),
        (["--to", "detectron2", "--full-prefix"], "names of detectron2 have no prefix"),
        (["--to", "timm"], "timm has no ResNet with"),
    ],
)
def test_unsupported_exports_are_rejected(args, message, checkpoint, tmp_path, capsys):
    try:
        status = main(["export", str(checkpoint), str(tmp_path / "o.pth"), *args])
    except SystemExit as error:  # from argparse
        status = error.code
    assert status == 2
    assert message in capsys.readouterr().err and not list(tmp_path.iterdir())
