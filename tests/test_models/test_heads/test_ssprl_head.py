"""Losses and gradients of the head against Algorithm 1 and against the authors' code, both in float64."""

import itertools
import math

import pytest
import torch
from mmpretrain.registry import TASK_UTILS
from references.queue_list import QueueListReference
from small_head import (
    ALPHA,
    BETA,
    LOSSES,
    PROTOTYPES,
    QUEUES,
    SOLVER,
    B,
    D,
    check_step,
    make_embeddings,
    make_pyramid,
    reference_of,
)

from sspyr_mm.models import SSPRLHead
from sspyr_mm.models.losses import CrossScaleLoss, SwappedPredictionLoss


@pytest.mark.parametrize("variant", LOSSES)
@pytest.mark.parametrize("num_scales", [1, 2, 3])
@pytest.mark.parametrize("crops", [False, True], ids=["two_views", "multi_crop"])
@pytest.mark.parametrize("shared", [False, True], ids=["own_prototypes", "shared_prototypes"])
def test_losses_and_gradients(variant, num_scales, crops, shared):
    torch.manual_seed(0)
    pyramid = make_pyramid(num_scales, crops=crops, shared=shared)
    head = SSPRLHead(pyramid, D, variant=variant, shared_prototypes=shared)
    check_step(head, make_embeddings(num_scales, crops=crops), variant, {})


@pytest.mark.parametrize("variant", LOSSES)
@pytest.mark.parametrize("crops", [False, True], ids=["two_views", "multi_crop"])
@pytest.mark.parametrize("shared", [False, True], ids=["own_prototypes", "shared_prototypes"])
def test_losses_and_gradients_with_queues(variant, crops, shared):
    """Five steps: queues empty, filling, one of them full, all full, wrapped around."""
    torch.manual_seed(0)
    pyramid = make_pyramid(3, crops=crops, queues=True, shared=shared)
    head = SSPRLHead(pyramid, D, variant=variant, shared_prototypes=shared)
    queues = {f"s{s}": QueueListReference(length) for s, length in QUEUES.items()}
    full = []
    for step in range(5):
        embeddings = make_embeddings(3, crops=crops, seed=step)
        full.append(sum(queue.is_full for queue in queues.values()))
        check_step(head, embeddings, variant, queues)
        for name, queue in queues.items():
            queue.push(embeddings[name].flatten(1, 2))
    assert full == [0, 0, 1, 3, 3]


@pytest.mark.parametrize("variant", LOSSES)
def test_queues_shorter_than_a_batch(variant):
    torch.manual_seed(0)
    pyramid = make_pyramid(2)
    pyramid["s0"]["queue_length"] = 2
    pyramid["s1"]["queue_length"] = 5
    head = SSPRLHead(pyramid, D, variant=variant)
    queues = {"s0": QueueListReference(2), "s1": QueueListReference(5)}
    for step in range(3):
        embeddings = make_embeddings(2, seed=step)
        check_step(head, embeddings, variant, queues)
        for name, queue in queues.items():
            queue.push(embeddings[name].flatten(1, 2))


@pytest.mark.parametrize("variant", LOSSES)
def test_temperature_solver_and_cross_weight_are_used(variant):
    torch.manual_seed(0)
    solver = dict(epsilon=0.02, num_iterations=5)
    head = SSPRLHead(
        make_pyramid(3), D, variant=variant, temperature=0.2, assigner=solver, cross_scale_loss=dict(loss_weight=0.7)
    )
    check_step(head, make_embeddings(3), variant, {}, cross_weight=0.7, temperature=0.2, **solver)


def test_paper_is_the_default():
    torch.manual_seed(0)
    check_step(SSPRLHead(make_pyramid(3), D), make_embeddings(3), "paper", {})


@pytest.mark.parametrize("variant", LOSSES)
@pytest.mark.parametrize(
    "types",
    [
        ("SwappedPredictionLoss", "CrossScaleLoss"),
        ("mmpretrain.SwappedPredictionLoss", "mmpretrain.CrossScaleLoss"),
        (SwappedPredictionLoss, CrossScaleLoss),
    ],
    ids=["names", "scoped_names", "classes"],
)
def test_variant_sets_the_arguments_that_loss_configs_leave_out(variant, types):
    torch.manual_seed(0)
    swapped, cross_scale = (dict(type=kind) for kind in types)
    head = SSPRLHead(make_pyramid(3), D, variant=variant, swapped_loss=swapped, cross_scale_loss=cross_scale)
    check_step(head, make_embeddings(3), variant, {})


