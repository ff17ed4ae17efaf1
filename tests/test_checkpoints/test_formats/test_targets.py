"""Target formats: other programs load the file, and reading it back gives identical tensors."""

import os
import pickle
import stat

import numpy as np
import pytest
import timm
import torch
import torchvision
from backbone_checks import assert_identical, assert_same_features, map_of, scatter
from layouts import detectron2_tensors, ssprl_official
from mmpretrain.registry import MODELS as PRETRAIN
from mmseg.registry import MODELS as SEG
from safetensors.torch import load_file

from sspyr_mm.checkpoints import build_backbone, export_backbone, read_backbone, write_backbone
from sspyr_mm.checkpoints.formats import TARGETS


@pytest.fixture(scope="session")
def official_file(backbone50, tmp_path_factory):
    path = tmp_path_factory.mktemp("official") / "official.pth"
    torch.save(ssprl_official(backbone50), path)
    return path


@pytest.fixture(scope="session")
def official(official_file):
    return read_backbone(official_file)


@pytest.fixture(scope="session")
def resnet18():
    return scatter(timm.create_model("resnet18", num_classes=0), seed=8).state_dict()


@pytest.fixture(scope="session", params=["resnet50c", "resnet18d", "resnet50d"])
def deep_stem(request, tmp_path_factory):
    """A file of timm with a deep stem, its tensors, and what is read from it."""
    state = scatter(timm.create_model(request.param, num_classes=0), seed=5).state_dict()
    path = tmp_path_factory.mktemp("deep_stem") / f"{request.param}.pth"
    torch.save(state, path)
    return path, state, read_backbone(path)


def named(target):
    return f"out{TARGETS[target].ending}"


@pytest.mark.parametrize("full_prefix", [False, True])
@pytest.mark.parametrize("target", TARGETS)
def test_round_trip_is_exact(target, full_prefix, official_file, official, backbone50, tmp_path):
    out = tmp_path / "sub" / named(target)
    if full_prefix and not TARGETS[target].prefixable:
        with pytest.raises(ValueError, match=f"names of {target} have no prefix"):
            export_backbone(official_file, out, target=target, full_prefix=True)
        return
    number = write_backbone(official, out, path=official_file, target=target, full_prefix=full_prefix)
    assert number == len(backbone50) == 318
    back = read_backbone(out)
    assert_identical(back.state_dict, backbone50)
    assert back.backbone == {"type": "ResNet", "depth": 50}
    if TARGETS[target].prefixable:  # these store the format and the normalisation
        assert back.source == "sspyr_mm_backbone"
        assert back.std == official.std and back.std[0] == pytest.approx(58.14)
    else:
        assert back.source == {"torchvision": "plain", "timm": "plain"}.get(target, target)
    assert sorted(p.name for p in out.parent.iterdir()) == [out.name]


@pytest.mark.parametrize("target", ["mmpretrain", "mmdet", "mmseg", "timm", "safetensors"])
def test_round_trip_of_deep_stems(target, deep_stem, tmp_path):
    path, state, read = deep_stem
    out = tmp_path / named(target)
    write_backbone(read, out, path=path, target=target)
    assert_identical(read_backbone(out).state_dict, read.state_dict)
    if target == "timm":
        assert_identical(torch.load(out), dict(state))


def test_torchvision_loads_the_export(official_file, photograph, features50, tmp_path):
    export_backbone(official_file, tmp_path / "out", target="torchvision")
    network = torchvision.models.resnet50().eval()
    result = network.load_state_dict(torch.load(tmp_path / "out"), strict=False)
    assert (result.missing_keys, result.unexpected_keys) == (["fc.weight", "fc.bias"], [])
    assert_same_features(map_of(network, photograph), features50)


def test_timm_loads_the_export(official_file, photograph, features50, tmp_path):
    export_backbone(official_file, tmp_path / "out", target="timm")
    network = timm.create_model("resnet50", num_classes=0).eval()
    network.load_state_dict(torch.load(tmp_path / "out"), strict=True)
    with torch.no_grad():
        assert_same_features(network.forward_features(photograph), features50)


