"""Scenes with boxes and masks, a backbone for them, and photographs."""

import cv2
import numpy as np
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


@pytest.fixture(scope="session")
def photographs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photographs")
    rng = np.random.default_rng(0)
    for i in range(8):
        small = rng.integers(0, 256, (6, 8, 3), np.uint8)
        cv2.imwrite(str(folder / f"{i}.jpg"), cv2.resize(small, (80, 60)))
    return folder
