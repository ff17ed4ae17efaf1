"""Wiring: backbones of every kind, one pass per group, batch statistics, memory formats, precision."""

import copy

import pytest
import torch
from mmengine.optim import OptimWrapper
from torch import nn
from torch.nn import functional as F

from sspyr_mm.engine.optim_wrapper import AutocastOptimWrapper
from sspyr_mm.models import SSPRL
from sspyr_mm.models.layers import pool

B = 4
BN = dict(type="BN")
RESNET = dict(type="ResNet", depth=18, stem_channels=8, base_channels=8, norm_cfg=BN, zero_init_residual=False)
VIT = dict(
    type="VisionTransformer",
    arch=dict(embed_dims=16, num_layers=2, num_heads=2, feedforward_channels=32),
    img_size=48,
    patch_size=8,
)
CONVNEXT = dict(
    type="ConvNeXt",
    arch=dict(depths=[1, 1, 1, 1], channels=[8, 8, 16, 16]),
    layer_scale_init_value=0.1,  # 1e-6 would leave the layers before it without a visible step
)
SWIN = dict(
    type="SwinTransformer",
    arch=dict(embed_dims=8, depths=[1, 1, 1, 1], num_heads=[1, 1, 2, 2]),
    img_size=48,
    pad_small_map=True,
)
# Config and channels of its output.
BACKBONES = {
    "resnet": (RESNET, 64),
    "convnext": (CONVNEXT, 16),
    "convnext_maps": (dict(CONVNEXT, gap_before_final_norm=False), 16),
    "swin": (SWIN, 64),
    "vit_cls_token": (dict(VIT, out_type="cls_token"), 16),
    "vit_avg_featmap": (dict(VIT, out_type="avg_featmap"), 16),
    "vit_featmap": (dict(VIT, out_type="featmap"), 16),
}


def make_pyramid(*, patch1=40, crops=True):
    """Two scales; patches of scale 1 are smaller, so that a ViT has to interpolate."""
    pyramid = dict(
        s0=dict(region=48, patch=48, num_prototypes=6, alpha=1.0),
        s1=dict(grid=2, region=100, patch=patch1, num_prototypes=5, alpha=0.25, beta=0.25),
    )
    if crops:
        pyramid["s0"]["multi_crop"] = dict(num_views=3, patch=32)
    return pyramid


def build(backbone="resnet", pyramid=None, norm_cfg=BN, **kwargs):
    torch.manual_seed(0)
    config, channels = BACKBONES[backbone]
    neck = dict(type="PyramidProjector", in_channels=channels, hid_channels=16, out_channels=8, norm_cfg=norm_cfg)
    model = SSPRL(
        pyramid or make_pyramid(),
        backbone=copy.deepcopy(config),
        neck=neck,
        head=dict(type="SSPRLHead", embed_dims=8),
        **kwargs,
    )
    model.init_weights()
    return model


def make_batch(model, seed=0):
    """What the data loader hands over: uint8 regions and a seed per image."""
    rng = torch.Generator().manual_seed(seed)
    regions = {
        g.name: torch.randint(256, (B, g.num_regions, g.region, g.region, 3), generator=rng, dtype=torch.uint8)
        for g in model.pyramid.groups
    }
    return dict(inputs={**regions, "seed": torch.arange(B)}, data_samples=None)


def make_patches(model, seed=0):
    rng = torch.Generator().manual_seed(seed)
    return {
        g.name: torch.randn(g.num_views, B, g.num_patches, 3, g.patch, g.patch, generator=rng)
        for g in model.pyramid.groups
    }


def total(losses):
    return sum(value for name, value in losses.items() if name.startswith("loss"))


