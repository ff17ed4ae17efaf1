"""Source formats: the right tensors are read, and the backbone equals the network they come from."""

import layouts
import pytest
import timm
import torch
from backbone_checks import assert_identical, assert_same_features, map_of, scatter
from mmseg.models.backbones import ResNetV1c, ResNetV1d
from torch import nn

from sspyr_mm.checkpoints import build_backbone, read_backbone
from sspyr_mm.checkpoints.formats import FORMATS

IMAGENET_STD = (58.395, 57.12, 57.375)


def read(content, path, **kwargs):
    torch.save(content, path, **kwargs)
    return read_backbone(path)


@torch.no_grad()
def features(checkpoint, image):
    (last,) = build_backbone(checkpoint)(image)
    return last


@pytest.mark.parametrize("name", layouts.LAYOUTS)
def test_resnet50_is_found_in_every_layout(name, backbone50, tmp_path):
    checkpoint = read(layouts.LAYOUTS[name](backbone50), tmp_path / "x.bin")
    assert checkpoint.source == name.split("/")[0]
    assert checkpoint.backbone == {"type": "ResNet", "depth": 50}
    assert_identical(checkpoint.state_dict, backbone50)
    assert checkpoint.mean == (123.675, 116.28, 103.53) and checkpoint.patch is None
    unusual = checkpoint.source in ("ssprl_official", "swav")
    std = (58.14, 57.12, 57.375) if unusual else IMAGENET_STD
    assert checkpoint.std == pytest.approx(std)


def test_no_random_weights_are_drawn_for_those_of_a_file(small, tmp_path):
    before = torch.get_rng_state()
    network = build_backbone(read(small, tmp_path / "x.pth"))
    assert torch.equal(torch.get_rng_state(), before)
    assert_identical(network.state_dict(), small)


def test_every_format_has_a_test():
    tested = {name.split("/")[0] for name in layouts.LAYOUTS} | {"torchvision", "timm", "detectron2", "sequential"}
    assert tested == {row.name for row in FORMATS}


def test_official_network_with_separate_padding(backbone50, photograph, tmp_path):
    """The official network pads by 1 in a separate layer, and by 2 more in its first convolution."""

    class Official(nn.Module):
        def __init__(self):
            super().__init__()
            from torchvision.models import resnet50

            self.net = resnet50()
            self.net.conv1.padding = (2, 2)
            self.pad = nn.ConstantPad2d(1, 0.0)

        def forward(self, x):
            return map_of(self.net, self.pad(x))

    network = Official().eval()
    network.net.load_state_dict(backbone50, strict=False)
    checkpoint = read(layouts.ssprl_official(backbone50), tmp_path / "x.pth")
    assert_same_features(features(checkpoint, photograph), network(photograph))


@pytest.mark.parametrize("wrap", ["bare", "state_dict", "old format"])
def test_torchvision_resnet_is_read(wrap, resnet50, backbone50, features50, photograph, tmp_path):
    state = resnet50.state_dict()
    content = {"state_dict": state} if wrap == "state_dict" else state
    zipped = wrap != "old format"
    checkpoint = read(content, tmp_path / "x.pth", _use_new_zipfile_serialization=zipped)
    assert checkpoint.source == "torchvision"
    assert checkpoint.backbone == {"type": "ResNet", "depth": 50}
    assert_identical(checkpoint.state_dict, backbone50)
    if wrap == "bare":  # a network is built from these two alone, which are equal in all layouts
        assert_same_features(features(checkpoint, photograph), features50)


@pytest.mark.parametrize(
    ("name", "source", "backbone"),
    [
        ("resnet50", "torchvision", {"depth": 50}),
        ("resnet18", "torchvision", {"depth": 18}),
        ("resnet34", "torchvision", {"depth": 34}),
        ("resnet101", "torchvision", {"depth": 101}),
        ("resnet50c", "timm", {"depth": 50, "deep_stem": True}),
        ("resnet50d", "timm", {"depth": 50, "deep_stem": True, "avg_down": True}),
        ("resnet18d", "timm", {"depth": 18, "deep_stem": True, "avg_down": True}),
    ],
)
def test_timm_resnets_are_read(name, source, backbone, photograph, tmp_path):
    network = scatter(timm.create_model(name), seed=2)
    checkpoint = read(network.state_dict(), tmp_path / "x.pth")
    assert checkpoint.source == source
    assert checkpoint.backbone == {"type": "ResNet", **backbone}
    with torch.no_grad():
        expected = network.forward_features(photograph)
    assert_same_features(features(checkpoint, photograph), expected)


@pytest.mark.parametrize("layout", [layouts.detectron2, layouts.detectron2_detector])
def test_detectron2_resnet_is_read(layout, resnet50, backbone50, tmp_path):
    checkpoint = read(layout(resnet50), tmp_path / "x.pth")
    assert checkpoint.source == "detectron2"
    assert checkpoint.backbone == {"type": "ResNet", "depth": 50}
    # The frozen batch norm of Detectron2 does not count batches.
    zero = {k: v if "num_batches" not in k else torch.zeros_like(v) for k, v in backbone50.items()}
    assert_identical(checkpoint.state_dict, zero)


@pytest.mark.parametrize("cls", [ResNetV1c, ResNetV1d])
@pytest.mark.parametrize("depth", [18, 50])
def test_deep_stems_of_mmseg_are_read(cls, depth, photograph, tmp_path):
    network = scatter(cls(depth=depth, norm_cfg={"type": "BN"}), seed=3)
    checkpoint = read(layouts.mmseg(network.state_dict()), tmp_path / "x.pth")
    assert checkpoint.source == "mmseg" and checkpoint.backbone["deep_stem"] is True
    assert checkpoint.backbone.get("avg_down", False) is (cls is ResNetV1d)
    with torch.no_grad():
        expected = network(photograph)[-1]
    assert_same_features(features(checkpoint, photograph), expected)


