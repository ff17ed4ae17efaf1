"""Sinkhorn on ranks with different and unequal data equals one process on the concatenation."""

import numpy as np
import pytest
import torch
from instruments.counters import OperatorCounter
from references.sinkhorn import sinkhorn_reference
from torch.nn import functional as F

from sspyr_mm.models import SinkhornAssigner

K = 12
SIZES = {
    "equal": (16, 16),
    "unequal": (21, 5),
    "none_on_one_rank": (0, 17),
    "fewer_than_prototypes": (3, 2),
    "three": (8, 8, 8),
    "three_unequal": (13, 1, 6),
    "three_with_none": (9, 0, 4),
    "three_fewer_than_prototypes": (1, 0, 2),
}


def make_scores(num_samples, seed, num_prototypes=K, dim=16):
    rng = torch.Generator().manual_seed(seed)
    z = F.normalize(torch.randn(num_samples, dim, generator=rng), dim=1)
    prototypes = F.normalize(torch.randn(num_prototypes, dim, generator=rng), dim=1)
    return z @ prototypes.T


def assign_on_rank(rank, world_size, problems, epsilon, num_iterations):
    """Codes and number of collectives; problems[p][rank] are the scores of this rank."""
    assigner = SinkhornAssigner(epsilon, num_iterations)
    with OperatorCounter() as counter:
        codes = assigner.assign_many([problem[rank] for problem in problems])
    return codes, len(counter.counts.collectives)


def check(ranks, problems, epsilon, num_iterations=3):
    """Codes of all ranks against one process and against float64."""
    world_size = len(problems[0])
    results = ranks.run(world_size, assign_on_rank, problems, epsilon, num_iterations)
    assert [num_collectives for _, num_collectives in results] == [num_iterations] * world_size
    for p, problem in enumerate(problems):
        scores = torch.cat(problem)
        codes = torch.cat([codes[p] for codes, _ in results])
        assert [len(codes[p]) for codes, _ in results] == [len(s) for s in problem]
        alone = SinkhornAssigner(epsilon, num_iterations).assign(scores)
        torch.testing.assert_close(codes, alone, rtol=0, atol=1e-6)
        expected = sinkhorn_reference(scores.double().numpy(), epsilon, num_iterations)
        np.testing.assert_allclose(codes.double().numpy(), expected, rtol=0, atol=1e-6)
    return results


@pytest.mark.parametrize("factor", [1, 100])
@pytest.mark.parametrize("epsilon", [0.05, 0.001])
@pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES)
def test_equals_one_process(ranks, sizes, epsilon, factor):
    scores = make_scores(sum(sizes), seed=sum(sizes)) * factor
    problem = list(scores.split(sizes))
    check(ranks, [problem], epsilon)
    if factor == 1 and 0 not in sizes:
        # So that the lines above say something: a rank by itself comes to other codes.
        per_rank = torch.cat([SinkhornAssigner(epsilon).assign(s) for s in problem])
        together = SinkhornAssigner(epsilon).assign(scores)
        assert (per_rank - together).abs().max() > 0.01


@pytest.mark.parametrize("epsilon", [0.05, 0.001])
@pytest.mark.parametrize("where", ["one_rank", "all_ranks"])
@pytest.mark.parametrize("sizes", [(9, 5), (9, 5, 3)], ids=["two", "three"])
def test_prototype_without_mass(ranks, sizes, where, epsilon):
    """A prototype whose mass is zero in any float, on one rank or on all of them."""
    scores = make_scores(sum(sizes), seed=1)
    rows = sizes[0] if where == "one_rank" else sum(sizes)
    scores[:rows, 4] = -1 - 1e-3 * torch.arange(rows)
    check(ranks, [list(scores.split(sizes))], epsilon)


def test_several_problems_with_different_sizes(ranks):
    first, second = make_scores(14, seed=2), make_scores(9, seed=3, num_prototypes=4) * 100
    check(ranks, [list(first.split((9, 5))), list(second.split((0, 9)))], 0.05, num_iterations=5)


def test_half_precision(ranks):
    scores = (make_scores(14, seed=4) * 100).half()
    check(ranks, [list(scores.split((9, 5)))], 0.001)