@pytest.mark.parametrize("backbone", BACKBONES)
def test_trains_two_steps(backbone):
    """Every weight moves, and the loss of the same batch and codes falls."""
    model = build(backbone)
    start = {name: p.detach().clone() for name, p in model.named_parameters()}
    optimizer = OptimWrapper(torch.optim.SGD(model.parameters(), lr=1e-4))
    batch = make_batch(model)
    log = model.train_step(batch, optimizer)
    assert set(log) >= {"loss", "loss_pyr_s0", "loss_pyr_s1", "loss_cross_s1"}
    # With codes that stay, every step goes downhill; codes of a batch of four jump.
    patches = model.data_preprocessor(batch)["inputs"]
    codes = model.head.assign_codes(model.embed(patches))
    model.head.assign_codes = lambda embeddings: codes
    losses = [model.train_step(batch, optimizer)["loss"].item() for _ in range(3)]
    assert losses[2] < losses[1] < losses[0]
    for name, parameter in model.named_parameters():
        assert parameter.isfinite().all(), name
        # A bias right before batch norm is taken out again: its gradient is zero.
        if not (name.startswith("neck") and name.endswith(".0.bias")):
            assert not torch.equal(parameter, start[name]), name


@pytest.mark.parametrize("backbone", BACKBONES)
def test_embedding_of_a_patch_is_that_of_the_patch_alone(backbone):
    """Views, images and patches keep their places on the way through backbone and projector."""
    model = build(backbone).eval()
    patches = make_patches(model)
    with torch.no_grad():
        embeddings = model.embed(patches)
        for group in model.pyramid.groups:
            z = embeddings[group.name]
            assert z.shape == (group.num_views, B, group.num_patches, 8)
            torch.testing.assert_close(z.norm(dim=-1), torch.ones(z.shape[:3]))
            for v, b, m in [(0, 0, 0), (1, 2, group.num_patches - 1), (0, 3, 0)]:
                feats = pool(model.backbone(patches[group.name][v, b, m][None]))
                projected = model.neck.projectors[group.name.removesuffix("_crops")](feats)
                torch.testing.assert_close(z[v, b, m], F.normalize(projected, dim=1)[0], rtol=1e-4, atol=1e-5)


def test_pool():
    maps, tokens = torch.randn(2, 3, 4, 5), torch.randn(2, 7, 3)
    expected = torch.stack([torch.stack([c.sum() / 20 for c in image]) for image in maps])
    torch.testing.assert_close(pool(maps), expected)
    torch.testing.assert_close(pool((torch.zeros(1), maps)), expected)
    torch.testing.assert_close(pool([tokens]), sum(tokens.unbind(1)) / 7)
    torch.testing.assert_close(pool((tokens[:, 0],)), tokens[:, 0])


