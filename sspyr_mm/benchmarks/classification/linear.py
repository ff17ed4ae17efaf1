"""The linear protocol: a linear classifier on frozen features; training images choose its learning rate."""

import math
import os
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor

from sspyr_mm.benchmarks.base_protocol import Job, Outcome
from sspyr_mm.benchmarks.classification.linear_grid import LinearClassifiers, LinearRecipe, train_grid
from sspyr_mm.benchmarks.classification.multi_label_data import BenchmarkData
from sspyr_mm.benchmarks.results.result import without_nan
from sspyr_mm.evaluation.metrics import (
    average_precision,
    classification_counts,
    mean_average_precision,
    mean_of_classes,
    voc11_average_precision,
)
from sspyr_mm.features.extraction import FrozenEncoder, cached_features
from sspyr_mm.machine import list_devices

_SIZE = 224  # side of the centre crop in pixels. Source: paper, linear multi-label classification.
_HELD_OUT = 5  # one in this many training images is held out to choose the learning rate; then all of them train
_BATCH_SIZES = {"coco14": 128, "coco17": 128}
"""Images per step; 32 for other data. Source: paper, linear multi-label classification."""


def measure_linear(job: Job) -> Outcome:
    """Runs the linear protocol; figures are those of the test images after the last epoch.

    Raises ValueError if there are too few images, or every learning rate diverges.
    """
    data, changed = job.data, dict(job.settings.changed)
    size = changed.pop("size", _SIZE)
    recipe = LinearRecipe(batch_size=_BATCH_SIZES.get(data.name, LinearRecipe.batch_size), **changed)
    scores, further = run_linear(
        job.network.encoder(),
        data,
        recipe,
        size=size,
        seed=job.seed,
        cache_dir=os.path.join(job.work_dir, "features"),
        devices=list_devices(),
    )
    targets = torch.from_numpy(data.test.targets)
    precision = average_precision(scores, targets)
    figures = {
        "mAP": mean_of_classes(precision),
        "mAP_voc11": mean_of_classes(voc11_average_precision(scores, targets)),
        **classification_counts(scores.sigmoid(), targets),
        "AP_per_class": without_nan(dict(zip(data.classes, (100 * precision).tolist(), strict=True))),
    }
    settings = {"size": size, **asdict(recipe), "learning_rates": list(recipe.learning_rates)}
    return Outcome(figures, settings, further)


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
    """Extracts features on all devices, then chooses the learning rate and trains on the first one.

    Returns:
        Scores (N, L) of the test images after the last epoch, and further figures: ``learning_rate``;
        ``held_out_mAP``, per rate; ``mAP_of_all_rates``; ``best_rate_on_test`` and ``best_epoch_on_test``, which were
        chosen by looking at the test images, each with its mAP.

    Raises:
        ValueError: If there are too few images, or the learning rates diverge.
    """
    features = [
        cached_features(encoder, part.paths, size=size, cache_dir=cache_dir, devices=devices)
        for part in (data.train, data.test)
    ]
    train, test = (f.to(devices[0]) for f in features)
    labels, truth = (torch.from_numpy(part.targets).to(devices[0]) for part in (data.train, data.test))
    rates = recipe.learning_rates
    held_out = choose_rate(train, labels, recipe, seed=seed) if len(rates) > 1 else {}
    chosen = _highest(held_out) if held_out else rates[0]
    index = rates.index(chosen)
    epochs: dict[int, float] = {}

    def watch(epoch: int, classifiers: LinearClassifiers) -> None:
        epochs[epoch] = _measure(classifiers.scores(test, index), truth)

    classifiers = train_grid(train, labels, recipe, seed=seed, on_epoch=watch)
    all_rates = _measure_all(classifiers, recipe, test, truth)
    if not math.isfinite(all_rates[chosen]):
        raise ValueError(
            f"Learning rate {chosen}, best on held-out images, diverged on all training images: leave it out with "
            "--learning-rates"
        )
    rate, epoch = _highest(all_rates), _highest(epochs)
    return classifiers.scores(test, index).cpu(), {
        "learning_rate": chosen,
        "held_out_mAP": without_nan(held_out),
        "mAP_of_all_rates": without_nan(all_rates),
        "best_rate_on_test": {"learning_rate": rate, "mAP": all_rates[rate]},
        "best_epoch_on_test": {"epoch": epoch, "mAP": epochs[epoch]},
    }


def choose_rate(features: Tensor, targets: Tensor, recipe: LinearRecipe, *, seed: int) -> dict[float, float]:
    """Measures every learning rate on held-out training images: mAP in percent, NaN if training diverges.

    Raises ValueError if there are fewer than five images, or those held out show no class.
    """
    count = len(features)
    if count < _HELD_OUT:
        raise ValueError(
            f"{count} training images are too few: choosing a learning rate needs {_HELD_OUT} or more; give one rate "
            "with --learning-rates"
        )
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed)).to(features.device)
    held, kept = order[: count // _HELD_OUT], order[count // _HELD_OUT :]
    classifiers = train_grid(features[kept], targets[kept], recipe, seed=seed)
    return _measure_all(classifiers, recipe, features[held], targets[held])


def _measure_all(
    classifiers: LinearClassifiers, recipe: LinearRecipe, features: Tensor, targets: Tensor
) -> dict[float, float]:
    return {
        rate: _measure(classifiers.scores(features, index), targets) for index, rate in enumerate(recipe.learning_rates)
    }


def _measure(scores: Tensor, targets: Tensor) -> float:
    return mean_average_precision(scores, targets) if scores.isfinite().all() else math.nan


def _highest(figures: dict[Any, float]) -> Any:
    """Returns the learning rate or epoch with the highest finite figure."""
    finite = {key: value for key, value in figures.items() if math.isfinite(value)}
    if not finite:
        raise ValueError(
            f"Every learning rate diverged ({', '.join(map(str, figures))}): the features' values are too large; give "
            "smaller ones with --learning-rates"
        )
    return max(finite, key=finite.__getitem__)