def test_detectron2_export_has_its_names(official_file, resnet50, tmp_path):
    export_backbone(official_file, tmp_path / "out.pkl", target="detectron2")
    with open(tmp_path / "out.pkl", "rb") as file:
        content = pickle.load(file, encoding="latin1")  # as DetectionCheckpointer does
    assert content["matching_heuristics"] is True and isinstance(content["__author__"], str)
    assert all(isinstance(v, np.ndarray) and v.flags.writeable for v in content["model"].values())
    written = {k: torch.from_numpy(v) for k, v in content["model"].items() if "num_batches" not in k}
    expected = {k: torch.from_numpy(v) for k, v in detectron2_tensors(resnet50).items()}
    assert_identical(dict(sorted(written.items())), dict(sorted(expected.items())))


@pytest.mark.parametrize(
    ("registry", "target", "scope", "variant", "full_prefix"),
    [
        (PRETRAIN, "mmpretrain", "mmpretrain", "ResNet", False),
        (PRETRAIN, "mmpretrain", "mmpretrain", "ResNet", True),
        (SEG, "mmseg", "mmseg", "ResNet", False),
        (SEG, "mmseg", "mmseg", "ResNetV1c", True),
        (SEG, "mmseg", "mmseg", "ResNetV1d", False),
        (PRETRAIN, "mmpretrain", "mmpretrain", "ResNetV1d", True),
    ],
)
def test_init_cfg_loads_every_tensor(registry, target, scope, variant, full_prefix, photograph, tmp_path):
    name = {"ResNet": "resnet50", "ResNetV1c": "resnet50c", "ResNetV1d": "resnet50d"}[variant]
    source = scatter(timm.create_model(name, num_classes=0), seed=6)
    first, out = tmp_path / "first.pth", tmp_path / "out.pth"
    torch.save(source.state_dict(), first)
    export_backbone(first, out, target=target, full_prefix=full_prefix)
    init = {"type": "Pretrained", "checkpoint": str(out)}
    if full_prefix:
        init["prefix"] = "backbone."
    norm = {"type": "BN", "requires_grad": True}
    network = registry.build({"type": f"{scope}.{variant}", "depth": 50, "norm_cfg": norm, "init_cfg": init})
    network.init_weights()
    network.eval()
    with torch.no_grad():
        assert_same_features(network(photograph)[-1], source.forward_features(photograph))


def narrow(tmp_path):
    from mmpretrain.models import ResNet

    path = tmp_path / "narrow.pth"
    network = scatter(ResNet(18, stem_channels=16, base_channels=16), seed=7)
    torch.save(network.state_dict(), path)
    return path


@pytest.mark.parametrize("target", ["mmpretrain", "mmdet", "mmseg", "detectron2", "safetensors"])
def test_round_trip_of_a_narrow_network(target, tmp_path):
    path, out = narrow(tmp_path), tmp_path / named(target)
    export_backbone(path, out, target=target)
    assert_identical(read_backbone(out).state_dict, read_backbone(path).state_dict)


@pytest.mark.parametrize("target", ["torchvision", "timm"])
def test_unsupported_widths_are_rejected(target, tmp_path):
    message = rf"narrow.pth can't be written for {target}: {target} has no ResNet with \w+_channels=16"
    with pytest.raises(ValueError, match=message):
        export_backbone(narrow(tmp_path), tmp_path / "out", target=target)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("target", ["torchvision", "detectron2"])
def test_unsupported_deep_stems_are_rejected(target, tmp_path):
    torch.save(timm.create_model("resnet18d").state_dict(), tmp_path / "x.pth")
    with pytest.raises(ValueError, match=f"{target} has no ResNet with (deep_stem|avg_down)=True"):
        export_backbone(tmp_path / "x.pth", tmp_path / named(target), target=target)


