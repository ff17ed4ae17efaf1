"""Training all learning rates at once equals training each of them separately."""

import itertools

import pytest
import torch
from torch.nn import functional as F

from sspyr_mm.benchmarks.classification.linear_grid import LinearRecipe, initial_weight, train_grid

N, C, L = 45, 7, 3


@pytest.fixture
def problem():
    generator = torch.Generator().manual_seed(3)
    features = torch.randn(N, C, generator=generator, dtype=torch.float64).relu()
    targets = torch.randint(-1, 2, (N, L), generator=generator)
    assert set(targets.unique().tolist()) == {-1, 0, 1}
    return features, targets


def plain_training(features, targets, recipe, lr, seed):
    """The recipe with SGD, MultiStepLR and autograd of torch, and a loss per image."""
    model = torch.nn.Linear(C, L, dtype=features.dtype)
    with torch.no_grad():
        model.weight.copy_(initial_weight(C, L, recipe.init_std, seed=seed).T)
        model.bias.zero_()
    optimizer = torch.optim.SGD(model.parameters(), lr=lr, momentum=recipe.momentum, weight_decay=recipe.weight_decay)
    scheduler = torch.optim.lr_scheduler.MultiStepLR(optimizer, list(recipe.milestones), gamma=0.1)
    for epoch in range(recipe.epochs):
        order = torch.randperm(N, generator=torch.Generator().manual_seed(seed + epoch)).tolist()
        for start in range(0, N, recipe.batch_size):
            batch = order[start : start + recipe.batch_size]
            losses = []
            for image in batch:
                counted = targets[image] >= 0
                logits = model(features[image])[counted]
                labels = targets[image][counted].to(logits.dtype)
                losses.append(F.binary_cross_entropy_with_logits(logits, labels, reduction="sum"))
            optimizer.zero_grad()
            (sum(losses) / len(batch)).backward()
            optimizer.step()
        scheduler.step()
    return model


def test_grid_equals_separate_trainings(problem):
    features, targets = problem
    recipe = LinearRecipe(epochs=9, batch_size=10, learning_rates=(0.01, 0.1, 1.0))
    assert recipe.milestones == (2, 4, 6)
    classifiers = train_grid(features, targets, recipe, seed=5)
    for index, lr in enumerate(recipe.learning_rates):
        model = plain_training(features, targets, recipe, lr, seed=5)
        torch.testing.assert_close(classifiers.weight[:, index].T, model.weight, rtol=1e-9, atol=1e-12)
        torch.testing.assert_close(classifiers.bias[index], model.bias, rtol=1e-9, atol=1e-12)
        torch.testing.assert_close(classifiers.scores(features, index), model(features), rtol=1e-9, atol=1e-12)


def test_default_grid_covers_the_papers_range():
    rates = LinearRecipe().learning_rates
    assert (min(rates), max(rates)) == (0.001, 3.0)
    steps = [after / before for before, after in itertools.pairwise(rates)]
    assert all(3 <= step < 3.4 for step in map(lambda step: round(step, 6), steps))


def test_ignored_labels_change_nothing(problem):
    features, targets = problem
    recipe = LinearRecipe(epochs=4, batch_size=16, learning_rates=(0.1,))
    alone = targets.clone()
    alone[:, 1:] = -1
    weight = train_grid(features, alone, recipe, seed=0).weight
    whole = train_grid(features, targets, recipe, seed=0).weight
    torch.testing.assert_close(weight[:, 0, 0], whole[:, 0, 0])
    start = initial_weight(C, L, recipe.init_std, seed=0)
    # Without a label, only weight decay acts, which shrinks the weights.
    assert (weight[:, 0, 1].abs() < start[:, 1].abs()).all()
    assert not torch.allclose(whole[:, 0, 1], weight[:, 0, 1])


def test_diverged_rate_does_not_affect_the_others(problem):
    features, targets = problem
    recipe = LinearRecipe(epochs=30, batch_size=5, learning_rates=(0.01, 1e30))
    both = train_grid(features.float(), targets, recipe)
    one = train_grid(features.float(), targets, LinearRecipe(epochs=30, batch_size=5, learning_rates=(0.01,)))
    torch.testing.assert_close(both.weight[:, 0], one.weight[:, 0])
    assert both.weight[:, 1].abs().max() > 1e20 or not both.weight[:, 1].isfinite().all()


def test_on_epoch_is_called_after_every_epoch(problem):
    features, targets = problem
    seen = []
    recipe = LinearRecipe(epochs=5, batch_size=50, learning_rates=(0.1,))
    final = train_grid(features, targets, recipe, on_epoch=lambda e, c: seen.append((e, c.weight.clone())))
    assert [epoch for epoch, _ in seen] == [1, 2, 3, 4, 5]
    assert not torch.equal(seen[0][1], seen[1][1])
    torch.testing.assert_close(seen[-1][1], final.weight)
