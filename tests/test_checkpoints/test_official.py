"""Official checkpoints are converted to checkpoints from which training continues."""

import pytest
import torch
from backbone_checks import assert_identical, map_of
from layouts import official_heads, ssprl_official
from mmengine.config import Config
from mmengine.runner import Runner
from torch.nn import functional as F

from sspyr_mm.checkpoints import convert_official, export_backbone, load_pretraining, read_backbone


@pytest.fixture
def official(backbone50, tmp_path):
    torch.manual_seed(0)
    path = tmp_path / "official.pth"
    content = ssprl_official(backbone50)
    torch.save(content, path)
    return path, {k.removeprefix("module."): v for k, v in content["state_dict"].items()}


def mlp(state, name, x):
    """Returns the outputs of an official projector, computed from its tensors."""
    x = F.linear(x, state[f"{name}.0.weight"], state[f"{name}.0.bias"])
    norm = [state[f"{name}.1.{k}"] for k in ("running_mean", "running_var", "weight", "bias")]
    x = F.relu(F.batch_norm(x, *norm))
    return F.normalize(F.linear(x, state[f"{name}.3.weight"], state[f"{name}.3.bias"]), dim=1)


def test_converted_model_equals_the_official_one(official, resnet50, photograph, tmp_path):
    path, state = official
    out = tmp_path / "ours.pth"
    number = convert_official(path, out)
    cfg, model = load_pretraining(out)
    assert number == len(model.state_dict())
    feats = map_of(resnet50, photograph).mean((2, 3)).repeat(4, 1) * torch.rand(4, 2048)
    names = {"s0": "projection_head", "s1": "l_pro_head0", "s2": "l_pro_head1"}
    prototypes = {"s0": "ptypes", "s1": "local_ptypes0", "s2": "local_ptypes1"}
    with torch.no_grad():
        for scale in model.pyramid.scales:
            z = mlp(state, names[scale.name], feats)
            torch.testing.assert_close(model.neck(feats, scale.name), z, atol=1e-6, rtol=1e-5)
            # The official code normalises prototypes before each forward pass.
            unit = F.normalize(state[f"{prototypes[scale.name]}.weight"], dim=1)
            assert scale.num_prototypes == len(unit)
            torch.testing.assert_close(model.head.prototypes_of(scale)(z), z @ unit.T)
        for i, name in enumerate(("s1", "s2")):
            scores = torch.randn(3, 4, (8, 6)[i])
            unit = F.normalize(state[f"l2g_ptypes{i}.weight"], dim=1)
            theirs = F.log_softmax(F.normalize(scores.mean(1), dim=1) @ unit.T / 0.1, dim=1)
            torch.testing.assert_close(model.head.correlation[name](scores), theirs)
    assert cfg.model.head.variant == "official"
    assert [s.grid for s in model.pyramid.scales] == [1, 2, 3]
    assert_identical(dict(model.backbone.state_dict()), read_backbone(path).state_dict)


def test_converted_file_has_our_format(official, tmp_path):
    path, _ = official
    convert_official(path, tmp_path / "ours.pth")
    checkpoint = read_backbone(tmp_path / "ours.pth")
    assert (checkpoint.source, checkpoint.patch) == ("sspyr_mm", 224)
    assert checkpoint.std == pytest.approx((58.14, 57.12, 57.375))
    export_backbone(tmp_path / "ours.pth", tmp_path / "out.pth", target="timm")
    assert_identical(torch.load(tmp_path / "out.pth"), read_backbone(path).state_dict)


def test_training_continues_from_it(official, tmp_path):
    """``--cfg-options load_from=OUT`` loads every tensor, and the head accepts them."""
    path, _ = official
    convert_official(path, tmp_path / "ours.pth")
    cfg, model = load_pretraining(tmp_path / "ours.pth")
    expected = {k: v.clone() for k, v in model.state_dict().items()}
    training = Config(
        {
            "model": cfg.model.to_dict(),
            "load_from": str(tmp_path / "ours.pth"),
            "default_scope": "mmpretrain",
            "work_dir": str(tmp_path / "work"),
            "custom_imports": {"imports": ["sspyr_mm"]},
            "experiment_name": "official",
        }
    )
    runner = Runner.from_cfg(training)
    runner.load_or_resume()
    assert_identical(dict(runner.model.state_dict()), expected)


def test_one_local_level_is_two_scales(backbone50, tmp_path):
    state = {**backbone50, **official_heads(counts=(12, 8))}
    torch.save({"state_dict": state}, tmp_path / "x.pth")
    convert_official(tmp_path / "x.pth", tmp_path / "out.pth")
    _, model = load_pretraining(tmp_path / "out.pth")
    assert [s.num_prototypes for s in model.pyramid.scales] == [12, 8]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("l2g_ptypes1.weight"), r"1 tensors of \d+ missing: head.correlation.s2"),
        (lambda s: s.pop("l_pro_head0.3.bias"), r"missing: neck.projectors.s1.3.bias"),
        (lambda s: s.update({"l_pro_head2.0.weight": torch.ones(1)}), "unexpected: neck.projectors.s3"),
        (
            lambda s: s.update({"local_ptypes0.weight": torch.ones(8, 5)}),
            r"another shape: head.prototypes.s1.weight \(8, 5\), expected \(8, 16\)",
        ),
        (lambda s: s.pop("ptypes.weight"), "lacks projection_head.0, projection_head.3 or ptypes"),
        (lambda s: s.pop("layer1.0.bn2.bias"), "missing: layer1.0.bn2.bias"),
    ],
)
def test_incomplete_checkpoints_are_rejected(change, message, backbone50, tmp_path):
    state = {**backbone50, **official_heads()}
    change(state)
    torch.save({"state_dict": state}, tmp_path / "x.pth")
    with pytest.raises(ValueError, match=message):
        convert_official(tmp_path / "x.pth", tmp_path / "out.pth")
    assert not (tmp_path / "out.pth").exists()


def test_other_formats_are_rejected(backbone50, tmp_path):
    torch.save(backbone50, tmp_path / "x.pth")
    with pytest.raises(ValueError, match="has the format plain: only checkpoints of the official SS-PRL"):
        convert_official(tmp_path / "x.pth", tmp_path / "out.pth")
