"""MoCo v2: a step against independent code, mmpretrain's MoCo, loading, and misuse."""

import copy
import re

import pytest
import torch
from mmpretrain.registry import MODELS
from references.contrast import nce
from small_contrast import BACKBONE, MODELS_BY_NAME, batch_of, build, config_of, relative_distance, sgd_step, total
from torch.nn import functional as F

from sspyr_mm.models import pretraining_models


def step(model, inputs, *, momentum=0.9, lr=0.1):
    """One SGD step by hand."""
    losses = model.loss(inputs)
    sgd_step(model, total(losses), lr)
    model.finish_step(momentum)
    return losses


def split_embed(backbone, neck, images, size):
    """Embeds groups of images one by one with plain batch norm: groups never meet."""
    parts = [neck(backbone(part)[-1].mean(dim=(2, 3))) for part in images.split(size)]
    return F.normalize(torch.cat(parts), dim=1)


def test_a_step_equals_the_steps_of_the_algorithm():
    """Query, shuffled key, loss, gradient, momentum and queue, written out with separate networks."""
    model = build(backbone=dict(**BACKBONE, norm_cfg=dict(type="GroupedBN", group_size=2))).double()
    inputs = batch_of(0, 6, model)
    trained = copy.deepcopy(model)
    queue = model.head.queues["main"].embeddings[0].clone()
    for module in trained.modules():
        if hasattr(module, "group_size"):
            module.group_size = 6  # groups are separate calls below
    queries = split_embed(trained.backbone, trained.neck, inputs["main"][0, :, 0], 2)
    order = inputs["seed"].argsort()
    with torch.no_grad():
        shuffled = split_embed(
            trained.momentum["backbone"], trained.momentum["neck"], inputs["main"][1, :, 0][order], 2
        )
        keys = torch.empty_like(shuffled)
        keys[order] = shuffled
    expected = nce(queries, keys, queue, 0.2)
    expected.backward()

    losses = step(model, inputs)
    assert losses["loss_main"].item() == pytest.approx(expected.item(), rel=1e-5)
    gradients = dict(trained.named_parameters())
    for name, parameter in model.named_parameters():
        if name.startswith("momentum."):
            assert parameter.grad is None
            theta = model.get_parameter(name.removeprefix("momentum."))
            start = trained.get_parameter(name)
            torch.testing.assert_close(parameter.data, 0.9 * start + 0.1 * theta, atol=1e-6, rtol=1e-5)
        else:
            assert relative_distance(parameter.grad, gradients[name].grad) < 1e-7, name
    stored = model.head.queues["main"].embeddings[0]
    torch.testing.assert_close(stored[:6], keys, atol=2e-6, rtol=0)
    assert torch.equal(stored[6:], queue[6:])


def test_losses_equal_those_of_mmpretrain():
    """Three steps with the same weights, views and queue; one group of batch norm, as one process there has."""
    ours = build(backbone=dict(**BACKBONE, norm_cfg=dict(type="GroupedBN", group_size=8)))
    theirs = MODELS.build(
        dict(
            type="MoCo",
            queue_len=20,
            feat_dim=8,
            momentum=0.1,
            backbone=dict(**BACKBONE, norm_cfg=dict(type="BN")),
            neck=dict(type="MoCoV2Neck", in_channels=64, hid_channels=16, out_channels=8, with_avg_pool=True),
            head=dict(type="ContrastiveHead", loss=dict(type="CrossEntropyLoss"), temperature=0.2),
        )
    ).train()
    theirs.backbone.load_state_dict(ours.backbone.state_dict())
    theirs.neck.load_state_dict(ours.neck.state_dict())
    theirs.encoder_k.module.load_state_dict(torch.nn.Sequential(theirs.backbone, theirs.neck).state_dict())
    theirs.queue.copy_(ours.head.queues["main"].embeddings[0].T)
    ours, theirs = ours.double(), theirs.double()
    for number in range(3):
        inputs = batch_of(number, 4, ours)
        inputs["seed"] = torch.arange(4)  # mmpretrain does not shuffle in one process
        mine = step(ours, inputs)["loss_main"]
        other = theirs.loss([inputs["main"][0, :, 0], inputs["main"][1, :, 0]], None)["loss"]
        sgd_step(theirs, other, 0.1)
        assert mine.item() == pytest.approx(other.item(), abs=1e-9)
    torch.testing.assert_close(theirs.queue.T, ours.head.queues["main"].embeddings[0], atol=1e-9, rtol=0)


def test_momentum_encoder_starts_as_a_copy_also_of_loaded_weights():
    model = build()
    backbone = {n: x for n, x in build(seed=1).state_dict().items() if n.startswith("backbone.")}
    copied = {f"momentum.{n}": x for n, x in model.state_dict().items() if n.startswith(("backbone.", "neck."))}
    assert all(torch.equal(model.state_dict()[n], x) for n, x in copied.items())
    model.load_state_dict(backbone, strict=False)
    for name, value in backbone.items():
        assert torch.equal(model.state_dict()[f"momentum.{name}"], value)
    # A checkpoint of a run keeps its momentum encoder.
    step(model, batch_of(0, 4, model))
    state = copy.deepcopy(model.state_dict())
    other = build(seed=2)
    other.load_state_dict(state)
    assert all(torch.equal(other.state_dict()[n], x) for n, x in state.items())
    assert not torch.equal(state["momentum.neck.mlp.0.weight"], state["neck.mlp.0.weight"])


def test_a_projector_of_another_width_is_rejected():
    state = build().state_dict()
    other = build(neck=dict(type="MLPProjector", in_channels=64, hid_channels=8, out_channels=8))
    with pytest.raises(ValueError, match=r"neck\.mlp\.0\.weight: \(16, 64\) in the checkpoint, \(8, 64\) in the model"):
        other.load_state_dict(state)


