"""The linear protocol: a linear classifier on frozen features, its learning rate chosen on training images alone."""

import math
import os
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

import torch
from torch import Tensor

from sspyr_mm.benchmarks.base_protocol import Job, Outcome
from sspyr_mm.benchmarks.classification.features import FrozenEncoder, cached_features
from sspyr_mm.benchmarks.classification.linear_grid import LinearClassifiers, LinearRecipe, train_grid
from sspyr_mm.benchmarks.classification.multi_label_data import BenchmarkData
from sspyr_mm.evaluation.metrics import (
    average_precision,
    classification_counts,
    mean_average_precision,
    mean_of_classes,
    voc11_average_precision,
)

__all__ = ["choose_rate", "measure_linear", "recipe_for", "run_linear", "settings_of"]

_SIZE = 224
"""Side of the centre crop in pixels. Source: paper, linear multi-label classification."""

HELD_OUT = 5
"""One in so many training images chooses the learning rate; then all of them train."""

BATCH_SIZES = {"coco14": 128, "coco17": 128}
"""Images a step, where it is not the 32 of VOC. Source: paper, linear multi-label classification."""


def measure_linear(job: Job) -> Outcome:
    """The linear protocol from images to figures.

    Args:
        job: Network, data, seed, folders and settings.

    Returns:
        Figures of the test images after the last epoch.

    Raises:
        ValueError: If there are too few images, or every learning rate diverges.
    """
    data, settings = job.data, job.settings
    recipe = recipe_for(data.name, epochs=settings.epochs, learning_rates=settings.learning_rates)
    size = settings.size or _SIZE
    scores, further = run_linear(
        job.network.encoder(),
        data,
        recipe,
        size=size,
        seed=job.seed,
        cache_dir=os.path.join(job.work_dir, "features"),
        devices=[f"cuda:{i}" for i in range(torch.cuda.device_count())] or ["cpu"],
    )
    targets = torch.from_numpy(data.test.targets)
    precision = average_precision(scores, targets)
    figures = {
        "mAP": mean_of_classes(precision),
        "mAP_voc11": mean_of_classes(voc11_average_precision(scores, targets)),
        **classification_counts(scores.sigmoid(), targets),
        "AP_per_class": data.by_class((100 * precision).tolist()),
    }
    return Outcome(figures, settings_of(recipe, size=size), further)


def run_linear(
    encoder: FrozenEncoder,
    data: BenchmarkData,
    recipe: LinearRecipe,
    *,
    size: int,
    seed: int,
    cache_dir: str,
    devices: Sequence[str],
) -> tuple[Tensor, dict[str, Any]]:
    """Extracts features, chooses the learning rate, trains and scores the test images.

    Args:
        encoder: Frozen network.
        data: Training and test images.
        recipe: How to train.
        size: Side of the centre crop in pixels.
        seed: Of starting point, order of images and held-out part.
        cache_dir: Where features are kept.
        devices: Where to compute; training happens on the first.

    Returns:
        Scores (N, L) of the test images after the last epoch, and further figures: ``learning_rate``;
        ``held_out_mAP``, per rate; ``mAP_of_all_rates``; ``best_rate_on_test`` and ``best_epoch_on_test``, which were
        chosen by looking at the test images, each with its mAP.

    Raises:
        ValueError: If there are too few images, or every learning rate diverges.
    """
    features = [
        cached_features(encoder, part.paths, size=size, cache_dir=cache_dir, devices=devices)
        for part in (data.train, data.test)
    ]
    train, test = (f.to(devices[0]) for f in features)
    labels, truth = (torch.from_numpy(part.targets).to(devices[0]) for part in (data.train, data.test))
    chosen, held_out = _best_rate(train, labels, recipe, seed=seed)
    index = recipe.learning_rates.index(chosen)
    epochs: dict[int, float] = {}

    def watch(epoch: int, classifiers: LinearClassifiers) -> None:
        epochs[epoch] = _measure(classifiers.scores(test, index), truth)

    classifiers = train_grid(train, labels, recipe, seed=seed, on_epoch=watch)
    all_rates = _measure_all(classifiers, test, truth, recipe, chosen)
    further = _further_figures(chosen, held_out, all_rates, epochs)
    return classifiers.scores(test, index).cpu(), further