def test_loss_configs_override_the_variant():
    """The paper's head with the losses of the authors' code: their means in place of sums, and all four pairs."""
    torch.manual_seed(0)
    head = SSPRLHead(
        make_pyramid(2), D, swapped_loss=dict(reduction="mean"), cross_scale_loss=dict(pairs="all", reduction="mean")
    )
    embeddings = make_embeddings(2)
    output = head.loss(embeddings)
    expected, _ = reference_of(head, embeddings, "paper", {}, SOLVER)
    assert output["loss_pyr_s1"].item() == pytest.approx(expected["loss_pyr_s1"].item() / 2)
    scores = head.prototypes["s1"](embeddings["s1"])
    log_predictions = head.correlation["s1"](scores).detach()
    codes = head.assign_codes(embeddings)["s0"]
    pairs = [-(q * p).sum(1).mean() for q in codes for p in log_predictions]
    assert output["loss_cross_s1"].item() == pytest.approx(BETA[1] * sum(pairs).item() / 4)


@pytest.mark.parametrize("variant", LOSSES)
def test_prototypes_are_used_as_they_are(variant):
    """Normalising is a step of its own: within the forward pass it would change the gradient."""
    torch.manual_seed(0)
    head = SSPRLHead(make_pyramid(2), D, variant=variant)
    with torch.no_grad():
        head.prototypes["s0"].weight.mul_(1.3)
        head.correlation["s1"].linear.weight.mul_(0.8)
    check_step(head, make_embeddings(2), variant, {})


@pytest.mark.parametrize("variant", LOSSES)
def test_normalize(variant):
    head = SSPRLHead(make_pyramid(3), D, variant=variant)
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.mul_(3)
    before = {name: p.detach().clone() for name, p in head.named_parameters()}
    head.normalize_()
    for name, parameter in head.named_parameters():
        if name.startswith("prototypes") or variant == "official":
            expected = before[name] / before[name].norm(dim=1, keepdim=True)
            torch.testing.assert_close(parameter.detach(), expected)
        else:
            assert torch.equal(parameter, before[name])


@pytest.mark.parametrize("variant", LOSSES)
def test_ce_ratio_is_the_cross_entropy_over_ln_k(variant):
    torch.manual_seed(0)
    head = SSPRLHead(make_pyramid(3), D, variant=variant)
    output = head.loss(make_embeddings(3))
    for s in range(3):
        cross_entropy = output[f"loss_pyr_s{s}"] / ALPHA[s] / (2 if variant == "paper" else 1)
        ratio = cross_entropy.item() / math.log(PROTOTYPES[s])
        assert output[f"ce_ratio_s{s}"].item() == pytest.approx(ratio, rel=1e-5)
        assert not output[f"ce_ratio_s{s}"].requires_grad


def test_ce_ratio_of_uniform_predictions_is_1():
    head = SSPRLHead(make_pyramid(1), D)
    same = make_embeddings(1)["s0"][:1, :1].expand(2, B, 1, D)
    with torch.no_grad():
        head.prototypes["s0"].weight.copy_(head.prototypes["s0"].weight[:1].clone())
    assert head.loss({"s0": same})["ce_ratio_s0"].item() == pytest.approx(1, abs=1e-6)


def test_scale_without_beta_has_no_cross_scale_loss():
    pyramid = make_pyramid(3)
    pyramid["s1"]["beta"] = 0.0
    head = SSPRLHead(pyramid, D)
    losses = [name for name in head.loss(make_embeddings(3)) if name.startswith("loss")]
    assert sorted(losses) == ["loss_cross_s2", "loss_pyr_s0", "loss_pyr_s1", "loss_pyr_s2"]


def test_codes_have_no_gradient_and_multi_crops_none_of_their_own():
    head = SSPRLHead(make_pyramid(2, crops=True), D)
    embeddings = {name: z.requires_grad_() for name, z in make_embeddings(2, crops=True).items()}
    codes = head.assign_codes(embeddings)
    assert {name: tuple(q.shape) for name, q in codes.items()} == {"s0": (2, 3, 7), "s1": (2, 12, 5)}
    assert not any(q.requires_grad for q in codes.values())


@TASK_UTILS.register_module()
class SoftmaxAssigner:
    """Codes that depend on the scores differentiably."""

    def assign_many(self, scores):
        return [s.softmax(dim=1) for s in scores]


def test_codes_of_another_assigner_have_no_gradient():
    """Prototypes and embeddings would otherwise learn to make their own codes easy to predict."""
    head = SSPRLHead(make_pyramid(2, queues=True), D, assigner=dict(type="SoftmaxAssigner"))
    embeddings = {name: z.requires_grad_() for name, z in make_embeddings(2).items()}
    codes = head.assign_codes(embeddings)
    assert not any(q.requires_grad for q in codes.values())
    assert codes["s0"].std() > 0


