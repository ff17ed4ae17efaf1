"""Labels of -1 are left out of the loss; the rest is summed over classes."""

import pytest
import torch
from mmpretrain.registry import MODELS
from mmpretrain.structures import DataSample

import sspyr_mm.registration  # noqa: F401

B, C, L = 5, 6, 4


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(0)
    feats = torch.randn(B, C, generator=generator)
    targets = torch.randint(-1, 2, (B, L), generator=generator)
    samples = [DataSample().set_gt_score(row.float()) for row in targets]
    return feats, targets, samples


def head(**kwargs):
    torch.manual_seed(0)
    return MODELS.build(dict(type="MaskedMultiLabelHead", num_classes=L, in_channels=C, **kwargs))


def entropy(probability, target):
    return -(target * probability.log() + (1 - target) * (1 - probability).log())


def asymmetric(probability, target):
    """gamma+ 0, gamma- 4, margin .05. Source: Ridnik et al., equations 1, 5 and 7."""
    if target:
        return -probability.log()
    shifted = (probability - 0.05).clamp_min(0)
    return -(shifted**4) * (1 - shifted).log()


ASYMMETRIC = dict(type="AsymmetricLoss", gamma_pos=0.0, gamma_neg=4.0, clip=0.05)


@pytest.mark.parametrize("mean", [True, False])
@pytest.mark.parametrize(("loss", "term"), [(None, entropy), (ASYMMETRIC, asymmetric)], ids=["bce", "asl"])
def test_loss_entry_by_entry(batch, mean, loss, term):
    feats, targets, samples = batch
    module = head(loss=loss, mean_over_images=mean)
    probability = module((feats,)).double().sigmoid()
    expected = sum(
        term(probability[b, k], targets[b, k].double()) for b in range(B) for k in range(L) if targets[b, k] >= 0
    )
    computed = module.loss((feats,), samples)["loss"]
    torch.testing.assert_close(computed.double(), expected / (B if mean else 1), rtol=1e-5, atol=1e-6)


def test_ignored_entries_have_no_gradient(batch):
    feats, _, samples = batch
    module = head()
    for sample in samples:
        sample.gt_score[2] = -1
    module.loss((feats,), samples)["loss"].backward()
    assert module.fc.weight.grad[2].abs().max() == 0
    assert module.fc.weight.grad[[0, 1, 3]].abs().min() > 0


def test_features_of_another_width_are_refused(batch):
    feats, _, samples = batch
    wide = torch.cat([feats, feats], 1)
    message = (
        f"model.head.in_channels is {C}, but the features have {2 * C} channels: set model.head.in_channels={2 * C}"
    )
    with pytest.raises(ValueError, match=message):
        head().loss((wide,), samples)
    with pytest.raises(ValueError, match=message):
        head().predict((wide,), samples)


def test_half_precision_scores_lose_nothing(batch):
    feats, _, samples = batch
    module = head(loss=ASYMMETRIC)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = module.loss((feats * 20,), samples)["loss"]
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, module.loss((feats * 20,), samples)["loss"], rtol=0.05, atol=0)