@pytest.mark.parametrize("name", ["MoCoV2", "Bootstrap"])
def test_a_missing_momentum_hook_is_reported(name):
    model = build(name)
    model.loss(batch_of(0, 4, model))
    with pytest.raises(RuntimeError, match="MomentumHook"):
        model.loss(batch_of(1, 4, model))


def test_evaluation_leaves_the_state_as_it_is():
    model = build().eval()
    before = copy.deepcopy(model.state_dict())
    for number in range(2):
        model.loss(batch_of(number, 4, model))
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items() if "queue" in name)
    assert model._keys is None


JIGSAW = MODELS_BY_NAME["DetCo"]["views"]["jigsaw"]
MAIN = dict(region=32, patch=32)


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("MoCoV2", dict(views=dict(main=MAIN, more=MAIN)), "uses the groups ['main'] of views, got ['main', 'more']"),
        (
            "MoCoV2",
            dict(head=dict(terms=dict(dense={}))),
            "terms.dense.query is 'dense', which MoCoV2 does not compute",
        ),
        ("MoCoV2", dict(neck=dict(type="DenseProjector")), "The neck of MoCoV2 is MLPProjector, got DenseProjector"),
        ("MoCoV2", dict(backbone=dict(with_cp=True)), "set model.recompute='stage', which saves the same memory"),
        ("DenseMoCo", dict(head=dict(terms=None)), "No term of the loss uses the embeddings ['dense']"),
        ("DenseMoCo", dict(neck=dict(type="MLPProjector")), "The neck of DenseMoCo is DenseProjector"),
        ("DetCo", dict(views=dict(main=MAIN)), "uses the groups ['main', 'jigsaw'] of views, got ['main']"),
        ("DetCo", dict(views=dict(main=MAIN, jigsaw={**JIGSAW, "jigsaw": False})), "got jigsaw=False, num_views=2"),
        ("DetCo", dict(views=dict(main=MAIN, jigsaw={**JIGSAW, "grid": 2})), "num_patches=9, got jigsaw=True"),
        ("DetCo", dict(views=dict(main=MAIN, jigsaw={**JIGSAW, "num_views": 1})), "got jigsaw=True, num_views=1"),
        ("InsLoc", dict(head=dict(terms=dict(p4={}))), "terms.p4.query is 'p4', which InsLoc does not compute"),
    ],
)
def test_settings_that_do_not_fit_the_method_are_rejected(name, changes, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        build(name, **changes)


@pytest.mark.parametrize(
    ("name", "message"), [("DetCo", "The backbone gives 64 channels"), ("InsLoc", "levels of (64,)")]
)
def test_a_backbone_with_other_levels_is_rejected(name, message):
    model = build(name, backbone=dict(out_indices=(3,)))
    with pytest.raises(ValueError, match=re.escape(message) + ".*set backbone.out_indices"):
        model.loss(batch_of(0, 4, model))


def test_a_checkpoint_given_as_pretrained_keeps_its_momentum_encoder(tmp_path):
    model = build()
    for number in range(2):
        step(model, batch_of(number, 4, model))
    torch.save(dict(state_dict=model.state_dict()), tmp_path / "whole.pth")
    other = MODELS.build({**config_of(), "pretrained": str(tmp_path / "whole.pth")})
    other.init_weights()
    assert all(torch.equal(x, model.state_dict()[n]) for n, x in other.state_dict().items())


def test_a_checkpoint_without_a_part_of_the_momentum_encoder_copies_that_part():
    model, other = build(), build(seed=3)
    for number in range(2):
        step(model, batch_of(number, 4, model))
    state = {n: x for n, x in model.state_dict().items() if not n.startswith("momentum.neck.")}
    other.load_state_dict(state)
    for name, value in other.state_dict().items():
        wanted = name.removeprefix("momentum.") if name.startswith("momentum.neck.") else name
        assert torch.equal(value, model.state_dict()[wanted]), name


def test_a_whole_model_can_be_saved(tmp_path):
    torch.save(build(), tmp_path / "model.pth")
    loaded = torch.load(tmp_path / "model.pth", weights_only=False)
    assert torch.isfinite(total(step(loaded, batch_of(0, 4, loaded))))


@pytest.mark.parametrize(
    "views", [dict(other=dict(region=32, patch=32)), dict(main=dict(region=32, patch=32, num_views=3))]
)
def test_views_other_than_a_pair_are_rejected(views):
    with pytest.raises(ValueError, match=r"MoCoV2 needs a group of two views: views=dict\(main="):
        MODELS.build({**config_of(), "views": views})


def test_two_embedding_sizes_are_rejected():
    with pytest.raises(ValueError, match=r"neck\.out_channels is 8 and head\.embed_dims 4"):
        build(head=dict(type="ContrastHead", embed_dims=4))


def test_a_queue_longer_than_the_data_is_reported():
    model = build()
    assert model.size_messages(20) == []
    (message,) = model.size_messages(19)
    assert "holds 20 keys of 19 images" in message and "model.head.queue_length to 4" in message


@pytest.mark.parametrize("recompute", ["scale", "stage"])
@pytest.mark.parametrize("name", ["MoCoV2", "DetCo"])
def test_recomputed_activations_change_nothing(recompute, name):
    plain, saving = build(name), build(name, recompute=recompute)
    for number in range(2):
        inputs = batch_of(number, 8, plain)
        assert torch.equal(total(step(plain, inputs)), total(step(saving, inputs)))
    assert all(torch.equal(x, saving.state_dict()[n]) for n, x in plain.state_dict().items())


def test_models_are_listed_by_their_names():
    assert {"SSPRL", "MoCoV2"} <= set(pretraining_models())
    assert "MomentumModel" not in pretraining_models()
