"""The linear protocol's training, for all learning rates of the grid at once.

The backbone is frozen and the crop is fixed, so every epoch of the usual recipe sees the same features. They are
extracted once; what is left is one small linear problem per learning rate, and those share every batch: side by side
they are one matrix product. Steps, order of images and schedule are those of mmengine's runner with the configs of
``configs/benchmarks/classification``.

Dimensions: N images, C channels, L classes, G learning rates.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["LEARNING_RATES", "LinearClassifiers", "LinearRecipe", "initial_weight", "train_grid"]

LEARNING_RATES = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0)
"""The grid: the paper's range, in steps of about three."""


@dataclass(frozen=True)
class LinearRecipe:
    """Stochastic gradient descent on a linear classifier.

    Args:
        epochs: Passes over the training images.
        batch_size: Images a step.
        learning_rates: The grid.
        momentum: Of SGD.
        weight_decay: Of SGD, on weights and biases.
        num_decays: How often the rate is divided by ten, at equal intervals.
        init_std: Of the normal distribution weights start from; biases start at 0.

    Source: paper, linear multi-label classification.
    """

    epochs: int = 50
    batch_size: int = 32
    learning_rates: tuple[float, ...] = LEARNING_RATES
    momentum: float = 0.9
    weight_decay: float = 1e-4
    num_decays: int = 3
    init_std: float = 0.01

    @property
    def milestones(self) -> tuple[int, ...]:
        """Epochs from which the rate is a tenth of what it was."""
        return tuple(max(1, self.epochs * i // (self.num_decays + 1)) for i in range(1, self.num_decays + 1))


@dataclass(frozen=True)
class LinearClassifiers:
    """One linear classifier per learning rate.

    Args:
        weight: (C, G, L).
        bias: (G, L).
    """

    weight: Tensor
    bias: Tensor

    def scores(self, features: Tensor, index: int) -> Tensor:
        """Logits of one of them.

        Args:
            features: (N, C).
            index: Which learning rate, 0 to G - 1.

        Returns:
            (N, L), on the device of ``features``.
        """
        weight, bias = (t[..., index, :].to(features.device) for t in (self.weight, self.bias))
        return features @ weight + bias


def initial_weight(num_channels: int, num_classes: int, std: float, *, seed: int) -> Tensor:
    """Where every classifier of the grid starts.

    Args:
        num_channels: C.
        num_classes: L.
        std: Of the normal distribution.
        seed: Of its generator.

    Returns:
        (C, L) float32 on the CPU.
    """
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

    The gradient is written out, sigmoid minus target, which spares an autograd graph per step.

    Args:
        features: (N, C) float32; training happens on their device.
        targets: (N, L): 1, 0, or -1 for what counts for nothing.
        recipe: How.
        seed: Of the starting point and of the order of images, which is that of mmengine's ``DefaultSampler``.
        on_epoch: Called after every epoch with its number, from 1, and the classifiers so far.

    Returns:
        The classifiers, in the order of ``recipe.learning_rates``. One that diverged holds infinities or nan.
    """
    (num_images, channels), classes = features.shape, targets.shape[1]
    rates = torch.tensor(recipe.learning_rates, dtype=features.dtype, device=features.device)
    grid = len(rates)
    start = initial_weight(channels, classes, recipe.init_std, seed=seed).to(features)
    weight = start.repeat(1, grid)  # (C, G * L): all of a step is one product
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
            of_weight = (weight, weight_momentum, x.T @ error)
            for value, momentum, gradient in (of_weight, (bias, bias_momentum, error.sum(0))):
                gradient.add_(value, alpha=recipe.weight_decay)
                momentum.mul_(recipe.momentum).add_(gradient)
                value.addcmul_(momentum, step_sizes, value=-1)
        if on_epoch is not None:
            on_epoch(epoch + 1, result)
    return result
