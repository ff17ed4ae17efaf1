"""Weights are loaded completely, or not at all."""

import pytest
import torch
from mmengine.registry import init_default_scope
from mmengine.runner.checkpoint import load_state_dict
from mmpretrain.registry import MODELS

import sspyr_mm.registration  # noqa: F401


def build(width=8, **backbone):
    init_default_scope("mmpretrain")
    net = {"type": "ResNet", "depth": 18, "stem_channels": width, "base_channels": width}
    neck = {"type": "PyramidProjector", "in_channels": 8 * width, "hid_channels": 16}
    return MODELS.build(
        {
            "type": "SSPRL",
            "pyramid": {"s0": {"region": 16, "patch": 16, "num_prototypes": 4, "alpha": 1.0}},
            "backbone": {**net, **backbone},
            "neck": {**neck, "out_channels": 8, "norm_cfg": {"type": "BN"}},
            "head": {"type": "SSPRLHead", "embed_dims": 8},
        }
    )


@pytest.mark.parametrize("load", [load_state_dict, torch.nn.Module.load_state_dict])
def test_a_complete_checkpoint_is_loaded(load):
    source, target = build(), build()
    load(target, source.state_dict())
    for name, value in target.state_dict().items():
        torch.testing.assert_close(value, source.state_dict()[name], rtol=0, atol=0)


@pytest.mark.parametrize(
    "rename", [lambda k: k.removeprefix("backbone."), lambda k: k.replace("backbone.", "encoder_q.")]
)
def test_a_backbone_under_another_name_is_refused(rename):
    state = {rename(k): v for k, v in build().state_dict().items()}
    message = r"this ResNet: (\d+) of \1 tensors are missing \(.*\)\. No tensor of it begins with 'backbone\.'\. "
    with pytest.raises(ValueError, match=message):
        load_state_dict(build(), state, strict=False)


def test_a_backbone_of_another_width_is_refused():
    with pytest.raises(ValueError, match=r"does not match this ResNet: 100 have another shape \(backbone"):
        load_state_dict(build(width=16), build().state_dict(), strict=False)


def test_a_backbone_file_of_another_naming_is_refused(tmp_path):
    backbone = build().backbone.state_dict()
    good, bad = tmp_path / "good.pth", tmp_path / "bad.pth"
    torch.save({**backbone, "fc.weight": torch.zeros(1)}, good)
    torch.save({f"encoder.{k}": v for k, v in backbone.items()}, bad)
    model = build(init_cfg={"type": "Pretrained", "checkpoint": str(good)})
    model.init_weights()
    torch.testing.assert_close(model.backbone.conv1.weight, backbone["conv1.weight"])
    model = build(init_cfg={"type": "Pretrained", "checkpoint": str(bad)})
    with pytest.raises(ValueError, match=r"tensors are missing.*It holds encoder"):
        model.init_weights()
