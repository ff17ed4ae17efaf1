"""Configs of mmdet and mmseg load an exported backbone in a process that can't import this package."""

import subprocess
import sys

import pytest
import torch
from mmpretrain.models import ResNet

from sspyr_mm.checkpoints import export_backbone

CONFIGS = {
    "mmdet": ("mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py", "retinanet/retinanet_r50_fpn_1x_coco.py"),
    "mmseg": ("fcn/fcn_r50-d8_4xb4-20k_voc12aug-512x512.py",),
}
PROGRAM = """
import importlib, os, sys
sys.modules["sspyr_mm"] = None  # an import of it fails
package, *names = sys.argv[1:]
import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
wanted = torch.load("source.pth")
root = os.path.dirname(importlib.import_module(package).__file__)
importlib.import_module(f"{package}.models")
for name in names:
    cfg = Config.fromfile(os.path.join(root, ".mim/configs", name))
    init_default_scope(cfg.default_scope)
    if package == "mmseg":
        cfg.model.update(pretrained=None)
        cfg.model.backbone.type = "ResNet"
    cfg.model.backbone.init_cfg = dict(type="Pretrained", checkpoint=f"{package}.pth")
    model = importlib.import_module(f"{package}.registry").MODELS.build(cfg.model)
    model.init_weights()
    found = model.backbone.state_dict()
    assert wanted.keys() == found.keys(), name
    assert all(torch.equal(wanted[key], found[key]) for key in wanted), name
    print("complete", name)
"""


@pytest.mark.parametrize("package", [pytest.param("mmdet", marks=pytest.mark.ops), "mmseg"])
def test_exported_backbone_is_loaded_completely(package, tmp_path):
    torch.manual_seed(0)
    source = tmp_path / "source.pth"
    torch.save(ResNet(50).state_dict(), source)
    export_backbone(source, tmp_path / f"{package}.pth", target=package)
    line = [sys.executable, "-c", PROGRAM, package, *CONFIGS[package]]
    done = subprocess.run(line, capture_output=True, text=True, cwd=tmp_path)
    complete = [line.split()[1] for line in done.stdout.splitlines() if line.startswith("complete")]
    assert complete == [*CONFIGS[package]], done.stderr
