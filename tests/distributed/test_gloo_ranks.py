"""The helper itself: ranks really are ranks, and a failure is one."""

import pytest
import torch
import torch.distributed as dist


def sum_of_ranks(rank, world_size, offset):
    total = torch.tensor([rank + offset])
    dist.all_reduce(total)
    return dist.get_rank(), dist.get_world_size(), total.item()


def fail_on_rank_one(rank, world_size):
    if rank == 1:
        raise RuntimeError("as it should")
    dist.barrier()


@pytest.mark.parametrize("world_size", [3, 2, 1])
def test_ranks_communicate(ranks, world_size):
    total = sum(range(world_size)) + 10 * world_size
    expected = [(rank, world_size, total) for rank in range(world_size)]
    assert ranks.run(world_size, sum_of_ranks, 10) == expected


@pytest.mark.slow  # the ranks are started anew
def test_a_failure_is_reported_and_the_next_job_works(ranks):
    with pytest.raises(AssertionError, match=r"rank 1 of 2(.|\n)*RuntimeError: as it should"):
        ranks.run(2, fail_on_rank_one)
    assert ranks.run(2, sum_of_ranks, 0) == [(0, 2, 1), (1, 2, 1)]
