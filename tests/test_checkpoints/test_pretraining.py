"""Whole models of our pre-training, read from their checkpoints, and the same networks at random."""

import math
import re

import pytest
import torch
from backbone_checks import assert_identical
from mmengine.config import Config
from pretrained_files import NARROW, pretrain

from sspyr_mm.benchmarks.networks import Network, random_network
from sspyr_mm.checkpoints import Selection, export_backbone, inspect_checkpoint, load_pretraining, read_backbone


def test_whole_models_are_still_loaded(tmp_path):
    model = pretrain(tmp_path / "x.pth", NARROW, 64)
    assert_identical(load_pretraining(tmp_path / "x.pth")[1].state_dict(), model.state_dict())


@pytest.mark.parametrize("module", ["backbone.layer4.1.bn2", "neck.projectors.s0.0", "head.prototypes.s1"])
@pytest.mark.parametrize("wrong", ["missing", "unexpected"])
def test_whole_models_must_be_complete(module, wrong, tmp_path):
    """What is missing would stay as random as the network was made."""
    pretrain(tmp_path / "x.pth", NARROW, 64)
    content = torch.load(tmp_path / "x.pth")
    state = content["state_dict"]
    if wrong == "missing":
        del state[f"{module}.weight"]
    else:
        state[f"{module}.extra"] = torch.ones(1)
    torch.save(content, tmp_path / "x.pth")
    name = f"{module}.{'weight' if wrong == 'missing' else 'extra'}"
    with pytest.raises(ValueError, match=re.escape(name)):
        load_pretraining(tmp_path / "x.pth")


def test_whole_models_are_read_through_wrappers_and_averages(tmp_path):
    model = pretrain(tmp_path / "x.pth", NARROW, 64)
    content = torch.load(tmp_path / "x.pth")
    averaged, raw = content["state_dict"], {}
    for name, tensor in averaged.items():
        raw[f"module.{name}"] = tensor + 1
    content["ema_state_dict"] = {"steps": torch.tensor(3), **raw}
    content["state_dict"] = {f"_orig_mod.{k}": v for k, v in averaged.items()}
    torch.save(content, tmp_path / "x.pth")
    for ema in (None, True):
        _, found = load_pretraining(tmp_path / "x.pth", select=Selection(ema=ema))
        assert_identical(found.state_dict(), model.state_dict())
    _, found = load_pretraining(tmp_path / "x.pth", select=Selection(ema=False))
    assert torch.equal(found.backbone.conv1.weight, model.backbone.conv1.weight + 1)
    checkpoint = read_backbone(tmp_path / "x.pth", select=Selection(ema=False))
    assert checkpoint.source == "sspyr_mm"
    assert torch.equal(checkpoint.state_dict["conv1.weight"], model.backbone.conv1.weight + 1)


def test_weight_of_the_cross_scale_loss_is_read_under_its_former_name(tmp_path):
    model = pretrain(tmp_path / "x.pth", NARROW, 64)
    content = torch.load(tmp_path / "x.pth")
    cfg = Config.fromstring(content["meta"]["cfg"], ".py")
    cfg.model.head.pop("cross_scale_loss", None)
    cfg.model.head.cross_weight = 0.7
    content["meta"]["cfg"] = cfg.pretty_text
    torch.save(content, tmp_path / "x.pth")
    _, found = load_pretraining(tmp_path / "x.pth")
    assert found.head.cross_scale_loss.loss_weight == 0.7
    assert_identical(found.state_dict(), model.state_dict())


def test_config_of_another_version_is_reported(tmp_path):
    pretrain(tmp_path / "x.pth", NARROW, 64)
    content = torch.load(tmp_path / "x.pth")
    cfg = Config.fromstring(content["meta"]["cfg"], ".py")
    cfg.model.head.sharpness = 1
    content["meta"]["cfg"] = cfg.pretty_text
    torch.save(content, tmp_path / "x.pth")
    with pytest.raises(ValueError, match=r"does not match this version of sspyr_mm: .*sharpness"):
        load_pretraining(tmp_path / "x.pth")


