"""The loss functions by themselves: loops over pairs, known values, arguments."""

import math

import pytest
import torch

from sspyr_mm.models import CrossScaleLoss, SwappedPredictionLoss
from sspyr_mm.models.losses import cross_scale_cross_entropy, swapped_cross_entropy


def make_codes(num_views, num_samples, num_prototypes, seed=0):
    rng = torch.Generator().manual_seed(seed)
    return (3 * torch.randn(num_views, num_samples, num_prototypes, generator=rng)).softmax(-1)


def pair_loss(codes, log_probs):
    """Mean over samples of - sum_k q log p, one at a time, float64."""
    num_samples, num_prototypes = codes.shape
    total = 0.0
    for n in range(num_samples):
        for k in range(num_prototypes):
            total -= codes[n, k].item() * log_probs[n, k].item()
    return total / num_samples


@pytest.mark.parametrize("num_views", [2, 3, 8])
@pytest.mark.parametrize(("reduction", "factor"), [("sum", 1), ("mean", 0.5)])
def test_swapped_prediction_uses_all_other_views(num_views, reduction, factor):
    codes = make_codes(2, 5, 4)
    log_probs = make_codes(num_views, 5, 4, seed=1).log()
    expected = 0.0
    for i in range(2):
        others = [v for v in range(num_views) if v != i]
        expected += sum(pair_loss(codes[i], log_probs[v]) for v in others) / len(others)
    loss = SwappedPredictionLoss(reduction)(codes, log_probs)
    assert loss.item() == pytest.approx(factor * expected, rel=1e-5)


def test_swapped_prediction_uses_the_codes_of_the_other_view():
    codes = torch.eye(2)[torch.tensor([[0, 0], [1, 1]])]  # view 0 always prototype 0, view 1 always prototype 1
    right = codes.flip(0).clamp_min(1e-30).log()
    assert swapped_cross_entropy(codes, right).item() == pytest.approx(0, abs=1e-6)
    assert swapped_cross_entropy(codes, codes.clamp_min(1e-30).log()).item() > 10


def test_uniform_predictions_cost_ln_k():
    codes, uniform = make_codes(2, 5, 7), torch.full((2, 5, 7), -math.log(7))
    assert swapped_cross_entropy(codes, uniform).item() == pytest.approx(math.log(7))
    for pairs in ("matched", "all"):
        loss = cross_scale_cross_entropy(codes, uniform, pairs=pairs)
        assert loss.item() == pytest.approx(math.log(7))


@pytest.mark.parametrize(
    ("pairs", "couples"), [("matched", [(0, 0), (1, 1)]), ("all", [(0, 0), (0, 1), (1, 0), (1, 1)])]
)
@pytest.mark.parametrize(("reduction", "factor"), [("sum", 2), ("mean", 1)])
def test_cross_scale_pairs_weights_and_names(pairs, couples, reduction, factor):
    codes = make_codes(2, 5, 4)
    predictions = {"s1": make_codes(2, 5, 4, seed=1).log(), "s2": make_codes(2, 5, 4, seed=2).log()}
    betas = {"s1": 0.25, "s2": 0.6}
    losses = CrossScaleLoss(pairs, reduction, loss_weight=0.7)(codes, predictions, betas)
    assert set(losses) == {"loss_cross_s1", "loss_cross_s2"}
    for name, log_p in predictions.items():
        mean = sum(pair_loss(codes[i], log_p[j]) for i, j in couples) / len(couples)
        expected = 0.7 * betas[name] * factor * mean
        assert losses[f"loss_cross_{name}"].item() == pytest.approx(expected, rel=1e-5)


def test_single_scale_has_no_cross_scale_loss():
    assert CrossScaleLoss()(make_codes(2, 5, 4), {}, {}) == {}


@pytest.mark.parametrize("betas", [{"s1": 1.0}, {"s1": 1.0, "s2": 1.0, "s3": 1.0}])
def test_a_missing_or_surplus_weight_is_refused(betas):
    predictions = dict.fromkeys(("s1", "s2"), make_codes(2, 5, 4).log())
    with pytest.raises(ValueError, match="One weight per scale is needed"):
        CrossScaleLoss()(make_codes(2, 5, 4), predictions, betas)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: SwappedPredictionLoss("total"), "reduction must be one of .*, got 'total'"),
        (lambda: CrossScaleLoss(reduction="none"), "reduction must be one of .*, got 'none'"),
        (lambda: CrossScaleLoss(pairs="some"), "pairs must be one of .*, got 'some'"),
        (lambda: CrossScaleLoss(loss_weight=-1), "loss_weight must be >= 0, got -1"),
    ],
)
def test_bad_arguments(build, message):
    with pytest.raises(ValueError, match=message):
        build()
