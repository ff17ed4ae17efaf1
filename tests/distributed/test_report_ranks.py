"""The multi-label report and loss of several ranks are those of one process."""

import pytest
import torch
from mmengine.dist import all_reduce
from mmpretrain.registry import METRICS, MODELS
from mmpretrain.structures import DataSample

import sspyr_mm.registration  # noqa: F401

NUM_IMAGES = 23  # not a multiple of the ranks: a sampler pads


def problem():
    generator = torch.Generator().manual_seed(0)
    targets = (torch.rand(NUM_IMAGES, 5, generator=generator) < 0.4).float()
    scores = torch.rand(NUM_IMAGES, 5, generator=generator) * 0.7 + 0.3 * targets
    targets[torch.rand(targets.shape, generator=generator) < 0.2] = -1
    return scores, targets


def evaluate_on_rank(rank, world_size):
    scores, targets = problem()
    metric = METRICS.build({"type": "MultiLabelReport", "voc11": True, "table": False})
    share = -(-NUM_IMAGES // world_size)
    rows = [index % NUM_IMAGES for index in range(rank, share * world_size, world_size)]
    samples = [DataSample().set_pred_score(scores[row]).set_gt_score(targets[row]).to_dict() for row in rows]
    metric.process(None, samples)
    return metric.evaluate(NUM_IMAGES)


@pytest.mark.parametrize("world_size", [2, 3])
def test_report_of_ranks(ranks, world_size):
    (alone,) = ranks.run(1, evaluate_on_rank)
    assert 10 < alone["multi-label/mAP"] < 100
    for found in ranks.run(world_size, evaluate_on_rank):
        assert found == pytest.approx(alone)


def gradients_on_rank(rank, world_size, mean_over_images):
    """Gradients of the head's share of 24 images, averaged over ranks as in distributed training."""
    scores, targets = (torch.cat([part, part[:1]]) for part in problem())
    torch.manual_seed(0)
    head = MODELS.build(
        {"type": "MaskedMultiLabelHead", "num_classes": 5, "in_channels": 5, "mean_over_images": mean_over_images}
    )
    samples = [DataSample().set_gt_score(row) for row in targets[rank::world_size]]
    head.loss((scores[rank::world_size],), samples)["loss"].backward()
    for parameter in head.parameters():
        all_reduce(parameter.grad, "mean")
    return [parameter.grad for parameter in head.parameters()]


@pytest.mark.parametrize("mean_over_images", [True, False])
def test_multi_label_gradients_of_ranks(ranks, mean_over_images):
    (alone,) = ranks.run(1, gradients_on_rank, mean_over_images)
    assert min(gradient.abs().max() for gradient in alone) > 0.01
    for found in ranks.run(2, gradients_on_rank, mean_over_images):
        torch.testing.assert_close(found, alone)
