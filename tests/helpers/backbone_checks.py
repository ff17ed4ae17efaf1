"""Random weights that reveal exchanged tensors, and comparisons of backbones."""

import torch
from torch import nn


def scatter(network, seed=0):
    """Sets random weights and random statistics of batch norm, so that no two tensors are equal."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, (nn.Conv2d, nn.Linear)):
                module.weight.normal_(0, (2 / module.weight[0].numel()) ** 0.5, generator=generator)
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
    """Returns the last feature map of a ResNet with torchvision's attributes."""
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