@pytest.mark.parametrize("patch1", [40, 48], ids=["sizes_differ", "sizes_agree"])
def test_one_backbone_pass_per_group(patch1):
    """Also where pixel sizes agree: two scales never share a batch of batch norm."""
    pyramid = make_pyramid(patch1=patch1)
    pyramid["s0"]["multi_crop"]["patch"] = patch1
    model = build(pyramid=pyramid)
    shapes = []
    model.backbone.register_forward_pre_hook(lambda _, args: shapes.append(tuple(args[0].shape)))
    model.loss(make_patches(model))
    side = (3, patch1, patch1)
    assert shapes == [(2 * B, 3, 48, 48), (3 * B, *side), (2 * B * 4, *side)]
    norms = [m for m in model.backbone.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    assert norms
    assert all(norm.num_batches_tracked == 3 for norm in norms)
    projectors = model.neck.projectors
    assert [projectors[s][1].num_batches_tracked.item() for s in ("s0", "s1")] == [1, 1]


def test_batch_statistics_of_a_scale_are_its_own():
    model = build(pyramid=make_pyramid(patch1=48, crops=False))
    patches = make_patches(model)
    others = {"s0": patches["s0"], "s1": 3 * patches["s1"] + 1}
    before, after = model.embed(patches), model.embed(others)
    torch.testing.assert_close(after["s0"], before["s0"], rtol=0, atol=0)
    assert not torch.allclose(after["s1"], before["s1"], atol=1e-2)


@pytest.mark.parametrize("backbone", ["resnet", "convnext"])
def test_channels_last_equals_contiguous(backbone):
    plain, last = build(backbone), build(backbone, channels_last=True)
    for (name, a), b in zip(plain.state_dict().items(), last.state_dict().values(), strict=True):
        assert torch.equal(a, b), f"{name} has other random numbers"
    formats = []
    last.backbone.register_forward_pre_hook(
        lambda _, args: formats.append(args[0].is_contiguous(memory_format=torch.channels_last))
    )
    patches = make_patches(plain)
    losses = [model.loss(patches) for model in (plain, last)]
    assert formats == [True] * 3
    convolutions = [m for m in last.backbone.modules() if isinstance(m, nn.Conv2d)]
    assert all(c.weight.is_contiguous(memory_format=torch.channels_last) for c in convolutions)
    for name, value in losses[0].items():
        torch.testing.assert_close(losses[1][name], value, rtol=1e-5, atol=1e-5)
    for loss in losses:
        total(loss).backward()
    for (name, a), b in zip(plain.named_parameters(), last.parameters(), strict=True):
        scale = a.grad.abs().max().item()
        torch.testing.assert_close(b.grad, a.grad, rtol=0, atol=1e-3 * scale + 1e-6, msg=name)


@pytest.mark.parametrize("backbone", ["resnet", "convnext", "swin", "vit_avg_featmap"])
def test_bfloat16_on_the_cpu(backbone):
    model = build(backbone)
    patches = make_patches(model)
    expected = copy.deepcopy(model).loss(patches)
    with torch.autocast("cpu", torch.bfloat16):
        embeddings = copy.deepcopy(model).embed(patches)
        losses = model.loss(patches)
    for z in embeddings.values():
        assert z.dtype == torch.float32
    for name, value in losses.items():
        assert value.dtype == torch.float32
        assert value.item() == pytest.approx(expected[name].item(), rel=0.1)
    # The backbone did run in bfloat16.
    assert any(losses[name].item() != value.item() for name, value in expected.items())
    total(losses).backward()
    assert all(p.grad.isfinite().all() for p in model.parameters())


def test_trains_under_the_autocast_wrapper():
    model = build()
    wrapper = AutocastOptimWrapper(optimizer=torch.optim.SGD(model.parameters(), lr=0.01))
    log = model.train_step(make_batch(model), wrapper)
    assert all(value.isfinite() and value.dtype == torch.float32 for value in log.values())
    assert all(p.dtype == torch.float32 and p.isfinite().all() for p in model.parameters())


def test_total_loss_is_the_sum_of_the_loss_terms():
    """`ce_ratio_*` is for the log only."""
    model = build()
    patches = model.data_preprocessor(make_batch(model))["inputs"]
    losses = copy.deepcopy(model).loss(patches)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    log = model.train_step(make_batch(model), OptimWrapper(optimizer))
    assert any(name.startswith("ce_ratio") for name in log)
    assert log["loss"].item() == pytest.approx(total(losses).item(), rel=1e-5)


def test_size_of_an_embedding_is_stated_once():
    def sizes(neck, head):
        model = SSPRL(
            make_pyramid(),
            backbone=copy.deepcopy(RESNET),
            neck=dict(type="PyramidProjector", in_channels=64, norm_cfg=BN, **neck),
            head=dict(type="SSPRLHead", **head),
        )
        return [model.neck.projectors["s0"][-1].out_features, *model.head.prototypes["s0"].weight.shape[1:]]

    assert sizes(dict(out_channels=12), {}) == [12, 12]
    assert sizes({}, dict(embed_dims=12)) == [12, 12]
    assert sizes({}, {}) == [128, 128]
    with pytest.raises(
        ValueError, match=r"neck\.out_channels is 12 and head\.embed_dims 10, but both are the embedding size"
    ):
        sizes(dict(out_channels=12), dict(embed_dims=10))
