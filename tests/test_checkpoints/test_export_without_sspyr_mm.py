"""Configs of mmdet and mmseg load an exported backbone in a process that can't import this package."""

import subprocess
import sys

import pytest
import torch
from mmpretrain.models import ResNet

from sspyr_mm.checkpoints import export_backbone

PROGRAM = """
import importlib, os, sys
sys.modules["sspyr_mm"] = None  # an import of it fails
package, config, checkpoint, source = sys.argv[1:]
import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
root = os.path.dirname(importlib.import_module(package).__file__)
cfg = Config.fromfile(os.path.join(root, ".mim/configs", config))
init_default_scope(cfg.default_scope)
if package == "mmseg":
    cfg.model.update(pretrained=None)
    cfg.model.backbone.type = "ResNet"
cfg.model.backbone.init_cfg = dict(type="Pretrained", checkpoint=checkpoint)
importlib.import_module(f"{package}.models")
model = importlib.import_module(f"{package}.registry").MODELS.build(cfg.model)
model.init_weights()
wanted, found = torch.load(source), model.backbone.state_dict()
assert wanted.keys() == found.keys()
assert all(torch.equal(wanted[name], found[name]) for name in wanted)
print("complete")
"""


@pytest.mark.parametrize(
    ("package", "config"),
    [
        ("mmdet", "mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py"),
        ("mmdet", "retinanet/retinanet_r50_fpn_1x_coco.py"),
        ("mmseg", "fcn/fcn_r50-d8_4xb4-20k_voc12aug-512x512.py"),
    ],
)
def test_exported_backbone_is_loaded_completely(package, config, tmp_path):
    torch.manual_seed(0)
    source, out = tmp_path / "source.pth", tmp_path / "backbone.pth"
    torch.save(ResNet(50).state_dict(), source)
    export_backbone(source, out, target=package)
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, package, config, out, source], capture_output=True, text=True, cwd=tmp_path
    )
    assert done.stdout.endswith("complete\n"), done.stderr
