"""DenseCL: matching of positions by loops, and mmpretrain's DenseCL."""

import pytest
import torch
from mmpretrain.registry import MODELS
from references.contrast import nce
from small_contrast import BACKBONE, batch_of, build, sgd_step
from test_momentum_contrast import step
from torch.nn import functional as F

from sspyr_mm.health import GroupHealth, measure_group, start_recording, stop_recording
from sspyr_mm.health.measures import position_share


def test_every_position_is_matched_with_the_most_similar_one():
    """By the features of the backbone, not by the embeddings; the negatives are pooled before normalisation."""
    model = build("DenseMoCo")
    inputs = batch_of(0, 6, model)
    inputs["seed"] = torch.arange(6)
    queue = {name: q.embeddings[0].clone() for name, q in model.head.queues.items()}
    maps = model.backbone(inputs["main"][0, :, 0])[-1]
    with torch.no_grad():
        key_maps = model.momentum["backbone"](inputs["main"][1, :, 0])[-1]
        keys, dense_keys = model.momentum["neck"](key_maps)
    queries, dense = model.neck(maps)
    rows, matched = [], []
    for image in range(6):
        for y in range(3):
            for x in range(3):
                similar = [
                    F.cosine_similarity(maps[image, :, y, x], key_maps[image, :, v, u], dim=0).item()
                    for v in range(3)
                    for u in range(3)
                ]
                best = similar.index(max(similar))
                rows.append(F.normalize(dense[image, :, y, x], dim=0))
                matched.append(F.normalize(dense_keys[image, :, best // 3, best % 3], dim=0))
    assert len({tuple(row.tolist()) for row in matched}) < len(matched)  # some positions share a key
    expected = {
        "loss_main": 0.3 * nce(F.normalize(queries, dim=1), F.normalize(keys, dim=1), queue["main"], 0.2),
        "loss_dense": 0.7 * nce(torch.stack(rows), torch.stack(matched), queue["dense"], 0.2),
    }
    losses = model.loss(inputs)
    for name, value in expected.items():
        assert losses[name].item() == pytest.approx(value.item(), rel=1e-5), name
    model.finish_step(0.9)
    pooled = F.normalize(dense_keys.mean(dim=(2, 3)), dim=1)
    torch.testing.assert_close(model.head.queues["dense"].embeddings[0, :6], pooled, atol=1e-6, rtol=0)


def test_health_measures_the_positions_of_each_image():
    model = build("DenseMoCo")
    inputs = batch_of(0, 6, model)
    inputs["seed"] = torch.arange(6)
    start_recording()
    model.loss(inputs)
    recorded = stop_recording()["embeddings.dense"]
    assert (model.num_cells("main"), model.num_cells("dense"), model.queued_per_image("dense")) == (1, 9, 1)
    terms = dict(main={}, cells=dict(query="dense", key="matched", queue="dense"))
    assert build("DenseMoCo", head=dict(terms=terms)).num_cells("cells") == 1  # before the first batch
    renamed = build("DenseMoCo", head=dict(terms=terms))
    renamed.loss(inputs)
    assert renamed.num_cells("cells") == 9
    group = GroupHealth("dense", model.num_cells("dense"))
    measure_group(group, recorded, None)
    maps = model.neck(model.backbone(inputs["main"][0, :, 0])[-1])[1]
    positions = F.normalize(maps.flatten(2), dim=1).transpose(1, 2)  # (image, position, channel)
    torch.testing.assert_close(group.values["position_share"], position_share(positions.detach()))
    assert 0.01 < group.values["position_share"] < 0.9


def test_equal_features_match_the_first_position():
    model = build("DenseMoCo")
    positions = F.normalize(torch.randn(2, 9, 8), dim=2)
    out = {"main": positions[:, 0], "positions": positions, "features": torch.ones(2, 9, 64) / 8}
    _, keys = model.pair(out, out)
    assert torch.equal(keys["matched"].unflatten(0, (2, 9)), positions[:, :1].expand(-1, 9, -1))


def test_losses_equal_those_of_mmpretrain():
    bn = dict(type="GroupedBN", group_size=8)
    ours = build("DenseMoCo", backbone=dict(**BACKBONE, norm_cfg=bn))
    theirs = MODELS.build(
        dict(
            type="DenseCL",
            queue_len=20,
            feat_dim=8,
            momentum=0.1,
            loss_lambda=0.7,
            backbone=dict(**BACKBONE, norm_cfg=dict(type="BN")),
            neck=dict(type="DenseCLNeck", in_channels=64, hid_channels=16, out_channels=8, num_grid=None),
            head=dict(type="ContrastiveHead", loss=dict(type="CrossEntropyLoss"), temperature=0.2),
        )
    ).train()
    theirs.backbone.load_state_dict(ours.backbone.state_dict())
    state = {
        name.replace("global_mlp", "mlp").replace("dense_mlp", "mlp2"): x for name, x in ours.neck.state_dict().items()
    }
    theirs.neck.load_state_dict(state)
    theirs.encoder_k.module.load_state_dict(torch.nn.Sequential(theirs.backbone, theirs.neck).state_dict())
    theirs.queue.copy_(ours.head.queues["main"].embeddings[0].T)
    theirs.queue2.copy_(ours.head.queues["dense"].embeddings[0].T)
    ours, theirs = ours.double(), theirs.double()
    for number in range(3):
        inputs = batch_of(number, 4, ours)
        inputs["seed"] = torch.arange(4)  # mmpretrain does not shuffle in one process
        mine = step(ours, inputs, lr=0.01)
        other = theirs.loss([inputs["main"][0, :, 0], inputs["main"][1, :, 0]], None)
        sgd_step(theirs, sum(other.values()), 0.01)
        assert mine["loss_main"].item() == pytest.approx(other["loss_single"].item(), abs=1e-9)
        assert mine["loss_dense"].item() == pytest.approx(other["loss_dense"].item(), abs=1e-9)


def test_a_backbone_without_maps_is_rejected():
    vit = dict(
        type="VisionTransformer",
        arch=dict(embed_dims=64, num_layers=1, num_heads=2, feedforward_channels=32),
        img_size=80,
        patch_size=16,
    )
    model = build("DenseMoCo", backbone=vit)
    with pytest.raises(ValueError, match=r"needs a backbone whose last output is a map \(N, C, H, W\), got \(4, 64\)"):
        model.loss(batch_of(0, 4, model))
