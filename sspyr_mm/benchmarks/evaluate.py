"""From checkpoints and data to results: what `evaluate` does. A result that is there already is not measured again."""

import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

import torch
from mmengine.model import BaseModule

from sspyr_mm.benchmarks.checks import check_run, check_settings, recipe_name
from sspyr_mm.benchmarks.classification.finetune import FINETUNE, Start, run_finetune
from sspyr_mm.benchmarks.classification.linear import recipe_for, run_linear, settings_of
from sspyr_mm.benchmarks.classification.multi_label_data import BenchmarkData
from sspyr_mm.benchmarks.dense.dense_data import DenseData
from sspyr_mm.benchmarks.dense.protocols import BATCH, DENSE
from sspyr_mm.benchmarks.dense.run import run_dense
from sspyr_mm.benchmarks.networks import Network
from sspyr_mm.benchmarks.results.result import (
    Result,
    fingerprint,
    matches,
    package_versions,
    read_result,
    write_result,
)
from sspyr_mm.benchmarks.settings import Settings
from sspyr_mm.benchmarks.training.process import default_processes
from sspyr_mm.benchmarks.training.recipes import load_recipe
from sspyr_mm.checkpoints import build_backbone
from sspyr_mm.compat import find_distribution
from sspyr_mm.evaluation.metrics import (
    average_precision,
    classification_counts,
    mean_of_classes,
    voc11_average_precision,
)
from sspyr_mm.files import whole_file

_SIZE = 224


def evaluate(
    network: Network,
    protocol: str,
    data: BenchmarkData | DenseData,
    *,
    seed: int,
    work_dir: str,
    settings: Settings | None = None,
) -> Result:
    """Measures one network by one protocol, unless its result is in ``work_dir`` already.

    Args:
        network: What.
        protocol: One of ``PROTOCOLS``.
        data: Training and test images.
        seed: Of everything random.
        work_dir: Where results, features and unfinished runs are kept.
        settings: What differs from the paper.

    Returns:
        The result, also written to ``work_dir/result-*.json``.

    Raises:
        ValueError: If the data or the network do not allow it.
        ChildProcessError: If fine-tuning fails.
    """
    settings = settings or Settings()
    check_settings(protocol, settings)
    key = fingerprint(
        network.identity,
        protocol,
        data.name,
        data.digest,
        _recipe_text(protocol),
        seed,
        asdict(settings),
        # A version that measures otherwise must not take over what another one measured.
        package_versions()["sspyr_mm"],
        *_measured_by(protocol),
    )
    path = os.path.join(work_dir, f"result-{protocol}-{data.name}-{key}.json")
    known = _known(path)
    if known and matches(
        known,
        protocol=protocol,
        data=data.name,
        seed=seed,
        identity=network.identity,
        data_sha256=data.labels_digest,
    ):
        # What it is called, and where it lies, may have changed.
        return replace(known, network=network.name, checkpoint=network.about)
    measure = _linear if protocol == "linear" else _dense if protocol in DENSE else _finetune
    metric = DENSE[protocol].metric if protocol in DENSE else "mAP"
    figures, used, beside = measure(_Job(network, protocol, data, seed, work_dir, key, settings))
    result = Result(
        network=network.name,
        protocol=protocol,
        data=data.name,
        seed=seed,
        metric=metric,
        value=figures.pop(metric),
        as_published=not settings.changed and data.is_official,
        checkpoint=network.about,
        counts=data.counts,
        data_sha256=data.labels_digest,
        settings={**used, "seed": seed, "changed": settings.changed},
        beside={**figures, **beside},
        versions=package_versions(),
    )
    write_result(result, path)
    return result


def _measured_by(protocol: str) -> list[tuple[str, str] | None]:
    """Packages of others that hold a protocol's networks and metrics."""
    packages = ("mmdet", "mmseg", "pycocotools") if protocol in DENSE else ()
    return [find_distribution(name) for name in packages]


def _known(path: str) -> Result | None:
    """What was measured before; a file that is damaged is measured anew."""
    if not os.path.exists(path):
        return None
    try:
        return read_result(path)
    except ValueError as error:
        print(f"Measured again: {error}", file=sys.stderr)
        return None


@dataclass(frozen=True)
class _Job:
    """One figure to be measured; ``key`` tells it from all others."""

    network: Network
    protocol: str
    data: Any
    seed: int
    work_dir: str
    key: str
    settings: Settings

    @property
    def folder(self) -> str:
        """Of its unfinished runs."""
        return os.path.join(self.work_dir, f"{self.protocol}-{self.data.name}-{self.key}")


_Measured: TypeAlias = tuple[dict[str, Any], dict[str, Any], dict[str, Any]]
"""Figures of the test images, settings used, and what stands beside."""


def _linear(job: _Job) -> _Measured:
    data, settings = job.data, job.settings
    recipe = recipe_for(data.name, epochs=settings.epochs, learning_rates=settings.learning_rates)
    size = settings.size or _SIZE
    devices = [f"cuda:{i}" for i in range(torch.cuda.device_count())] or ["cpu"]
    scores, beside = run_linear(
        job.network.encoder(),
        data,
        recipe,
        size=size,
        seed=job.seed,
        cache_dir=os.path.join(job.work_dir, "features"),
        devices=devices,
    )
    targets = torch.from_numpy(data.test.targets)
    precision = average_precision(scores, targets)
    figures = {
        "mAP": mean_of_classes(precision),
        "mAP_voc11": mean_of_classes(voc11_average_precision(scores, targets)),
        **classification_counts(scores.sigmoid(), targets),
        "AP_per_class": _by_class(data, (100 * precision).tolist()),
    }
    return figures, settings_of(recipe, size=size), beside


def _finetune(job: _Job) -> _Measured:
    data, settings, checkpoint = job.data, job.settings, job.network.checkpoint
    protocol = FINETUNE[job.protocol]
    if not isinstance(network := build_backbone(checkpoint), BaseModule):
        raise ValueError(
            f"{type(network).__name__} can't be fine-tuned: it must be a BaseModule of mmengine, which takes init_cfg; "
            "`linear` can measure it"
        )
    weights = os.path.join(os.path.abspath(job.folder), "backbone.pth")
    with whole_file(weights) as partial:
        torch.save({"state_dict": checkpoint.state_dict}, partial)
    start = Start(
        checkpoint.backbone,
        weights,
        checkpoint.mean,
        checkpoint.std,
        _num_channels(job.network),
        job.network.modules,
        checkpoint.decoding,
    )
    outcome = run_finetune(
        protocol,
        start,
        data,
        seed=job.seed,
        work_dir=job.folder,
        num_processes=default_processes(),
        settings=settings,
    )
    Path(weights).unlink(missing_ok=True)  # the same command, given twice, has done so
    figures: dict[str, Any] = {
        name.removeprefix("multi-label/"): value for name, value in outcome.metrics.items()
    }
    percent = [figures.pop(f"AP_{name}") for name in data.test.classes]
    figures["AP_per_class"] = _by_class(data, percent)
    return figures, outcome.settings, outcome.chosen


def _dense(job: _Job) -> _Measured:
    figures, used = run_dense(
        job.protocol,
        job.network.checkpoint,
        job.data,
        seed=job.seed,
        work_dir=job.folder,
        num_processes=default_processes(job.settings.batch_size or BATCH),
        settings=job.settings,
    )
    pictures = os.path.join(os.path.relpath(job.folder, job.work_dir), "final", "predictions")
    return figures, used, {"pictures": pictures}


def _recipe_text(protocol: str) -> str:
    """The config of a protocol: an edited one is another protocol."""
    name = recipe_name(protocol)
    return load_recipe(name).pretty_text if name else ""


def _num_channels(network: Network) -> int:
    return network.encoder()(torch.zeros(1, 3, _SIZE, _SIZE, dtype=torch.uint8)).shape[1]


def _by_class(data: BenchmarkData, percent: Sequence[float]) -> dict[str, float | None]:
    """Per class; None where precision is not defined, for which JSON has no number."""
    return {
        name: None if value != value else value
        for name, value in zip(data.test.classes, percent, strict=True)
    }


def each(
    networks: Sequence[Network],
    runs: Sequence[tuple[str, BenchmarkData | DenseData]],
    seeds: Sequence[int],
    *,
    work_dir: str,
    settings: Settings,
) -> Iterator[Result]:
    """Every network by every protocol with every seed; see :func:`evaluate`."""
    for protocol, data in runs:  # before the first hour's work
        check_run(protocol, data, seeds, settings, networks)
    for protocol, data in runs:
        for network in networks:
            for seed in seeds:
                yield evaluate(
                    network, protocol, data, seed=seed, work_dir=work_dir, settings=settings
                )
