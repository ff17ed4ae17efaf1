"""Pre-training steps of small networks of every kind of backbone."""

import copy

import torch

import sspyr_mm.registration  # noqa: F401
from sspyr_mm.models import SSPRL

PYRAMID = dict(
    s0=dict(region=48, patch=48, num_prototypes=6, alpha=1.0),
    s1=dict(grid=2, region=80, patch=32, num_prototypes=5, alpha=0.25, beta=0.25),
)
BACKBONES = {
    "resnet": (dict(type="ResNet", depth=18, stem_channels=8, base_channels=8), 64),
    "resnet_drop_path": (dict(type="ResNet", depth=18, stem_channels=8, base_channels=8, drop_path_rate=0.5), 64),
    "convnext": (
        dict(type="ConvNeXt", arch=dict(depths=[1, 1, 1, 1], channels=[8, 8, 16, 16]), drop_path_rate=0.5),
        16,
    ),
    "swin": (
        dict(
            type="SwinTransformer",
            arch=dict(embed_dims=8, depths=[1, 1, 1, 1], num_heads=[1, 1, 2, 2]),
            img_size=48,
            pad_small_map=True,
        ),
        64,
    ),
    "vit": (
        dict(
            type="VisionTransformer",
            arch=dict(embed_dims=16, num_layers=2, num_heads=2, feedforward_channels=32),
            img_size=48,
            patch_size=8,
            out_type="cls_token",
        ),
        16,
    ),
}


def build(backbone, recompute):
    config, channels = BACKBONES[backbone]
    torch.manual_seed(0)
    neck = dict(type="PyramidProjector", in_channels=channels, hid_channels=16, out_channels=8)
    head = dict(type="SSPRLHead")
    model = SSPRL(PYRAMID, copy.deepcopy(config), neck, head, recompute=recompute)
    model.init_weights()
    return model.train()


def step(model, *, lowered=False, cached=True):
    """Losses of one forward and backward pass; `cached` is whether autocast keeps weights in bfloat16."""
    rng = torch.Generator().manual_seed(1)
    patches = {
        g.name: torch.randn(g.num_views, 3, g.num_patches, 3, g.patch, g.patch, generator=rng)
        for g in model.pyramid.groups
    }
    torch.manual_seed(2)  # of drop path
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=lowered, cache_enabled=cached):
        losses = model.loss(patches)
    total = sum(value for name, value in losses.items() if name.startswith("loss"))
    total.backward()
    return total.detach()
