"""Pre-training checkpoints: whole models, backbones with decoding options, and random networks of the same kind."""

import math
import re
from contextlib import contextmanager

import pytest
import torch
from backbone_checks import assert_identical
from mmengine.config import Config
from pretrained_files import NARROW, pretrain

from sspyr_mm.benchmarks.networks import Network, random_network
from sspyr_mm.checkpoints import Selection, export_backbone, inspect_checkpoint, load_pretraining, read_backbone


@contextmanager
def changed(path):
    """Yields the content of a checkpoint, and writes it back."""
    content = torch.load(path)
    yield content
    torch.save(content, path)


@contextmanager
def changed_config(path):
    """Yields the config inside a checkpoint, and writes it back."""
    with changed(path) as content:
        cfg = Config.fromstring(content["meta"]["cfg"], ".py")
        yield cfg
        content["meta"]["cfg"] = cfg.pretty_text


def test_model_is_loaded(tmp_path):
    model = pretrain(tmp_path / "x.pth", NARROW, 64)
    assert_identical(load_pretraining(tmp_path / "x.pth")[1].state_dict(), model.state_dict())


@pytest.mark.parametrize("module", ["backbone.layer4.1.bn2", "neck.projectors.s0.0", "head.prototypes.s1"])
@pytest.mark.parametrize("wrong", ["missing", "unexpected"])
def test_mismatched_tensor_is_reported(module, wrong, tmp_path):
    """A missing tensor would keep its random initial values."""
    pretrain(tmp_path / "x.pth", NARROW, 64)
    name = f"{module}.{'weight' if wrong == 'missing' else 'extra'}"
    with changed(tmp_path / "x.pth") as content:
        if wrong == "missing":
            del content["state_dict"][name]
        else:
            content["state_dict"][name] = torch.ones(1)
    with pytest.raises(ValueError, match=re.escape(name)):
        load_pretraining(tmp_path / "x.pth")


def test_wrapped_and_averaged_models_are_loaded(tmp_path):
    model = pretrain(tmp_path / "x.pth", NARROW, 64)
    with changed(tmp_path / "x.pth") as content:
        averaged = content["state_dict"]
        raw = {f"module.{name}": tensor + 1 for name, tensor in averaged.items()}
        content["ema_state_dict"] = {"steps": torch.tensor(3), **raw}
        content["state_dict"] = {f"_orig_mod.{name}": tensor for name, tensor in averaged.items()}
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
    with changed_config(tmp_path / "x.pth") as cfg:
        cfg.model.head.pop("cross_scale_loss", None)
        cfg.model.head.cross_weight = 0.7
    _, found = load_pretraining(tmp_path / "x.pth")
    assert found.head.cross_scale_loss.loss_weight == 0.7
    assert_identical(found.state_dict(), model.state_dict())


def test_config_of_another_version_is_reported(tmp_path):
    pretrain(tmp_path / "x.pth", NARROW, 64)
    with changed_config(tmp_path / "x.pth") as cfg:
        cfg.model.head.sharpness = 1
    with pytest.raises(ValueError, match=r"does not match this version of sspyr_mm: .*sharpness"):
        load_pretraining(tmp_path / "x.pth")


@pytest.mark.parametrize("where", ["pretrained", "model", "backbone"])
def test_random_network_ignores_pretrained_weights(where, tmp_path):
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
    # Running means are random in the file, and 0 in a new network.
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
def test_decoding_options_of_wrong_types_are_rejected(options, tmp_path):
    pretrain(tmp_path / "x.pth", NARROW, 64)
    export_backbone(tmp_path / "x.pth", tmp_path / "out.pth")
    with changed(tmp_path / "out.pth") as content:
        content["meta"]["decoding"] = options
    with pytest.raises(ValueError, match=r"out\.pth: .* must be .*, got"):
        read_backbone(tmp_path / "out.pth", allow_pickle=True)


def test_prefix_without_a_network_is_rejected(tmp_path):
    pretrain(tmp_path / "x.pth", NARROW, 64)
    with pytest.raises(ValueError, match=r"no ResNet under --prefix neck\.; .* backbone\. \("):
        read_backbone(tmp_path / "x.pth", select=Selection(prefix="neck"))
    assert read_backbone(tmp_path / "x.pth", select=Selection(prefix="backbone")).patch == 64
