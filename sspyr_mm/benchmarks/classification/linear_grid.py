"""Training of the linear protocol, for all learning rates of the grid at once.

The backbone is frozen and the crop is fixed, so every epoch sees the same features, which are extracted once. The
classifiers of all learning rates share every batch: together they are one matrix product. Steps, order of images and
schedule equal those of mmengine's runner with the configs of ``configs/benchmarks/classification``.

Dimensions: N images, C channels, L classes, G learning rates.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class LinearRecipe:
    """Stochastic gradient descent on a linear classifier.

    Source: paper, linear multi-label classification; its range of learning rates, in steps of about three.
    """

    epochs: int = 50
    batch_size: int = 32
    learning_rates: tuple[float, ...] = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0)
    momentum: float = 0.9
    weight_decay: float = 1e-4  # of weights and biases
    num_decays: int = 3  # divisions of the learning rate by ten, at equal intervals
    init_std: float = 0.01  # of the initial weights; biases start at 0

    @property
    def milestones(self) -> tuple[int, ...]:
        """Epochs at which the learning rate is divided by ten."""
        return tuple(max(1, self.epochs * i // (self.num_decays + 1)) for i in range(1, self.num_decays + 1))


@dataclass(frozen=True)
class LinearClassifiers:
    """One linear classifier per learning rate."""

    weight: Tensor  # (C, G, L)
    bias: Tensor  # (G, L)

    def scores(self, features: Tensor, index: int) -> Tensor:
        """Returns the logits (N, L) of the classifier of one learning rate, on the device of ``features`` (N, C)."""
        weight, bias = (t[..., index, :].to(features.device) for t in (self.weight, self.bias))
        return features @ weight + bias


def initial_weight(num_channels: int, num_classes: int, std: float, *, seed: int) -> Tensor:
    """Draws the initial weight (C, L) of every classifier of the grid, float32 on the CPU."""
    generator = torch.Generator().manual_seed(seed)
    return std * torch.randn(num_channels, num_classes, generator=generator)


@torch.no_grad()
def train_grid(
    features: Tensor,
    targets: Tensor,
    recipe: LinearRecipe,
    *,
    seed: int = 0,
    on_epoch: Callable[[int, LinearClassifiers], None] | None = None,
) -> LinearClassifiers:
    """Trains a classifier per learning rate on binary cross-entropy, summed over classes, mean over images.

    The gradient is computed explicitly, sigmoid minus target, without autograd.

    Args:
        features: (N, C) float32, on the device that trains.
        targets: (N, L), 1, 0, or -1 to ignore.
        recipe: Training recipe.
        seed: Random seed of the initial weights and of the order of images, that of mmengine's ``DefaultSampler``.
        on_epoch: Function called after every epoch with its number, from 1, and the classifiers. Diverged ones contain
            infinities or NaN.
    """
    (num_images, channels), classes = features.shape, targets.shape[1]
    rates = torch.tensor(recipe.learning_rates, dtype=features.dtype, device=features.device)
    grid = len(rates)
    start = initial_weight(channels, classes, recipe.init_std, seed=seed).to(features)
    weight = start.repeat(1, grid)  # (C, G * L): one product per step
    bias = features.new_zeros(grid * classes)
    weight_momentum, bias_momentum = torch.zeros_like(weight), torch.zeros_like(bias)
    step_sizes = rates.repeat_interleave(classes)
    counted, positive = (targets >= 0).to(features), (targets > 0).to(features)
    result = LinearClassifiers(weight.view(channels, grid, classes), bias.view(grid, classes))

    for epoch in range(recipe.epochs):
        step_sizes = step_sizes / 10 ** recipe.milestones.count(epoch)
        generator = torch.Generator().manual_seed(seed + epoch)
        order = torch.randperm(num_images, generator=generator).to(features.device)
        for batch in order.split(recipe.batch_size):
            x = features[batch]
            probability = torch.addmm(bias, x, weight).sigmoid_().view(len(batch), grid, classes)
            error = probability.sub_(positive[batch, None]).mul_(counted[batch, None] / len(batch))
            error = error.view(len(batch), grid * classes)
            updates = (weight, weight_momentum, x.T @ error), (bias, bias_momentum, error.sum(0))
            for value, momentum, gradient in updates:
                gradient.add_(value, alpha=recipe.weight_decay)
                momentum.mul_(recipe.momentum).add_(gradient)
                value.addcmul_(momentum, step_sizes, value=-1)
        if on_epoch is not None:
            on_epoch(epoch + 1, result)
    return result