@pytest.mark.parametrize("where", ["pretrained", "model", "backbone"])
def test_a_random_network_starts_from_no_file(where, tmp_path):
    start = tmp_path / "start.pth"
    pretrain(start, NARROW, 64)
    init = {"type": "Pretrained", "checkpoint": str(start), "prefix": "backbone."}
    if where == "backbone":
        pretrain(tmp_path / "x.pth", {**NARROW, "init_cfg": init}, 64)
    else:
        options = {"pretrained": str(start)} if where == "pretrained" else {"init_cfg": init}
        pretrain(tmp_path / "x.pth", NARROW, 64, **options)
    checkpoint = read_backbone(tmp_path / "x.pth")
    random = random_network(checkpoint).checkpoint
    # The file's statistics are random, those of a new network are not.
    state = random.state_dict
    assert state["bn1.running_mean"].eq(0).all()
    assert not checkpoint.state_dict["bn1.running_mean"].eq(0).any()
    assert not torch.equal(state["conv1.weight"], checkpoint.state_dict["conv1.weight"])


def test_decoding_options_of_training_are_read_and_exported(tmp_path):
    options = {"value_range": (0, 4095), "background": (1, 2, 3)}
    pipeline = [{"type": "LoadRGBImage", "backend_args": None, "max_pixels": 99, **options}]
    loader = {"dataset": {"type": "RepeatDataset", "dataset": {"pipeline": pipeline}}}
    pretrain(tmp_path / "x.pth", NARROW, 64, train_dataloader=loader)
    assert read_backbone(tmp_path / "x.pth").decoding == options
    for prefix in ("backbone", "module.backbone."):
        found = read_backbone(tmp_path / "x.pth", select=Selection(prefix=prefix))
        assert found.decoding == options and found.source == "sspyr_mm"
    for name, target in (("out.pth", "mmpretrain"), ("out.safetensors", "safetensors")):
        export_backbone(tmp_path / "x.pth", tmp_path / name, target=target)
        for select in (None, Selection(prefix="")):
            assert read_backbone(tmp_path / name, select=select).decoding == options
    assert inspect_checkpoint(tmp_path / "out.pth")["decoding"] == options
    pretrain(tmp_path / "plain.pth", NARROW, 64)
    assert read_backbone(tmp_path / "plain.pth").decoding == {}
    identity = {Network("n", read_backbone(tmp_path / name), None).identity for name in ("x.pth", "plain.pth")}
    assert len(identity) == 2


def test_decoding_options_of_parts_that_differ_are_reported(tmp_path):
    parts = [{"type": "LoadRGBImage"}, {"type": "LoadRGBImage", "value_range": (0, 9)}]
    loader = {"dataset": {"datasets": [{"pipeline": [part]} for part in parts]}}
    pretrain(tmp_path / "x.pth", NARROW, 64, train_dataloader=loader)
    with pytest.warns(UserWarning, match=r"decoded differently .*'value_range': \(0, 9\)"):
        assert read_backbone(tmp_path / "x.pth").decoding == {}


@pytest.mark.parametrize(
    "options",
    [
        {"value_range": "0,4095"},
        {"value_range": (0, math.nan)},
        {"value_range": (0, 1, 2)},
        {"background": {1, 2, 3}},
        {"background": (1, 2, True)},
        "value_range=(0,4095)",
    ],
)
def test_decoding_options_of_wrong_types_are_refused(options, tmp_path):
    pretrain(tmp_path / "x.pth", NARROW, 64)
    export_backbone(tmp_path / "x.pth", tmp_path / "out.pth")
    content = torch.load(tmp_path / "out.pth")
    content["meta"]["decoding"] = options
    torch.save(content, tmp_path / "out.pth")
    with pytest.raises(ValueError, match=r"out\.pth: .* must be .*, got"):
        read_backbone(tmp_path / "out.pth", allow_pickle=True)


def test_a_prefix_without_a_network_is_refused(tmp_path):
    pretrain(tmp_path / "x.pth", NARROW, 64)
    with pytest.raises(ValueError, match=r"no ResNet under --prefix neck\.; .* backbone\. \("):
        read_backbone(tmp_path / "x.pth", select=Selection(prefix="neck"))
    assert read_backbone(tmp_path / "x.pth", select=Selection(prefix="backbone")).patch == 64
