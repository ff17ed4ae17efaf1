"""Backbones of our own pre-training, built from the config inside the checkpoint."""

import pytest
import timm
import torch
from backbone_checks import assert_identical, assert_same_features
from pretrained_files import NARROW, pretrain
from torch.nn import functional as F

from sspyr_mm.checkpoints import build_backbone, export_backbone, inspect_checkpoint, read_backbone
from sspyr_mm.checkpoints.formats import timm_names
from sspyr_mm.checkpoints.formats.backbones import plain_config
from sspyr_mm.checkpoints.formats.targets import timm_call

SMALL = {"depths": [1, 1, 1, 1], "channels": [8, 16, 24, 32]}
SWIN = {"embed_dims": 96, "depths": [2, 2, 6, 2], "num_heads": [3, 6, 12, 24]}


@pytest.mark.parametrize("norm", ["BN", "SyncBN"])
def test_narrow_resnet_is_read(norm, photograph, tmp_path):
    backbone = {
        **{"type": "ResNet", "depth": 18, "stem_channels": 16, "base_channels": 16},
        **{"norm_cfg": {"type": norm}, "out_indices": (1, 3), "frozen_stages": 1},
    }
    means = {"type": "PyramidAugment", "mean": [1.0, 2.0, 3.0], "std": [4.0, 5.0, 6.0]}
    model = pretrain(tmp_path / "x.pth", backbone, 128, data_preprocessor=means)
    checkpoint = read_backbone(tmp_path / "x.pth")
    assert (checkpoint.source, checkpoint.patch) == ("sspyr_mm", 64)
    assert (checkpoint.mean, checkpoint.std) == ((1, 2, 3), (4, 5, 6))
    assert checkpoint.backbone["base_channels"] == 16
    assert checkpoint.backbone["norm_cfg"] == {"type": "BN"}
    assert "frozen_stages" not in checkpoint.backbone
    assert_identical(checkpoint.state_dict, dict(model.backbone.state_dict()))
    outputs = build_backbone(checkpoint)(photograph)
    assert len(outputs) == 1
    assert_same_features(outputs[0], model.backbone(photograph)[-1])
    found = inspect_checkpoint(tmp_path / "x.pth")
    assert found["patch"] == 64 and set(found["other_tensors"]) == {"neck", "head"}


def test_defaults_of_the_augmentation_are_those_of_imagenet(tmp_path):
    model = pretrain(tmp_path / "x.pth", NARROW, 64)
    checkpoint = read_backbone(tmp_path / "x.pth")
    mean, std = (255 * getattr(model.data_preprocessor, k).flatten() for k in ("mean", "std"))
    assert checkpoint.mean == pytest.approx(mean.tolist())
    assert checkpoint.std == pytest.approx(std.tolist())


def test_missing_tensor_is_reported(tmp_path):
    pretrain(tmp_path / "x.pth", NARROW, 64)
    content = torch.load(tmp_path / "x.pth")
    del content["state_dict"]["backbone.conv1.weight"]
    torch.save(content, tmp_path / "x.pth")
    with pytest.raises(ValueError, match=r"read as sspyr_mm .* 1 tensors of 120 missing: conv1.weight"):
        read_backbone(tmp_path / "x.pth")


# Backbone, its channels, timm's model and the arguments that make it comparable.
TIMM = {
    "vit": (
        {"type": "VisionTransformer", "arch": "deit-tiny", "img_size": 64, "patch_size": 16},
        192,
        "vit_tiny_patch16_224",
        {"img_size": 64},
    ),
    "convnext": ({"type": "ConvNeXt", "arch": "atto"}, 320, "convnext_atto", {}),
    "convnext_linear": ({"type": "ConvNeXt", "arch": "tiny"}, 768, "convnext_tiny", {}),
    "convnext_v2": (
        {"type": "ConvNeXt", "arch": "atto", "use_grn": True, "layer_scale_init_value": 0.0},
        320,
        "convnextv2_atto",
        {},
    ),
    "swin": (
        {"type": "SwinTransformer", "arch": SWIN, "img_size": 64, "pad_small_map": True},
        768,
        "swin_tiny_patch4_window7_224",
        {"always_partition": True},
    ),
    "swin_unpadded": ({"type": "SwinTransformer", "arch": "tiny"}, 768, "swin_tiny_patch4_window7_224", {}),
}


@pytest.mark.parametrize("kind", TIMM)
def test_timm_model_has_the_same_outputs(kind, photograph, tmp_path):
    backbone, channels, name, arguments = TIMM[kind]
    pretrain(tmp_path / "x.pth", backbone, channels)
    checkpoint = read_backbone(tmp_path / "x.pth")
    export_backbone(tmp_path / "x.pth", tmp_path / "out", target="timm")
    text = "".join(f", {key}={value!r}" for key, value in arguments.items())
    assert timm_call(checkpoint.backbone) == f"timm.create_model({name!r}, num_classes=0{text})"
    network = timm.create_model(name, num_classes=0, **arguments).eval()
    network.load_state_dict(torch.load(tmp_path / "out"), strict=True)
    # Models of timm only accept images of their own size.
    side = arguments.get("img_size", 224)
    image = F.interpolate(photograph, (side, side))
    ours = build_backbone(checkpoint).double()
    with torch.no_grad():
        theirs = network.double().forward_features(image.double())
        if kind == "vit":
            theirs = theirs[:, 0]
        elif kind.startswith("swin"):
            theirs = theirs.permute(0, 3, 1, 2)
        else:
            theirs = network.forward_head(theirs, pre_logits=True)
        assert_same_features(ours(image.double())[-1], theirs)


