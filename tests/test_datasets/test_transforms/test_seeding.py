"""Seeding of random transforms by the run's seed, the epoch and the sample."""

import random

import numpy as np
import pytest
import torch

from sspyr_mm.datasets.transforms.seeding import SeedTransforms

GENERATORS = {"python": random.random, "numpy": np.random.rand, "torch": lambda: torch.rand(1).item()}


@pytest.fixture(params=GENERATORS)
def draw(request):
    return GENERATORS[request.param]


def drawn(draw, *, seed=5, epoch=1, sample=3):
    """Returns the first number after ``SeedTransforms``; the generator has any other state before."""
    draw()
    transform = SeedTransforms()
    transform.set_epoch(epoch, seed=seed)
    assert transform({"sample_idx": sample}) == {"sample_idx": sample}
    return draw()


def test_equal_seed_epoch_and_sample_draw_alike(draw):
    assert drawn(draw) == drawn(draw)
    others = [drawn(draw, seed=6), drawn(draw, epoch=2), drawn(draw, sample=4)]
    assert len({drawn(draw), *others}) == 4


def test_without_an_epoch_nothing_is_seeded(draw):
    transform = SeedTransforms()
    values = []
    for _ in range(2):
        transform({"sample_idx": 3})
        values.append(draw())
    assert values[0] != values[1]


def test_a_missing_index_is_reported():
    transform = SeedTransforms()
    transform.set_epoch(0, seed=5)
    with pytest.raises(ValueError, match="SeedTransforms needs `sample_idx`"):
        transform({})
