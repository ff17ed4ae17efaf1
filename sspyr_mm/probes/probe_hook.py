"""Probes the backbone during pre-training, where there are labels."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from mmengine.dist import all_reduce, broadcast_object_list, get_rank, get_world_size, is_main_process
from mmengine.hooks import Hook
from mmengine.runner import Runner
from mmpretrain.registry import HOOKS
from torch import Tensor, nn
from torch.utils.data import DataLoader, Subset

from sspyr_mm.datasets.labelled import (
    LabelledImages,
    match_classes,
    read_labelled,
    shared_images,
    warn_of_shared_images,
)
from sspyr_mm.datasets.link import image_decoding
from sspyr_mm.datasets.workers import answer_to_parent_only
from sspyr_mm.engine.hooks.model_access import model_of
from sspyr_mm.features.extraction import BATCH, CentreCrops
from sspyr_mm.models import ViewModel
from sspyr_mm.models.layers import last_output, pool, pool_cells
from sspyr_mm.probes.knn import knn_scores
from sspyr_mm.probes.linear_probe import linear_probe, measure_scores

_L2 = 1e-2
"""Weight penalty of the linear probe. A fixed one makes epochs comparable, and costs one fit instead of five."""


@HOOKS.register_module()
class ProbeHook(Hook):
    """Measures the backbone on labelled images: k nearest neighbours and a linear classifier, of images and of cells.

    Before training, after epochs and at the end of training, all ranks together extract the features of two labelled
    sets, in evaluation mode and without gradient, from centre crops; the classifiers are trained on one set and
    measured on the other. Weights, running statistics and random numbers of training do not change.

    Of cells: each cell of a grid on the last map has the labels of its image, and the score of an image is the highest
    one of its cells.

    All visualisation backends receive mAP, or top-1 accuracy if every image has one label, in percent as
    ``probe/knn``, ``probe/linear``, ``probe/knn_cells`` and ``probe/linear_cells``.

    Memory holds the centre crops, shared by the ranks.

    Args:
        train: Labelled set to train on: see :func:`read_labelled`.
        test: Labelled set to measure on.
        train_split: Split of ``train``, if it has several.
        test_split: Split of ``test``.
        max_images: Number of images of each set, drawn with a fixed seed if there are more.
        size: Side of the centre crop in pixels; None: that of the first group of patches.
        grid: Side of the grid of cells; 0: no cells. Backbones without maps, or with smaller ones, have none.
        k: Number of neighbours.
        interval: Epochs between measurements.
        max_share: Share of the run's time, 0 to 1: a measurement that would exceed it waits for a later epoch, except
            the first and the last one; None: no limit.

    Raises:
        ValueError: If a number is out of its range, or the sets do not match.
    """

    priority = "LOW"

    def __init__(
        self,
        train: str,
        test: str,
        *,
        train_split: str | None = None,
        test_split: str | None = None,
        max_images: int = 1000,
        size: int | None = None,
        grid: int = 2,
        k: int = 20,
        interval: int = 1,
        max_share: float | None = 0.03,
    ) -> None:
        least = {"max_images": 2, "size": 1, "grid": 0, "k": 1, "interval": 1}
        given = {"max_images": max_images, "size": size, "grid": grid, "k": k, "interval": interval}
        for name, value in given.items():
            if not (value is None and name == "size") and (type(value) is not int or value < least[name]):
                raise ValueError(f"{name} must be an integer >= {least[name]}, got {value!r}")
        if max_share is not None and not 0 < max_share <= 1:
            raise ValueError(f"max_share must be a share above 0 and up to 1, or None, got {max_share}")
        self.sources = ((train, train_split), (test, test_split))
        self.max_images, self.size, self.grid, self.k = max_images, size, grid, k
        self.interval, self.max_share = interval, max_share
        self._sets: list[LabelledImages] = []
        self._crops: list[Tensor] = []  # (n, 3, S, S) uint8, this rank's share of each set
        self._began = self._spent = self._last = 0.0  # seconds

    def before_train(self, runner: Runner) -> None:
        """Reads the images and measures the weights that training starts from."""
        self._began, self._spent = time.perf_counter(), 0.0
        train, test = (read_labelled(source, split=split) for source, split in self.sources)
        test = match_classes(train, test, ("ProbeHook.train", "ProbeHook.test"))
        self._sets = [self._choose(part, name) for part, name in ((train, "train"), (test, "test"))]
        train, test = self._sets
        shared = shared_images(train.paths, test.paths)
        warn_of_shared_images(shared, len(test.paths), ("ProbeHook.train", "ProbeHook.test"))
        self._crops = [self._load(runner, part.paths) for part in self._sets]
        self._measure(runner)

    def after_train_epoch(self, runner: Runner) -> None:
        """Measures, if it is due and within the share of time."""
        spent, elapsed = self._spent + self._last, time.perf_counter() - self._began
        due = self.every_n_epochs(runner, self.interval) and (
            self.max_share is None or spent <= self.max_share * elapsed
        )
        decision = [due or self.is_last_train_epoch(runner)]
        broadcast_object_list(decision)  # clocks of ranks differ
        if decision[0]:
            self._measure(runner)

    def after_run(self, runner: Runner) -> None:
        """Frees the images."""
        self._sets, self._crops = [], []

    def _choose(self, part: LabelledImages, name: str) -> LabelledImages:
        rows = sorted(np.random.default_rng(0).permutation(len(part.paths))[: self.max_images].tolist())
        chosen = part.with_rows(rows)
        if len(rows) < 2:
            raise ValueError(f"ProbeHook.{name} has a single image: give at least 2")
        if not (chosen.targets > 0).any():
            raise ValueError(
                f"ProbeHook.{name}: none of {len(rows)} images shows a class; give other images, or a larger max_images"
            )
        return chosen

    def _load(self, runner: Runner, paths: list[str]) -> Tensor:
        """Decodes this rank's share of images."""
        loader = runner.train_dataloader
        size = self.size or model_of(runner, ViewModel).views.groups[0].patch
        crops = CentreCrops(paths, size, image_decoding(loader.dataset))
        mine = Subset(crops, range(get_rank(), len(paths), get_world_size()))
        batches = DataLoader(
            mine,
            batch_size=BATCH,
            num_workers=loader.num_workers,
            worker_init_fn=answer_to_parent_only,
            generator=torch.Generator(),  # the global one is training's
        )
        return torch.cat([*batches, torch.empty(0, 3, size, size, dtype=torch.uint8)])

    @torch.no_grad()
    def _features(self, runner: Runner, crops: Tensor, count: int) -> Tensor:
        """Returns the features of a set, (N, 1 + cells, C) float32 on the device, on all ranks. Collective."""
        model = model_of(runner, ViewModel)
        parts = []
        with _evaluation(model.backbone):
            for batch in crops.split(BATCH):
                images = model.data_preprocessor({"inputs": batch})["inputs"]
                # `forward` of a compiled backbone would be compiled again for this size
                feats = model.backbone.forward(images.contiguous(memory_format=model.memory_format))
                rows, maps = pool(feats).float()[:, None], last_output(feats)
                has_cells = self.grid and maps.ndim == 4 and min(maps.shape[2:]) >= self.grid
                parts.append(torch.cat([rows, pool_cells(maps, self.grid)], dim=1) if has_cells else rows)
        mine = torch.cat(parts) if parts else None
        shape = [tuple(mine.shape[1:]) if mine is not None else None]
        broadcast_object_list(shape)  # another rank may have no image
        assert shape[0] is not None
        found = torch.zeros(count, *shape[0], device=next(model.backbone.parameters()).device)
        if mine is not None:
            found[get_rank() :: get_world_size()] = mine
        all_reduce(found)
        return found

    def _measure(self, runner: Runner) -> None:
        """Measures and logs. Collective."""
        start = time.perf_counter()
        features = [
            self._features(runner, crops, len(part.paths)) for crops, part in zip(self._crops, self._sets, strict=True)
        ]
        if not all(part.isfinite().all() for part in features):
            runner.logger.warning(f"No probe at iteration {runner.iter}: features are NaN or infinite.")
        elif is_main_process():
            found = self._classify(features)
            self._last = time.perf_counter() - start
            runner.visualizer.add_scalars({f"probe/{name}": value for name, value in found.items()}, step=runner.iter)
            metric = "mAP" if self._sets[0].multi_label else "top-1"
            texts = ", ".join(f"{name.replace('_', ' of ')} {value:.1f}" for name, value in found.items())
            runner.logger.info(f"Probe at iteration {runner.iter}: {metric} {texts} ({self._last:.1f} s)")
        self._spent += time.perf_counter() - start

    def _classify(self, features: list[Tensor]) -> dict[str, float]:
        """Returns the measures in percent."""
        multi_label = self._sets[0].multi_label
        train, test = features
        targets, expected = (torch.from_numpy(part.targets).to(train.device) for part in self._sets)
        found = {}
        for suffix, rows in (("", slice(1)), ("_cells", slice(1, None))):
            first, second = train[:, rows], test[:, rows]
            if not (cells := first.shape[1]):
                continue
            labels = targets.repeat_interleave(cells, dim=0)
            keys, queries = first.flatten(0, 1), second.flatten(0, 1)
            near = knn_scores(keys, labels, queries, k=self.k)
            with torch.enable_grad():
                pair = (keys, labels), (queries, expected.repeat_interleave(cells, dim=0))
                fitted = linear_probe(*pair, multi_label=multi_label, l2_grid=(_L2,)).scores
            scores = dict(knn=near, linear=fitted)
            for name, each in scores.items():
                best = each.unflatten(0, (-1, cells)).amax(1)
                found[name + suffix] = measure_scores(best, expected, multi_label)
        return found


@contextmanager
def _evaluation(network: nn.Module) -> Iterator[None]:
    """Puts a network into evaluation mode for a while."""
    modes = {module: module.training for module in network.modules()}
    network.eval()
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode
