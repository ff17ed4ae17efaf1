"""Layers of momentum contrast: grouped batch norm, shuffling, the momentum encoder."""

import copy

import pytest
import torch
from mmcv.cnn import build_norm_layer
from references.contrast import grouped_batch_norm
from torch import nn

from sspyr_mm.models import GroupedBatchNorm
from sspyr_mm.models.layers import BatchShuffle, MomentumEncoder, rows_per_image


def filled(norm):
    """Weights, biases and running averages that are not those of a new layer."""
    generator = torch.Generator().manual_seed(3)
    for tensor in (*norm.parameters(), norm.running_mean, norm.running_var):
        tensor.data = torch.rand(tensor.shape, generator=generator) + 0.5
    return norm


@pytest.mark.parametrize(
    ("num", "group", "sizes"), [(8, 4, [4, 4]), (8, 3, [3, 3, 2]), (10, 4, [4, 3, 3]), (7, 4, [4, 3]), (5, 1, [1] * 5)]
)
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_groups_have_their_own_statistics(num, group, sizes, layout):
    x = torch.randn(num, 6, 5, 4, generator=torch.Generator().manual_seed(0)).to(memory_format=layout)
    norm = filled(GroupedBatchNorm(6, group))
    mean, var = norm.running_mean.clone(), norm.running_var.clone()
    expected, means, variances = grouped_batch_norm(x, norm.weight, norm.bias, sizes)
    got = norm(x)
    torch.testing.assert_close(got.double(), expected, atol=1e-5, rtol=1e-5)
    # The running averages move towards the mean of the groups' statistics.
    torch.testing.assert_close(norm.running_mean.double(), 0.9 * mean + 0.1 * means.mean(0), check_dtype=False)
    torch.testing.assert_close(norm.running_var.double(), 0.9 * var + 0.1 * variances.mean(0), check_dtype=False)
    assert norm.num_batches_tracked == 1


def test_rows_of_one_image_stay_in_one_group():
    """Seven images of three patches in groups of at most four images: 4 x 3 and 3 x 3 rows."""
    x = torch.randn(21, 6, 2, 2)
    norm = filled(GroupedBatchNorm(6, 4))
    expected, _, _ = grouped_batch_norm(x, norm.weight, norm.bias, [12, 9])
    with rows_per_image(3):
        torch.testing.assert_close(norm(x).double(), expected, atol=1e-5, rtol=1e-5)
    expected, _, _ = grouped_batch_norm(x[:8], norm.weight, norm.bias, [4, 4])
    torch.testing.assert_close(norm(x[:8]).double(), expected, atol=1e-5, rtol=1e-5)


def test_batches_without_statistics_are_rejected():
    with pytest.raises(ValueError, match=r"more than one value per channel.*batch_size=2"):
        GroupedBatchNorm(4)(torch.randn(1, 4, 1, 1))
    with rows_per_image(3), pytest.raises(ValueError, match="7 rows are not a multiple of 3 rows per image"):
        GroupedBatchNorm(4)(torch.randn(7, 4, 2, 2))


def test_gradients_stay_within_a_group():
    x = torch.randn(6, 2, 3, 3, requires_grad=True)
    GroupedBatchNorm(2, 3)(x)[0].square().sum().backward()
    assert x.grad[:3].abs().sum() > 0 and not x.grad[3:].any()


def test_evaluation_and_one_group_equal_batch_norm():
    x = torch.randn(6, 4, 3, 3)
    ours, theirs = filled(GroupedBatchNorm(4, 2)).eval(), filled(nn.BatchNorm2d(4)).eval()
    assert torch.equal(ours(x), theirs(x))
    ours, theirs = filled(GroupedBatchNorm(4, 6)).train(), filled(nn.BatchNorm2d(4)).train()
    assert torch.equal(ours(x), theirs(x))
    assert ours.state_dict().keys() == theirs.state_dict().keys()
    assert all(torch.equal(a, b) for a, b in zip(ours.state_dict().values(), theirs.state_dict().values(), strict=True))


