"""Configs that inherit bases of mmpretrain, mmdet and mmseg, whichever distributions provide them."""

import os
import subprocess
import sys

import pytest
from commands import run
from mmengine.config import Config
from project import ROOT

import sspyr_mm.registration  # noqa: F401

COMPAT = ROOT / "configs/_base_/compat.py"

BASES = {
    "mmpretrain": ("mmpretrain::resnet/resnet18_8xb32_in1k.py", "ImageClassifier"),
    "mmdet": ("mmdet::mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py", "MaskRCNN"),
    "mmseg": ("mmseg::fcn/fcn_r50-d8_4xb2-40k_cityscapes-512x1024.py", "EncoderDecoder"),
}


def write(tmp_path, package):
    base, model = BASES[package]
    path = tmp_path / "config.py"
    # relative, as in the shipped configs
    compat = os.path.relpath(COMPAT, tmp_path)
    path.write_text(f"_base_ = [{compat!r}, {base!r}]\nrandomness = dict(seed=7)\n")
    return path, model


@pytest.fixture(params=sorted(BASES))
def inherited(request, tmp_path):
    return write(tmp_path, request.param)


def test_fromfile_dump_and_reload(inherited, tmp_path):
    path, model = inherited
    cfg = Config.fromfile(path)
    assert cfg.model.type == model
    assert cfg.randomness.seed == 7
    assert cfg.custom_imports.imports == ["sspyr_mm.registration"]
    cfg.dump(tmp_path / "dumped.py")
    assert Config.fromfile(tmp_path / "dumped.py").model.to_dict() == cfg.model.to_dict()


@pytest.mark.parametrize(
    "package", ["mmdet", *(pytest.param(p, marks=pytest.mark.slow) for p in ("mmpretrain", "mmseg"))]
)
def test_forks_are_found_through_the_first_base(package, tmp_path):
    """`mim train` and train.py of mmseg do not import sspyr_mm before they read the config."""
    path, model = write(tmp_path, package)
    code = f"from mmengine.config import Config; print(Config.fromfile({str(path)!r}).model.type)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert result.stdout.split()[-1] == model


def test_train_py_reads_them(inherited, tmp_path):
    path, _ = inherited
    # The error about missing data shows that the config was read.
    missing = str(tmp_path / "nothing")
    result = run("tools/train.py", path, "--work-dir", tmp_path / "work", "--data-root", missing, check=False)
    assert result.returncode == 2
    assert f"{missing!r} does not exist" in result.stderr
