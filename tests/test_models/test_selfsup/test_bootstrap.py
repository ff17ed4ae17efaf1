"""BYOL: a step against independent code, mmpretrain's BYOL, and collapse."""

import copy

import pytest
import torch
from mmpretrain.registry import MODELS
from small_contrast import BACKBONE, batch_of, build, relative_distance, sgd_step
from test_momentum_contrast import step

from sspyr_mm.models import BootstrapHead, regression


def distance(prediction, target):
    """Squared distance of two vectors of unit length, float64."""
    p, t = prediction.double(), target.detach().double()
    p, t = p / (p * p).sum().sqrt(), t / (t * t).sum().sqrt()
    return ((p - t) ** 2).sum()


def one_group(num):
    return dict(type="GroupedBN", group_size=num)


def build_one_group():
    """A model whose batch norm takes all images of a view, as mmpretrain's does on one process."""
    norm = one_group(8)
    neck = dict(type="MLPProjector", in_channels=64, hid_channels=16, out_channels=8, norm_cfg=norm, last_bias=False)
    head = dict(type="BootstrapHead", hid_channels=16, norm_cfg=norm)
    return build("Bootstrap", backbone=dict(**BACKBONE, norm_cfg=norm), neck=neck, head=head)


def test_a_step_equals_its_formula():
    """Every view passes every network by itself; the target gets no gradient; the momentum moves after the step."""
    model = build_one_group().double()
    inputs = batch_of(0, 6, model)
    other = copy.deepcopy(model)
    predictions, targets = [], []
    for view in inputs["main"]:
        z = other.neck(other.backbone(view[:, 0])[-1].mean(dim=(2, 3)))
        predictions.append(other.head.predictor(z))
        with torch.no_grad():
            feats = other.momentum["backbone"](view[:, 0])[-1].mean(dim=(2, 3))
            targets.append(other.momentum["neck"](feats))
    expected = sum(
        distance(predictions[0][i], targets[1][i]) + distance(predictions[1][i], targets[0][i]) for i in range(6)
    )
    expected = expected / 6
    expected.backward()
    losses = step(model, inputs)
    assert losses["loss_main"].item() == pytest.approx(expected.item(), rel=1e-5)
    wanted = dict(other.named_parameters())
    for name, parameter in model.named_parameters():
        if name.startswith("momentum."):
            theta = model.get_parameter(name.removeprefix("momentum."))
            torch.testing.assert_close(parameter.data, 0.9 * wanted[name] + 0.1 * theta, atol=1e-6, rtol=1e-5)
        else:
            assert relative_distance(parameter.grad, wanted[name].grad) < 1e-7, name


def test_losses_equal_those_of_mmpretrain():
    """mmpretrain's loss is -2 cos of both directions; ours is 4 - 2 cos - 2 cos."""
    ours = build_one_group()
    bn = dict(type="BN1d")
    neck = dict(type="NonLinearNeck", in_channels=64, hid_channels=16, out_channels=8, num_layers=2, norm_cfg=bn)
    theirs = MODELS.build(
        dict(
            type="BYOL",
            base_momentum=0.1,
            backbone=dict(**BACKBONE, norm_cfg=dict(type="BN")),
            neck=dict(**neck, with_bias=True, with_last_bn=False, with_avg_pool=True),
            head=dict(
                type="LatentPredictHead",
                loss=dict(type="CosineSimilarityLoss"),
                predictor=dict(**{**neck, "in_channels": 8}, with_bias=True, with_last_bn=False, with_avg_pool=False),
            ),
        )
    ).train()
    theirs.target_net.momentum = 0.1
    theirs.target_net.avg_func = lambda averaged, source, steps: averaged.lerp_(source, 0.1)
    theirs.backbone.load_state_dict(ours.backbone.state_dict())
    for module, mlp in ((theirs.neck, ours.neck.mlp), (theirs.head.predictor, ours.head.predictor)):
        names = ("fc0", "bn0", "fc1")
        for name, layer in zip(names, (mlp[0], mlp[1], mlp[3]), strict=True):
            getattr(module, name).load_state_dict(layer.state_dict())
    theirs.target_net.module.load_state_dict(torch.nn.Sequential(theirs.backbone, theirs.neck).state_dict())
    ours, theirs = ours.double(), theirs.double()
    for number in range(3):
        inputs = batch_of(number, 6, ours)
        mine = step(ours, inputs, lr=0.01)["loss_main"]
        other = theirs.loss([inputs["main"][0, :, 0], inputs["main"][1, :, 0]], None)["loss"]
        sgd_step(theirs, other, 0.01)
        assert mine.item() == pytest.approx(4 + other.item(), abs=1e-9)


def test_known_values():
    torch.manual_seed(0)
    z, other = torch.randn(2000, 256), torch.randn(2000, 256)
    assert regression(z, z).item() == pytest.approx(0, abs=1e-5)
    assert regression(z, -3 * z).item() == pytest.approx(4, abs=1e-5)
    assert regression(z, other).item() == pytest.approx(2, abs=0.02)
    assert regression(5 * z, other).item() == pytest.approx(regression(z, other).item(), rel=1e-6)


def test_collapse_is_measured_on_the_targets():
    head = BootstrapHead(16, 8, norm_cfg=dict(type="BN"))
    torch.manual_seed(0)
    spread = [torch.randn(200, 16), torch.randn(200, 16)]
    equal = [torch.ones(200, 16), torch.ones(200, 16)]
    assert head.loss(spread, spread)["collapse_ratio_main"].item() == pytest.approx(0, abs=0.03)
    assert head.loss(spread, equal)["collapse_ratio_main"].item() == pytest.approx(1, abs=1e-5)
    assert "collapsed" in head.stuck_advice("main")
