"""Sinkhorn codes of one process: numbers against float64, properties, arguments."""

import math

import numpy as np
import pytest
import torch
from references.sinkhorn import sinkhorn_linear_reference, sinkhorn_reference
from torch.nn import functional as F

from sspyr_mm.models import SinkhornAssigner


def make_scores(num_samples, num_prototypes, seed=0, dim=16):
    """(N, K) inner products of unit vectors."""
    rng = torch.Generator().manual_seed(seed)
    z = F.normalize(torch.randn(num_samples, dim, generator=rng), dim=1)
    prototypes = F.normalize(torch.randn(num_prototypes, dim, generator=rng), dim=1)
    return z @ prototypes.T


def assert_codes(codes, scores, epsilon, num_iterations, tolerance=1e-6):
    expected = sinkhorn_reference(scores.double().numpy(), epsilon, num_iterations)
    assert codes.dtype == torch.float32
    np.testing.assert_allclose(codes.double().numpy(), expected, rtol=0, atol=tolerance)


def test_the_reference_equals_the_official_linear_form():
    scores = make_scores(30, 9).double().numpy()
    np.testing.assert_allclose(
        sinkhorn_reference(scores, 0.05, 3), sinkhorn_linear_reference(scores, 0.05, 3), rtol=1e-10
    )


@pytest.mark.parametrize("num_iterations", [1, 3, 10])
@pytest.mark.parametrize("factor", [1, 100])
@pytest.mark.parametrize("epsilon", [0.05, 0.001])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("shape", [(40, 12), (5, 12)], ids=["many", "fewer_than_prototypes"])
def test_codes_equal_float64(shape, dtype, epsilon, factor, num_iterations):
    scores = (make_scores(*shape) * factor).to(dtype)
    codes = SinkhornAssigner(epsilon, num_iterations).assign(scores)
    assert_codes(codes, scores, epsilon, num_iterations)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("epsilon", [0.05, 0.001])
def test_autocast_changes_nothing(epsilon, dtype):
    scores = (make_scores(40, 12) * 100).to(dtype)
    with torch.autocast("cpu", torch.bfloat16):
        codes = SinkhornAssigner(epsilon).assign(scores)
    assert_codes(codes, scores, epsilon, 3)


def test_defaults_are_the_papers():
    scores = make_scores(40, 12)
    assert_codes(SinkhornAssigner().assign(scores), scores, 0.05, 3)


@pytest.mark.parametrize("epsilon", [0.05, 0.001])
def test_rows_sum_to_one(epsilon):
    codes = SinkhornAssigner(epsilon).assign(make_scores(64, 20))
    torch.testing.assert_close(codes.sum(1), torch.ones(64), rtol=0, atol=1e-6)


@pytest.mark.parametrize("shape", [(60, 7), (7, 60)])
def test_many_iterations_spread_the_mass_evenly(shape):
    num_samples, num_prototypes = shape
    scores = make_scores(*shape)
    mass = SinkhornAssigner(0.05, 300).assign(scores).sum(0)
    expected = torch.full((num_prototypes,), num_samples / num_prototypes)
    torch.testing.assert_close(mass, expected, rtol=1e-4, atol=0)
    # So that the line above says something: without iterations the mass is uneven.
    assert ((scores / 0.05).softmax(1).sum(0) / expected - 1).abs().max() > 0.2


def test_permuting_samples_and_prototypes_permutes_codes():
    scores = make_scores(30, 9)
    rows, columns = torch.randperm(30), torch.randperm(9)
    assigner = SinkhornAssigner()
    torch.testing.assert_close(assigner.assign(scores[rows][:, columns]), assigner.assign(scores)[rows][:, columns])


def test_a_constant_added_to_all_scores_or_to_a_sample_changes_nothing():
    scores = make_scores(30, 9).double()
    assigner = SinkhornAssigner()
    expected = assigner.assign(scores)
    torch.testing.assert_close(assigner.assign(scores + 7), expected, rtol=0, atol=1e-6)
    # With enough iterations a sample's own offset is divided out as well.
    assigner = SinkhornAssigner(num_iterations=300)
    shifted = scores + torch.randn(30, 1, dtype=torch.float64) * 0.1
    torch.testing.assert_close(assigner.assign(shifted), assigner.assign(scores), rtol=0, atol=1e-5)


def test_single_prototype_gets_all_codes():
    codes = SinkhornAssigner().assign(make_scores(5, 1))
    torch.testing.assert_close(codes, torch.ones(5, 1))


def test_one_sample_is_spread_evenly():
    codes = SinkhornAssigner().assign(make_scores(1, 8))
    torch.testing.assert_close(codes, torch.full((1, 8), 1 / 8))


def test_empty_batch_has_no_codes():
    assert SinkhornAssigner().assign(torch.zeros(0, 8)).shape == (0, 8)


@pytest.mark.parametrize("epsilon", [0.05, 0.001])
def test_prototype_opposite_to_all_samples_gets_an_equal_share(epsilon):
    scores = make_scores(20, 6)
    scores[:, 2] = -1 + 0.001 * make_scores(20, 1)[:, 0]  # exp(-2 / 0.001) is 0 in any float
    codes = SinkhornAssigner(epsilon).assign(scores)
    assert_codes(codes, scores, epsilon, 3)
    assert codes[:, 2].sum() > 0.1


def test_identical_rows_give_uniform_codes():
    codes = SinkhornAssigner().assign(make_scores(1, 8).expand(16, 8))
    torch.testing.assert_close(codes, torch.full((16, 8), 1 / 8))


def test_several_problems_are_independent():
    problems = [make_scores(30, 9), make_scores(12, 4, seed=1) * 100, make_scores(7, 11, seed=2)]
    assigner = SinkhornAssigner()
    for codes, scores in zip(assigner.assign_many(problems), problems, strict=True):
        assert_codes(codes, scores, 0.05, 3)


def test_codes_have_no_gradient_and_scores_are_unchanged():
    scores = make_scores(30, 9).requires_grad_()
    before = scores.detach().clone()
    assert not SinkhornAssigner().assign(scores).requires_grad
    assert torch.equal(scores, before)


def test_entropy_grows_with_epsilon():
    scores = make_scores(64, 16)

    def entropy(epsilon):
        codes = SinkhornAssigner(epsilon).assign(scores)
        return -(codes * codes.clamp_min(1e-30).log()).sum(1).mean().item()

    assert entropy(0.001) < entropy(0.05) < entropy(1.0) < math.log(16)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        (dict(epsilon=0), "epsilon must be > 0, got 0"),
        (dict(epsilon=-0.05), "epsilon must be > 0, got -0.05"),
        (dict(epsilon=float("nan")), "epsilon must be > 0, got nan"),
        (dict(num_iterations=0), "num_iterations must be an integer >= 1, got 0"),
        (dict(num_iterations=2.5), "num_iterations must be an integer >= 1, got 2.5"),
    ],
)
def test_bad_arguments(kwargs, message):
    with pytest.raises(ValueError, match=message):
        SinkhornAssigner(**kwargs)


@pytest.mark.parametrize("scores", [torch.zeros(4), torch.zeros(4, 0), torch.zeros(4, 3, dtype=torch.int64)])
def test_bad_scores(scores):
    with pytest.raises(ValueError, match=r"scores must be floating point \(N, K\) with K >= 1"):
        SinkhornAssigner().assign(scores)
