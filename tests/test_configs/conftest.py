"""Scenes with boxes and masks, and a backbone for them."""

import pytest
import torch
from mmpretrain.models import ResNet

from sspyr_mm.checkpoints import export_backbone
from sspyr_mm.datasets.toy_scenes import generate


@pytest.fixture(scope="session")
def scenes(tmp_path_factory):
    root = tmp_path_factory.mktemp("scenes")
    generate(str(root), num_train=8, num_val=4, size=96)
    return root


@pytest.fixture(scope="session")
def backbone(tmp_path_factory):
    """A whole checkpoint of torchvision's layout, brought over by `export`."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("weights")
    torch.save(ResNet(18, stem_channels=8, base_channels=8).state_dict(), folder / "source.pth")
    export_backbone(folder / "source.pth", folder / "backbone.pth", target="mmdet")
    return folder / "backbone.pth"
