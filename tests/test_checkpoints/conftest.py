"""A real network with numbers in which every mix-up shows, and a real photograph."""

from pathlib import Path

import pytest
import torch
import torchvision
from PIL import Image
from torch import nn
from torchvision.transforms.functional import normalize, to_tensor

JPEG = Path(__file__).resolve().parents[2] / "docs" / "views.jpg"


def scatter(network, seed=0):
    """Random weights and, in every batch norm, random statistics: no two tensors can be exchanged unseen."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, (nn.Conv2d, nn.Linear)):
                nn.init.kaiming_normal_(module.weight, generator=generator)
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.weight.uniform_(0.5, 1.5, generator=generator)
                module.bias.normal_(0, 0.1, generator=generator)
                module.running_mean.normal_(0, 0.5, generator=generator)
                module.running_var.uniform_(0.5, 2, generator=generator)
                module.num_batches_tracked.random_(1, 10**6, generator=generator)
            elif isinstance(module, nn.LayerNorm):
                module.weight.uniform_(0.5, 1.5, generator=generator)
                module.bias.normal_(0, 0.1, generator=generator)
    network.eval()  # returns nothing in OpenMMLab's backbones
    return network


@torch.no_grad()
def map_of(network, image):
    """Last feature map of a ResNet with torchvision's attributes."""
    x = network.maxpool(network.relu(network.bn1(network.conv1(image))))
    return network.layer4(network.layer3(network.layer2(network.layer1(x))))


def assert_same_features(actual, expected):
    assert actual.shape == expected.shape and expected.abs().max() > 0.1
    error = ((actual - expected).abs().max() / expected.abs().max()).item()
    assert error < 1e-6, error


def assert_identical(actual, expected):
    assert list(actual) == list(expected)
    for name, tensor in expected.items():
        assert actual[name].dtype == tensor.dtype, name
        assert torch.equal(actual[name], tensor), name


@pytest.fixture(scope="session")
def photograph():
    image = Image.open(JPEG).convert("RGB").crop((600, 100, 728, 228))
    return normalize(to_tensor(image), (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))[None]


@pytest.fixture(scope="session")
def resnet50():
    return scatter(torchvision.models.resnet50(), seed=1)


@pytest.fixture(scope="session")
def backbone50(resnet50):
    """Its tensors without fc: what every reader of the ResNet-50 layouts must find."""
    return {k: v for k, v in resnet50.state_dict().items() if not k.startswith("fc.")}


@pytest.fixture(scope="session")
def features50(resnet50, photograph):
    return map_of(resnet50, photograph)


@pytest.fixture(scope="session")
def small():
    """Tensors of a narrow ResNet-18, quick to write and read."""
    from mmpretrain.models import ResNet

    return dict(scatter(ResNet(18, stem_channels=8, base_channels=8), seed=9).state_dict())
