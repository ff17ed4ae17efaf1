"""Losses and gradients of SwAV, MoCo v2, BYOL and DenseCL equal lightly's, step by step, queues included."""

import pytest
import torch
from lightly.loss import NegativeCosineSimilarity, NTXentLoss, SwaVLoss
from lightly.models.utils import select_most_similar
from small_contrast import build
from small_head import B, D, make_embeddings, make_pyramid
from torch.nn import functional as F

from sspyr_mm.models.heads import BootstrapHead, ContrastHead, SSPRLHead


def leaves(*tensors):
    return [tensor.detach().clone().requires_grad_() for tensor in tensors]


def assert_same_gradients(ours, theirs):
    for one, other in zip(ours, theirs, strict=True):
        assert other.grad.norm() > 1e-4
        torch.testing.assert_close(one.grad, other.grad, rtol=1e-5, atol=1e-6)


def test_swav():
    head = SSPRLHead(make_pyramid(1, crops=True, queues=True), D, variant="official")
    head.use_queues(True)
    queue = head.queues["s0"]
    theirs = SwaVLoss(temperature=0.1, sinkhorn_iterations=3, sinkhorn_epsilon=0.05)
    with_queue = 0
    for step in range(5):
        embeddings = make_embeddings(1, crops=True, seed=step)
        views, crops, views_, crops_ = leaves(*embeddings.values(), *embeddings.values())
        weight = head.prototypes["s0"].weight
        (weight_,) = leaves(weight)
        stored = None
        if queue.is_full:
            with_queue += 1
            stored = [rows @ weight_.T for rows in queue.embeddings.clone()]
        expected = theirs([v[:, 0] @ weight_.T for v in views_], [c[:, 0] @ weight_.T for c in crops_], stored)
        head.zero_grad()
        loss = head.loss({"s0": views, "s0_crops": crops})["loss_pyr_s0"]
        assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
        loss.backward()
        expected.backward()
        assert_same_gradients((views, crops, weight), (views_, crops_, weight_))
    assert with_queue == 2


def test_moco_v2():
    head = ContrastHead(D, queue_length=20, temperature=0.2)
    theirs = NTXentLoss(temperature=0.2, memory_bank_size=(20, D))
    theirs.memory_bank.bank.copy_(head.queues["main"].embeddings[0])
    for step in range(9):  # the queue is replaced twice
        torch.manual_seed(step)
        query, key = F.normalize(torch.randn(2, 5, D), dim=-1)
        ours, other = leaves(query, query)
        loss = head.loss({"main": ours}, {"main": key})["loss_main"]
        expected = theirs(other, key)
        assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
        loss.backward()
        head.push({"main": key})
        expected.backward()
        # Theirs normalises the query, which removes the part of the gradient along it.
        ours.grad -= (ours.grad * query).sum(1, keepdim=True) * query
        assert_same_gradients([ours], [other])


def test_byol():
    torch.manual_seed(0)
    head = BootstrapHead(D, 16, norm_cfg=dict(type="BN"))
    first, second, first_target, second_target = torch.randn(4, B, D)
    ours, theirs = leaves(first, second), leaves(first, second)
    loss = head.loss(ours, [first_target, second_target])["loss_main"]
    negative = NegativeCosineSimilarity()
    predictions = [head.predictor(z) for z in theirs]
    # lightly's example takes the mean of both directions of -cos; here their sum of 2 - 2 cos.
    mean = (negative(predictions[0], second_target) + negative(predictions[1], first_target)) / 2
    expected = 4 + 4 * mean
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    loss.backward()
    expected.backward()
    assert_same_gradients(ours, theirs)


def test_densecl_matches_the_same_positions():
    model = build("DenseMoCo")
    torch.manual_seed(0)
    features, other_features, positions = torch.randn(3, B, 9, D)
    queries = {"main": positions, "features": F.normalize(features, dim=2), "positions": positions}
    keys = {"main": positions, "features": F.normalize(other_features, dim=2), "positions": positions}
    matched = model.pair(queries, keys)[1]["matched"]
    expected = select_most_similar(features, other_features, positions)
    assert not expected.equal(positions)
    torch.testing.assert_close(matched.view_as(expected), expected, rtol=0, atol=0)
