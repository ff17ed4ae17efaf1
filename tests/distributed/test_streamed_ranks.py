"""Shards dealt to several processes: no image twice, equal numbers of batches, and an epoch continues anywhere."""

import multiprocessing

import pytest
from small_images import pack_images
from torch.utils.data import DataLoader

from sspyr_mm.datasets import StreamedImages

NUM_IMAGES, BATCH = 90, 4


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    return str(pack_images(tmp_path_factory.mktemp("images"), NUM_IMAGES))


def item(results):
    return results


def epoch_on_rank(rank, world_size, shards, num_workers, done, begun, batch_size=BATCH):
    """Batches of this rank, what it would keep, and what it takes the data set for."""
    # The ranks of these tests end with pytest, for which they must not have children; the loader's end with the epoch.
    multiprocessing.current_process()._config["daemon"] = False
    dataset = StreamedImages(shards, pipeline=[item])
    loader = DataLoader(
        dataset,
        batch_size,
        num_workers=num_workers,
        drop_last=True,
        collate_fn=list,
        multiprocessing_context="fork" if num_workers else None,
    )
    kept = dataset.start_epoch(1, seed=3, batch_size=batch_size, num_workers=num_workers, done=done, begun=begun)
    batches = [[results["sample_idx"] for results in batch] for batch in loader]
    return batches, kept, (len(loader), dataset.num_images)


def indices(results):
    return [index for batches, *_ in results for batch in batches for index in batch]


@pytest.mark.parametrize("world_size", [2, 3])
@pytest.mark.parametrize("num_workers", [0, 2])
def test_ranks_share_an_epoch_and_resume_within_it(ranks, shards, world_size, num_workers):
    whole = ranks.run(world_size, epoch_on_rank, shards, num_workers, 0, None)
    length = NUM_IMAGES // world_size // BATCH
    assert [sizes for _, _, sizes in whole] == [(length, NUM_IMAGES)] * world_size
    assert [len(batches) for batches, *_ in whole] == [length] * world_size
    assert len(set(indices(whole))) == len(indices(whole)) == length * world_size * BATCH

    begun = whole[0][1]
    rest = ranks.run(world_size, epoch_on_rank, shards, num_workers, 3, begun)
    assert [batches for batches, *_ in rest] == [batches[3:] for batches, *_ in whole]


def test_other_number_of_ranks_continues_with_the_remaining_images(ranks, shards):
    before = ranks.run(3, epoch_on_rank, shards, 1, 0, None)
    seen = {index for batches, *_ in before for batch in batches[:2] for index in batch}
    assert len(seen) == 24
    begun = before[0][1]
    # As many images per step: 3 x 4 before, 2 x 6 now.
    rest = ranks.run(2, epoch_on_rank, shards, 1, 2, begun, 6)
    left = indices(rest)
    assert len(set(left)) == len(left) == (7 - 2) * 12
    assert not seen & set(left)
    assert len({len(batches) for batches, *_ in rest}) == 1
