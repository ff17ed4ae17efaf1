"""Small momentum models, and batches for them."""

import copy

import torch
from mmengine.registry import init_default_scope
from mmpretrain.registry import MODELS
from torch.nn import functional as F

import sspyr_mm.registration  # noqa: F401

VIEWS = dict(main=dict(region=32, patch=32))
BACKBONE = dict(type="ResNet", depth=18, stem_channels=8, base_channels=8, zero_init_residual=False)
MODELS_BY_NAME = {
    "MoCoV2": dict(
        type="MoCoV2",
        views=VIEWS,
        backbone=dict(**BACKBONE, norm_cfg=dict(type="GroupedBN", group_size=4)),
        neck=dict(type="MLPProjector", in_channels=64, hid_channels=16, out_channels=8),
        head=dict(type="ContrastHead", queue_length=20, temperature=0.2),
    ),
}
MODELS_BY_NAME["DenseMoCo"] = {
    **MODELS_BY_NAME["MoCoV2"],
    "type": "DenseMoCo",
    "views": dict(main=dict(region=80, patch=80)),  # maps of 3 x 3
    "neck": dict(type="DenseProjector", in_channels=64, hid_channels=16, out_channels=8),
    "head": dict(
        type="ContrastHead",
        queue_length=20,
        temperature=0.2,
        terms=dict(main=dict(weight=0.3), dense=dict(key="matched", queue="dense", weight=0.7)),
    ),
}

MODELS_BY_NAME["Bootstrap"] = dict(
    type="Bootstrap",
    views=dict(main=dict(region=80, patch=80)),
    backbone=dict(**BACKBONE, norm_cfg=dict(type="GroupedBN", group_size=4)),
    neck=dict(
        type="MLPProjector",
        in_channels=64,
        hid_channels=16,
        out_channels=8,
        norm_cfg=dict(type="GroupedBN", group_size=4),
        last_bias=False,
    ),
    head=dict(type="BootstrapHead", hid_channels=16, norm_cfg=dict(type="GroupedBN", group_size=4)),
)

MODELS_BY_NAME["DetCo"] = {
    **MODELS_BY_NAME["MoCoV2"],
    "type": "DetCo",
    "views": {**VIEWS, "jigsaw": dict(region=75, grid=3, patch=20, jigsaw=True)},
    "backbone": dict(**BACKBONE, norm_cfg=dict(type="GroupedBN", group_size=4), out_indices=(0, 1, 2, 3)),
    "neck": dict(type="LevelProjectors", in_channels=(8, 16, 32, 64), hid_channels=16, out_channels=8),
    "head": dict(
        type="ContrastHead",
        queue_length=20,
        terms={
            f"{kind}{i}": dict(query=f"{query}{i}", key=f"{key}{i}", weight=(i + 1) / 4)
            for kind, query, key in (("image", "g", "g"), ("patch", "l", "l"), ("across", "l", "g"))
            for i in range(4)
        },
    ),
}

MODELS_BY_NAME["InsLoc"] = {
    **MODELS_BY_NAME["DetCo"],
    "type": "InsLoc",
    "views": dict(main=dict(region=64, patch=64, area=(0.2, 1.0), aspect=(0.5, 2.0), paste=(32, 63))),
    "neck": dict(
        type="RegionProjector",
        in_channels=(8, 16, 32, 64),
        channels=8,
        hid_channels=16,
        out_channels=8,
        num_convs=2,
        norm_cfg=dict(type="GroupedBN", group_size=4),
    ),
    "head": dict(type="ContrastHead", queue_length=20, terms={f"p{i}": {} for i in range(4)}),
}
MODELS_BY_NAME["MaskCo"] = {
    **MODELS_BY_NAME["MoCoV2"],
    "type": "MaskCo",
    "views": dict(main=dict(region=96, patch=96, overlap=(24, 48))),
    "channels": 64,
    "norm_cfg": dict(type="GroupedBN", group_size=4),
}


def config_of(name="MoCoV2", **changes):
    """The config of a model; ``changes`` are merged into its dicts, those of another type replace them."""
    cfg = copy.deepcopy(MODELS_BY_NAME[name])
    for key, value in changes.items():
        same = key != "views" and isinstance(value, dict) and value.get("type", cfg[key]["type"]) == cfg[key]["type"]
        cfg[key] = {**cfg[key], **value} if same else value
    return cfg


def build(name="MoCoV2", *, seed=0, **changes):
    init_default_scope("mmpretrain")
    torch.manual_seed(seed)
    model = MODELS.build(config_of(name, **changes))
    model.init_weights()
    return model.train()


def batch_of(step, num_images, model):
    """Patches of all groups and seeds, as the preprocessor gives them.

    Blobs, not noise: features of noise are nearly equal, and batch norm of equal values amplifies rounding.
    """
    rng = torch.Generator().manual_seed(step)
    inputs = {}
    for g in model.views.groups:
        blobs = torch.randn(g.num_views * num_images * g.num_patches, 3, 3, 3, generator=rng)
        patches = F.interpolate(2 * blobs, (g.patch, g.patch), mode="bilinear")
        inputs[g.name] = patches.unflatten(0, (g.num_views, num_images, g.num_patches))
        if g.paste or g.overlap:
            corner = torch.rand(g.num_views, num_images, 2, 2, generator=rng) * g.region / 2
            sides = (0.2 + 0.3 * torch.rand(g.num_views, num_images, 2, 2, generator=rng)) * g.region
            boxes = torch.cat([corner, corner + sides], dim=-1)[:, :, : 2 if g.paste else 1]
            boxes[1] = boxes[1, :, :1]  # keys have one box
            inputs[f"{g.name}_boxes"] = boxes
    inputs = {name: x.to(next(model.parameters()).dtype) for name, x in inputs.items()}
    return {**inputs, "seed": torch.randint(2**62, (num_images,), generator=rng)}


def part_of(inputs, rank, world_size):
    """The part of a rank of a batch."""
    size = len(inputs["seed"]) // world_size
    mine = slice(rank * size, (rank + 1) * size)
    return {name: x[mine] if name == "seed" else x[:, mine] for name, x in inputs.items()}


def relative_distance(tensor, wanted):
    """Distance of two tensors over the length of the second: batch norm of few values amplifies rounding."""
    return ((tensor - wanted).norm() / wanted.norm().clamp_min(1e-6)).item()


def sgd_step(model, loss, lr):
    """One step of plain SGD."""
    model.zero_grad()
    loss.backward()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.grad is not None:
                parameter.sub_(parameter.grad, alpha=lr)


def total(losses):
    return sum(value for name, value in losses.items() if name.startswith("loss"))