def test_one_prototype_has_no_ratio_and_finite_losses():
    """ln K, which the ratio is relative to, is 0."""
    pyramid = make_pyramid(2)
    pyramid["s0"]["num_prototypes"] = 1
    output = SSPRLHead(pyramid, D).loss(make_embeddings(2))
    assert all(value.isfinite() for value in output.values())
    assert output["loss_pyr_s0"].item() == pytest.approx(0, abs=1e-6)
    assert "ce_ratio_s0" not in output and "ce_ratio_s1" in output


def test_inactive_queues_are_neither_read_nor_written():
    torch.manual_seed(0)
    head = SSPRLHead(make_pyramid(2, queues=True), D)
    for step in range(4):
        head.loss(make_embeddings(2, seed=step))
    stored = {name: queue.embeddings.clone() for name, queue in head.queues.items()}
    pushed = {name: queue.num_pushed for name, queue in head.queues.items()}
    assert all(queue.is_full for queue in head.queues.values())
    head.use_queues(False)
    check_step(head, make_embeddings(2, seed=9), "paper", {})
    for name, queue in head.queues.items():
        assert torch.equal(queue.embeddings, stored[name])
        assert queue.num_pushed == pushed[name]


@pytest.mark.parametrize("variant", LOSSES)
def test_autocast_and_half_precision_embeddings(variant):
    torch.manual_seed(0)
    head = SSPRLHead(make_pyramid(3, crops=True), D, variant=variant)
    embeddings = {n: z.bfloat16() for n, z in make_embeddings(3, crops=True).items()}
    expected = head.loss({n: z.float() for n, z in embeddings.items()})
    with torch.autocast("cpu", torch.bfloat16):
        output = head.loss(embeddings)
    for name, value in output.items():
        assert value.dtype == torch.float32
        assert value.item() == pytest.approx(expected[name].item(), abs=1e-6)


def test_losses_do_not_depend_on_the_order_of_images():
    torch.manual_seed(0)
    head = SSPRLHead(make_pyramid(3, crops=True), D)
    embeddings = make_embeddings(3, crops=True)
    expected = head.loss(embeddings)
    shuffled = head.loss({name: z[:, [2, 0, 1]] for name, z in embeddings.items()})
    for name, value in shuffled.items():
        assert value.item() == pytest.approx(expected[name].item(), rel=1e-5)


@pytest.mark.parametrize("variant", LOSSES)
def test_losses_change_with_mixed_images_but_not_with_swapped_views(variant):
    torch.manual_seed(0)
    head = SSPRLHead(make_pyramid(2), D, variant=variant)
    embeddings = make_embeddings(2)
    expected = head.loss(embeddings)
    swapped = head.loss({name: z.flip(0) for name, z in embeddings.items()})
    mixed = {n: torch.stack([z[0], z[1].roll(1, dims=0)]) for n, z in embeddings.items()}
    cells = {**embeddings, "s1": torch.stack([embeddings["s1"][0], embeddings["s1"][1].roll(1, 1)])}
    for name in (n for n in expected if n.startswith("loss_pyr")):
        assert swapped[name].item() == pytest.approx(expected[name].item(), rel=1e-5)
        assert head.loss(mixed)[name].item() != pytest.approx(expected[name].item(), rel=1e-3)
    # Patch m of V and patch m of V' show the same cell.
    expected_s1 = expected["loss_pyr_s1"].item()
    assert head.loss(cells)["loss_pyr_s1"].item() != pytest.approx(expected_s1, rel=1e-3)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        (dict(variant="swav"), r"variant must be one of \['official', 'paper'\], got 'swav'"),
        (dict(temperature=0), "temperature must be > 0, got 0"),
        (dict(shared_prototypes=True), "shared_prototypes needs the same num_prototypes"),
        (dict(cross_scale_loss=dict(loss_weight=-1.0)), "loss_weight must be >= 0, got -1.0"),
        (dict(assigner=dict(epsilon=0)), "epsilon must be > 0, got 0"),
    ],
)
def test_bad_arguments(kwargs, message):
    with pytest.raises(ValueError, match=message):
        SSPRLHead(make_pyramid(2), D, **kwargs)


def test_the_former_name_of_the_official_variant_warns():
    with pytest.warns(FutureWarning, match="now variant='official'"):
        head = SSPRLHead(make_pyramid(2), D, variant="release")
    assert head.correlation["s1"].source == "scores"


def test_target_parameters_are_prototypes_and_learners():
    for variant, shared in itertools.product(LOSSES, [False, True]):
        head = SSPRLHead(make_pyramid(3, shared=shared), D, variant=variant, shared_prototypes=shared)
        assert {id(p) for p in head.target_parameters()} == {id(p) for p in head.parameters()}