def _measure_all(
    classifiers: LinearClassifiers, features: Tensor, targets: Tensor, recipe: LinearRecipe, chosen: float
) -> dict[float, float]:
    """The figure of every learning rate, of which the chosen one must not have diverged."""
    figures = {rate: _measure(classifiers.scores(features, i), targets) for i, rate in enumerate(recipe.learning_rates)}
    if not math.isfinite(figures[chosen]):
        raise ValueError(
            f"Learning rate {chosen}, best on held-out images, diverged on all training images: leave it out with "
            "--learning-rates"
        )
    return figures


def _further_figures(
    chosen: float, held_out: dict[float, float], all_rates: dict[float, float], epochs: dict[int, float]
) -> dict[str, Any]:
    """What was chosen, and what would have been by looking at the test images."""
    rate = max(all_rates, key=lambda rate: _or_lowest(all_rates[rate]))
    epoch = max(epochs, key=lambda epoch: _or_lowest(epochs[epoch]))
    return {
        "learning_rate": chosen,
        "held_out_mAP": {str(one): _or_none(value) for one, value in held_out.items()},
        "mAP_of_all_rates": {str(one): _or_none(value) for one, value in all_rates.items()},
        "best_rate_on_test": {"learning_rate": rate, "mAP": all_rates[rate]},
        "best_epoch_on_test": {"epoch": epoch, "mAP": epochs[epoch]},
    }


def _best_rate(
    features: Tensor, targets: Tensor, recipe: LinearRecipe, *, seed: int
) -> tuple[float, dict[float, float]]:
    """The learning rate that is best on held-out images, and the figures of all; a single one is not measured."""
    if len(recipe.learning_rates) == 1:
        return recipe.learning_rates[0], {}
    held_out = choose_rate(features, targets, recipe, seed=seed)
    usable = {rate: value for rate, value in held_out.items() if math.isfinite(value)}
    if not usable:
        raise ValueError(
            f"Every learning rate diverged ({', '.join(map(str, held_out))}): the features' values are too large; give "
            "smaller ones with --learning-rates"
        )
    return max(usable, key=usable.__getitem__), held_out


def choose_rate(features: Tensor, targets: Tensor, recipe: LinearRecipe, *, seed: int) -> dict[float, float]:
    """Mean average precision of every learning rate on held-out training images.

    Args:
        features: (N, C).
        targets: (N, L).
        recipe: How to train.
        seed: Of the part that is held out, and of training.

    Returns:
        Percent per learning rate; nan where training diverged.

    Raises:
        ValueError: If there are fewer than five images, or those held out show nothing.
    """
    count = len(features)
    if count < HELD_OUT:
        raise ValueError(
            f"{count} training images are too few: choosing a learning rate needs {HELD_OUT} or more; give one rate "
            "with --learning-rates"
        )
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed)).to(features.device)
    held, kept = order[: count // HELD_OUT], order[count // HELD_OUT :]
    classifiers = train_grid(features[kept], targets[kept], recipe, seed=seed)
    return {
        rate: _measure(classifiers.scores(features[held], index), targets[held])
        for index, rate in enumerate(recipe.learning_rates)
    }


def recipe_for(data: str, *, epochs: int | None = None, learning_rates: Sequence[float] | None = None) -> LinearRecipe:
    """The paper's recipe for a data set.

    Args:
        data: Name of the data.
        epochs: Other than the paper's.
        learning_rates: Other than the grid.
    """
    recipe = LinearRecipe(batch_size=BATCH_SIZES.get(data, LinearRecipe.batch_size))
    if epochs is not None:
        recipe = replace(recipe, epochs=epochs)
    if learning_rates is not None:
        recipe = replace(recipe, learning_rates=tuple(learning_rates))
    return recipe


def settings_of(recipe: LinearRecipe, *, size: int) -> dict[str, Any]:
    """All numbers of a run, for its result."""
    return {"size": size, **asdict(recipe), "learning_rates": list(recipe.learning_rates)}


def _measure(scores: Tensor, targets: Tensor) -> float:
    return mean_average_precision(scores, targets) if scores.isfinite().all() else math.nan


def _or_none(value: float) -> float | None:
    """For JSON, which has no nan."""
    return value if math.isfinite(value) else None


def _or_lowest(value: float) -> float:
    return value if math.isfinite(value) else -math.inf