# --------------------------------------------------------------------------------------------------- rejected


def test_unknown_names_list_the_formats(tmp_path):
    state = {"vision_model.embeddings.weight": torch.ones(2), "logit_scale": torch.ones(1)}
    with pytest.raises(ValueError, match=r"no ResNet in a known format.*vision_model.embeddings") as error:
        read(state, tmp_path / "x.pth")
    for row in FORMATS:
        assert row.name in str(error.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda s: [s.pop(k) for k in list(s) if "layer4.2." in k],
            r"read as moco_v2 with .* ResNet\(depth=50\).*15 tensors of 318 missing: layer4.2.conv1.weight, ",
        ),
        (lambda s: s.pop("module.encoder_q.layer1.0.bn1.running_mean"), "1 tensors of 318 missing"),
        (
            lambda s: s.update({"module.encoder_q.layer1.0.se.fc1.weight": torch.ones(1)}),
            "1 tensors unexpected: layer1.0.se.fc1.weight$",
        ),
        (
            lambda s: s.update({"module.encoder_q.conv1.weight": torch.ones(64, 3, 3, 3)}),
            r"1 tensors of another shape: conv1.weight \(64, 3, 3, 3\), expected \(64, 3, 7, 7\)",
        ),
        (lambda s: s.update({"module.encoder_q.layer1.0.conv1.weight": torch.ones(10**9, 0)}), "of another shape"),
        (
            lambda s: s["module.encoder_q.layer4.0.conv1.weight"].view(-1)[7:8].fill_(torch.nan),
            "1 tensors with NaN or infinity: layer4.0.conv1.weight$",
        ),
        (
            lambda s: s["module.encoder_q.bn1.running_var"][:1].fill_(torch.inf),
            "1 tensors with NaN or infinity: bn1.running_var$",
        ),
        (
            lambda s: s.update({"module.encoder_q.bn1.bias": torch.ones(64, dtype=torch.complex64)}),
            "1 tensors of complex numbers: bn1.bias$",
        ),
        (
            lambda s: s.update(
                {"module.encoder_q.bn1.bias": torch.nested.nested_tensor([torch.ones(2), torch.ones(3)])}
            ),
            "bn1.bias is a sparse, quantised, nested or empty tensor",
        ),
    ],
)
def test_incomplete_backbones_are_rejected(change, message, backbone50, tmp_path):
    content = layouts.moco({name: tensor.clone() for name, tensor in backbone50.items()})
    change(content["state_dict"])
    with pytest.raises(ValueError, match=message):
        read(content, tmp_path / "x.pth")


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float16, torch.bfloat16])
def test_weights_of_few_bits_are_read(dtype, small, tmp_path):
    state = {name: tensor.to(dtype) if tensor.is_floating_point() else tensor for name, tensor in small.items()}
    found = read(state, tmp_path / "x.pth").state_dict["conv1.weight"]
    assert torch.equal(found.float(), small["conv1.weight"].to(dtype).float())


def test_key_encoder_is_not_used_as_backbone(backbone50, tmp_path):
    content = layouts.moco(backbone50)
    state = {k: v for k, v in content["state_dict"].items() if "encoder_q" not in k}
    with pytest.raises(ValueError, match=r"momentum encoder without .* encoder_k\. \(.*--prefix"):
        read({"state_dict": state}, tmp_path / "x.pth")


def test_two_sources_of_layer4_are_rejected(backbone50, tmp_path):
    content = layouts.insloc_c4(backbone50)
    content["state_dict"]["backbone.layer4.0.conv1.weight"] = torch.ones(512, 1024, 1, 1)
    with pytest.raises(ValueError, match=r"Two tensors map to the backbone's layer4.0.conv1"):
        read(content, tmp_path / "x.pth")


def test_several_networks_are_rejected(backbone50, tmp_path):
    content = {"state_dict": backbone50, "model": layouts.decoy(backbone50, 1)}
    with pytest.raises(ValueError, match=r"several networks: state_dict \(318 tensors\), model \(318 tensors\).*--key"):
        read(content, tmp_path / "x.pth")


def test_tensors_outside_the_entry_are_ignored(backbone50, tmp_path):
    content = {"state_dict": backbone50, "best_acc1": torch.tensor(71.5), "epoch": 3}
    assert_identical(read(content, tmp_path / "x.pth").state_dict, backbone50)


def test_missing_counters_are_zero(backbone50, tmp_path):
    state = {k: v for k, v in backbone50.items() if not k.endswith("num_batches_tracked")}
    checkpoint = read(layouts.swav(state), tmp_path / "x.pth")
    assert checkpoint.state_dict["bn1.num_batches_tracked"].item() == 0
    assert list(checkpoint.state_dict) == list(backbone50)


@pytest.mark.parametrize(("depth", "width"), [(18, 128), (34, 64), (50, 16), (152, 8)])
def test_depth_and_width_are_inferred(depth, width, tmp_path):
    from mmpretrain.models import ResNet

    network = ResNet(depth, stem_channels=width, base_channels=width)
    checkpoint = read(network.state_dict(), tmp_path / "x.pth")
    widths = {} if width == 64 else {"stem_channels": width, "base_channels": width}
    assert checkpoint.backbone == {"type": "ResNet", "depth": depth, **widths}
    assert checkpoint.source == "plain"