def test_is_built_from_a_config_under_the_name_of_batch_norm():
    name, layer = build_norm_layer(dict(type="GroupedBN", group_size=5), 7, postfix=2)
    assert name == "bn2" and isinstance(layer, GroupedBatchNorm)
    assert (layer.num_features, layer.group_size) == (7, 5)
    for size in (0, 16.5, "16"):
        with pytest.raises(ValueError, match=f"group_size must be an integer >= 1, got {size!r}"):
            GroupedBatchNorm(4, size)


def test_momentum_zero_leaves_the_running_averages_as_they_are():
    """The second forward pass of recomputed activations relies on it."""
    norm = filled(GroupedBatchNorm(4, 2))
    before = norm.running_mean.clone(), norm.running_var.clone()
    norm.momentum = 0.0
    norm(torch.randn(6, 4, 3, 3))
    assert torch.equal(norm.running_mean, before[0]) and torch.equal(norm.running_var, before[1])


def test_shuffled_images_are_restored():
    seeds = torch.tensor([70, 10, 2**62, 30, 5])
    images = torch.arange(5)[:, None].float()
    shuffle = BatchShuffle(seeds)
    shuffled = shuffle.shuffle(images)
    assert shuffled[:, 0].tolist() == [4, 1, 3, 0, 2]  # in the order of the seeds
    mine, of_all = shuffle.restore(shuffled * 10)
    assert torch.equal(mine, images * 10) and torch.equal(of_all, images * 10)


def test_a_query_meets_the_images_of_its_keys_group_by_chance_alone():
    """Groups of 4 among 16 images: a query's group and the group of its key share 3 / 15 of their other members."""
    shared, generator = 0, torch.Generator().manual_seed(0)
    for _ in range(400):
        order = BatchShuffle(torch.randint(2**62, (16,), generator=generator)).shuffle(torch.arange(16))
        key_group = torch.empty(16, dtype=torch.long)
        key_group[order] = torch.arange(16) // 4
        query_group = torch.arange(16) // 4
        same = (query_group[:, None] == query_group) & (key_group[:, None] == key_group)
        shared += (same.sum() - 16).item()
    assert shared / (400 * 16 * 3) == pytest.approx(3 / 15, abs=0.02)


def encoder_of(*, seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 2, 1))


def test_momentum_encoder_moves_parameters_and_no_buffer():
    trained = encoder_of()
    momentum = MomentumEncoder({"backbone": trained})
    assert not any(p.requires_grad for p in momentum.parameters())
    start = copy.deepcopy(momentum.state_dict())
    with torch.no_grad():
        for parameter in trained.parameters():
            parameter.add_(1)
        trained[1].running_mean.add_(5)
    for _ in range(7):
        momentum.follow(0.9)
    for name, value in momentum.named_parameters():
        # theta is constant: phi_n = theta + m^n (phi_0 - theta)
        torch.testing.assert_close(value, start[name] + 1 - 0.9**7, atol=1e-6, rtol=0)
    assert torch.equal(momentum["backbone"][1].running_mean, start["backbone.1.running_mean"])
    momentum.reset()
    assert all(torch.equal(momentum["backbone"].state_dict()[n], x) for n, x in trained.state_dict().items())


@pytest.mark.parametrize("momentum", [0.0, 1.0])
def test_momentum_of_0_copies_and_of_1_holds(momentum):
    trained = encoder_of()
    encoder = MomentumEncoder({"backbone": trained})
    start = copy.deepcopy(encoder.state_dict())
    with torch.no_grad():
        trained[0].weight.mul_(3)
    encoder.follow(momentum)
    wanted = start["backbone.0.weight"] if momentum else trained[0].weight
    torch.testing.assert_close(encoder["backbone"][0].weight.data, wanted.data, rtol=1e-6, atol=0)


def test_a_copied_model_follows_its_own_modules():
    model = nn.Module()
    model.backbone = encoder_of()
    model.momentum = MomentumEncoder({"backbone": model.backbone})
    copied = copy.deepcopy(model)
    with torch.no_grad():
        copied.backbone[0].weight.zero_()
    copied.momentum.follow(0.0)
    model.momentum.follow(0.0)
    assert not copied.momentum["backbone"][0].weight.any()
    assert torch.equal(model.momentum["backbone"][0].weight, model.backbone[0].weight)
