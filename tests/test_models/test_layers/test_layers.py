"""Prototypes and correlation learners."""

import numpy as np
import pytest
import torch

from sspyr_mm.models import CorrelationLearner, Prototypes


def log_softmax(logits):
    return logits - np.log(np.exp(logits).sum())


def test_prototypes_are_unit_vectors_and_can_be_normalised_again():
    prototypes = Prototypes(7, 5)
    assert prototypes.num_prototypes == 7
    torch.testing.assert_close(prototypes.weight.norm(dim=1), torch.ones(7))
    directions = prototypes.weight.detach().clone()
    with torch.no_grad():
        prototypes.weight.mul_(torch.arange(1.0, 8.0)[:, None])
    parameter = prototypes.weight
    prototypes.normalize_()
    assert prototypes.weight is parameter  # the optimiser holds this very tensor
    torch.testing.assert_close(prototypes.weight, directions)


def test_scores_are_inner_products_without_bias():
    prototypes = Prototypes(7, 5)
    z = torch.randn(2, 3, 4, 5)
    expected = np.einsum("vbmd,kd->vbmk", z.numpy(), prototypes.weight.detach().numpy())
    np.testing.assert_allclose(prototypes(z).detach().numpy(), expected, atol=1e-6)
    assert [name for name, _ in prototypes.named_parameters()] == ["weight"]


def test_no_prototypes_are_refused():
    with pytest.raises(ValueError, match="num_prototypes must be >= 1, got 0"):
        Prototypes(0, 5)


@pytest.mark.parametrize("temperature", [0.1, 0.5])
def test_paper_learner_averages_probabilities(temperature):
    learner = CorrelationLearner(6, 4, temperature=temperature)
    scores = torch.rand(2, 3, 9, 6) * 2 - 1
    weight = learner.linear.weight.detach().double().numpy()
    bias = learner.linear.bias.detach().double().numpy()
    out = learner(scores).detach().numpy()
    for v in range(2):
        for b in range(3):
            patches = scores[v, b].double().numpy() / temperature
            average = np.mean([np.exp(log_softmax(patch)) for patch in patches], axis=0)
            np.testing.assert_allclose(out[v, b], log_softmax(weight @ average + bias), atol=1e-5)


@pytest.mark.parametrize("temperature", [0.1, 0.5])
def test_official_learner_averages_scores(temperature):
    learner = CorrelationLearner(6, 4, source="scores", temperature=temperature)
    assert learner.linear.bias is None
    scores = torch.rand(2, 3, 9, 6) * 2 - 1
    weight = learner.linear.weight.detach().double().numpy()
    out = learner(scores).detach().numpy()
    for v in range(2):
        for b in range(3):
            average = scores[v, b].double().numpy().mean(axis=0)
            average /= np.sqrt((average**2).sum())
            expected = log_softmax(weight @ average / temperature)
            np.testing.assert_allclose(out[v, b], expected, atol=1e-5)


def test_only_official_rows_are_of_unit_length():
    official = CorrelationLearner(6, 4, source="scores")
    torch.testing.assert_close(official.linear.weight.norm(dim=1), torch.ones(4))
    with torch.no_grad():
        official.linear.weight.mul_(3)
    official.normalize_()
    torch.testing.assert_close(official.linear.weight.norm(dim=1), torch.ones(4))

    paper = CorrelationLearner(6, 4)
    before = paper.linear.weight.detach().clone()
    paper.normalize_()
    assert torch.equal(paper.linear.weight, before)
    assert (before.norm(dim=1) - 1).abs().max() > 0.01


def test_unknown_source_is_refused():
    with pytest.raises(ValueError, match=r"source must be one of .*, got 'logits'"):
        CorrelationLearner(6, 4, source="logits")