@pytest.mark.parametrize("target", ["torchvision", "timm", "detectron2"])
def test_caffe_style_is_rejected(target, backbone50, tmp_path):
    meta = {"backbone": {"type": "ResNet", "depth": 50, "style": "caffe"}}
    torch.save({"state_dict": backbone50, "meta": meta}, tmp_path / "x.pth")
    with pytest.raises(ValueError, match=f"{target} has no ResNet with style='caffe', only with"):
        export_backbone(tmp_path / "x.pth", tmp_path / named(target), target=target)


@pytest.mark.parametrize("target", TARGETS)
def test_export_is_deterministic(target, resnet18, tmp_path, monkeypatch):
    path = tmp_path / "x.pth"
    torch.save(resnet18, path)
    contents = set()
    for number in range(2):  # as of two processes
        monkeypatch.setattr(os, "getpid", lambda number=number: 10 * number)
        out = tmp_path / str(number) / named(target)
        export_backbone(path, out, target=target)
        contents.add(out.read_bytes())
    assert len(contents) == 1


@pytest.mark.parametrize("target", ["mmpretrain", "safetensors"])
def test_umask_is_respected(target, tmp_path):
    path, out = narrow(tmp_path), tmp_path / named(target)
    before = os.umask(0o027)
    try:
        export_backbone(path, out, target=target)
    finally:
        os.umask(before)
    assert stat.S_IMODE(out.stat().st_mode) == 0o640


def test_safetensors_export_is_valid(tmp_path):
    from safetensors import safe_open

    path, out = narrow(tmp_path), tmp_path / "out.safetensors"
    export_backbone(path, out, target="safetensors")
    expected = read_backbone(path).state_dict
    assert_identical(dict(sorted(load_file(out).items())), dict(sorted(expected.items())))
    assert (8 + int.from_bytes(out.read_bytes()[:8], "little")) % 8 == 0
    with safe_open(out, framework="pt") as file:
        assert set(file.metadata()) == {"format", "sspyr_mm", "sspyr_mm_sha256"} and file.metadata()["format"] == "pt"


def test_wrong_file_endings_are_rejected(tmp_path):
    path = tmp_path / "never-read.pth"
    with pytest.raises(ValueError, match=r"out\.pth must end in \.safetensors, by which .*\(--to\)"):
        export_backbone(path, tmp_path / "out.pth", target="safetensors")
    with pytest.raises(ValueError, match=r"out\.pth must end in \.pkl, by which .*\(--to\)"):
        export_backbone(path, tmp_path / "out.pth", target="detectron2")
    message = r"out\.safetensors ends in \.safetensors, but mmdet needs a file of torch\.save: name it \.pth"
    with pytest.raises(ValueError, match=message):
        export_backbone(path, tmp_path / "out.safetensors", target="mmdet")


def test_unknown_target_is_rejected(official_file, tmp_path):
    with pytest.raises(ValueError, match=r"target must be one of mmpretrain, .*, got 'keras'"):
        export_backbone(official_file, tmp_path / "out", target="keras")


def test_source_checkpoint_is_not_overwritten(official_file):
    before = official_file.read_bytes()
    with pytest.raises(ValueError, match="is the checkpoint itself"):
        export_backbone(official_file, official_file)
    assert official_file.read_bytes() == before


def test_failed_write_leaves_no_file(official_file, tmp_path, monkeypatch):
    def fail(content, file):
        file.write(b"half")
        raise OSError("No space left on device")

    monkeypatch.setattr(torch, "save", fail)
    out = tmp_path / "sub" / "out.pth"
    with pytest.raises(OSError, match="No space left"):
        export_backbone(official_file, out)
    assert not list(out.parent.iterdir())


def test_built_backbone_is_in_evaluation_mode_on_the_cpu(official_file):
    network = build_backbone(read_backbone(official_file))
    assert not network.training and not any(m.training for m in network.modules())
    assert not any(isinstance(m, torch.nn.SyncBatchNorm) for m in network.modules())
    assert {p.device.type for p in network.parameters()} == {"cpu"}
