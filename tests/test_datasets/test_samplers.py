"""Resuming the sampler in the middle of an epoch."""

import pytest
from torch.utils.data import DataLoader

from sspyr_mm.datasets import ResumableSampler, samplers

DATA = list(range(23))


def make(epoch=0, *, skip=0, **kwargs):
    sampler = ResumableSampler(DATA, **{"shuffle": True, "seed": 5, **kwargs})
    sampler.set_epoch(epoch)
    sampler.skip(skip)
    return sampler


@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize("skip", [0, 1, 8, 23, 30])
def test_skip_keeps_the_rest_of_the_same_order(shuffle, skip):
    whole = list(make(3, shuffle=shuffle))
    assert sorted(whole) == DATA
    sampler = make(3, shuffle=shuffle, skip=skip)
    assert list(sampler) == whole[skip:]
    assert len(sampler) == len(DATA)  # schedules need the length of the whole epoch


def test_next_epoch_is_complete_and_in_another_order():
    sampler = make(3, skip=8)
    sampler.set_epoch(4)
    assert list(sampler) == list(make(4))
    assert list(make(4)) != list(make(3))
    assert list(make(3)) != list(make(3, seed=6))


def test_batches_continue_after_the_skipped_ones():
    loader = DataLoader(DATA, batch_size=4, sampler=make(1), drop_last=True)
    whole = [batch.tolist() for batch in loader]
    resumed = DataLoader(DATA, batch_size=4, sampler=make(1, skip=2 * 4), drop_last=True)
    assert [batch.tolist() for batch in resumed] == whole[2:]
    workers = DataLoader(DATA, batch_size=4, sampler=make(1, skip=8), drop_last=True, num_workers=2)
    assert [batch.tolist() for batch in workers] == whole[2:]
    assert len(resumed) == len(loader) == len(whole) == 5


def test_each_rank_skips_its_own_samples(monkeypatch):
    def of_rank(rank, skip):
        monkeypatch.setattr("mmengine.dataset.sampler.get_dist_info", lambda: (rank, 2))
        return list(make(2, skip=skip))

    whole = [of_rank(rank, 0) for rank in (0, 1)]
    assert set(whole[0]) | set(whole[1]) == set(DATA)
    assert [of_rank(rank, 4) for rank in (0, 1)] == [rank[4:] for rank in whole]


def test_sampler_is_registered():
    from mmpretrain.registry import DATA_SAMPLERS

    built = DATA_SAMPLERS.build(dict(type="ResumableSampler", shuffle=False), default_args=dict(dataset=DATA, seed=0))
    assert isinstance(built, samplers.ResumableSampler)
    assert list(built) == DATA