@pytest.mark.parametrize(
    ("kind", "target"),
    [
        *(("convnext", target) for target in ("mmpretrain", "mmdet", "mmseg", "safetensors")),
        ("vit", "safetensors"),
        ("swin", "mmdet"),
    ],
)
def test_openmmlab_targets_support_every_backbone(kind, target, tmp_path):
    backbone, channels, *_ = TIMM[kind]
    means = {"type": "PyramidAugment", "mean": [1.0, 2.0, 3.0], "std": [4.0, 5.0, 6.0]}
    pretrain(tmp_path / "x.pth", backbone, channels, data_preprocessor=means)
    out = tmp_path / ("out.safetensors" if target == "safetensors" else "out")
    export_backbone(tmp_path / "x.pth", out, target=target)
    first, back = read_backbone(tmp_path / "x.pth"), read_backbone(out)
    assert_identical(back.state_dict, first.state_dict)
    assert back.backbone == first.backbone and back.patch is None
    assert (back.mean, back.std) == (first.mean, first.std) == ((1, 2, 3), (4, 5, 6))


@pytest.mark.parametrize("target", ["torchvision", "detectron2"])
@pytest.mark.parametrize("kind", ["vit", "convnext"])
def test_resnet_targets_reject_other_backbones(kind, target, tmp_path):
    backbone, channels, *_ = TIMM[kind]
    pretrain(tmp_path / "x.pth", backbone, channels)
    with pytest.raises(ValueError, match=f"{target} supports only ResNets, got {backbone['type']}"):
        export_backbone(tmp_path / "x.pth", tmp_path / "out.pkl", target=target)
    assert not (tmp_path / "out.pkl").exists()


@pytest.mark.parametrize(
    ("backbone", "channels", "message"),
    [
        ({"type": "ConvNeXt", "arch": SMALL}, 32, r"timm has no convnext of depths \(1, 1, 1, 1\)"),
        ({"type": "ConvNeXt", "arch": "atto", "use_grn": True}, 320, "timm has no convnextv2 .*with"),
        (
            {"type": "VisionTransformer", "arch": "deit-tiny", "img_size": 64, "patch_size": 8},
            192,
            "timm has no ViT of 192 channels, 12 layers, 3 heads, 768 hidden .* patches of 8",
        ),
        (
            {"type": "VisionTransformer", "arch": "deit-tiny", "img_size": 32, "qkv_bias": False},
            192,
            "timm has no VisionTransformer with qkv_bias=False",
        ),
        ({"type": "MobileNetV2"}, 1280, "no timm model is known for .* MobileNetV2"),
    ],
)
def test_backbones_without_timm_model_are_rejected(backbone, channels, message, tmp_path):
    pretrain(tmp_path / "x.pth", backbone, channels)
    with pytest.raises(ValueError, match=message):
        export_backbone(tmp_path / "x.pth", tmp_path / "out", target="timm")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("target", ["torchvision", "timm", "detectron2"])
def test_other_norms_are_not_written_as_batch_norm(target, tmp_path):
    backbone = {**NARROW, "norm_cfg": {"type": "GN", "num_groups": 8}}
    pretrain(tmp_path / "x.pth", backbone, 64)
    out = tmp_path / ("out.pkl" if target == "detectron2" else "out")
    with pytest.raises(ValueError, match=f"{target} supports only ResNets with batch norm, got GN"):
        export_backbone(tmp_path / "x.pth", out, target=target)
    assert not out.exists()


@pytest.mark.parametrize("key", ["init_cfg", "pretrained", "frozen_stages", "norm_eval", "with_cp"])
def test_training_settings_are_removed_from_a_backbone(key):
    assert plain_config({"type": "mmpretrain.ResNet", "depth": 18, key: 1}) == {"type": "ResNet", "depth": 18}


def test_named_models_are_in_timm():
    vits = [f"{name}_patch{patch}_224" for name, patches in timm_names._VITS.values() for patch in patches]
    convnexts = [f"{f}_{size}" for f, sizes in timm_names._CONVNEXTS.items() for size in sizes]
    for name in (*vits, *convnexts, *timm_names._SWINS.values()):
        assert timm.is_model(name), name
    for (*_, window), name in timm_names._SWINS.items():
        assert f"_window{window}_" in name


def test_sizes_of_vits_match_timm():
    for (width, depth, heads, hidden), (name, patches) in timm_names._VITS.items():
        with torch.device("meta"):
            network = timm.create_model(f"{name}_patch{patches[-1]}_224", num_classes=0)
        block = network.blocks[0]
        assert (network.embed_dim, len(network.blocks)) == (width, depth), name
        assert (block.attn.num_heads, block.mlp.fc1.out_features) == (heads, hidden), name
