"""The multi-label report of several ranks is that of one process."""

import pytest
import torch
from mmpretrain.registry import METRICS
from mmpretrain.structures import DataSample

import sspyr_mm  # noqa: F401

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
    samples = [
        DataSample().set_pred_score(scores[row]).set_gt_score(targets[row]).to_dict()
        for row in rows
    ]
    metric.process(None, samples)
    return metric.evaluate(NUM_IMAGES)


@pytest.mark.parametrize("world_size", [2, 3])
def test_report_of_ranks(ranks, world_size):
    (alone,) = ranks.run(1, evaluate_on_rank)
    assert 10 < alone["multi-label/mAP"] < 100
    for found in ranks.run(world_size, evaluate_on_rank):
        assert found == pytest.approx(alone)
