"""What is trained, on what, and how many images a second that makes."""

import copy
import itertools
import logging
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from mmengine.config import Config
from mmengine.model import BaseModule, revert_sync_batchnorm
from mmengine.optim import OptimWrapper, build_optim_wrapper
from mmengine.registry import DefaultScope
from mmpretrain.registry import MODELS
from torch import nn
from torch.utils.data import DataLoader

from sspyr_mm.models import SSPRL
from sspyr_mm.pyramid import PyramidSpec
from sspyr_mm.speed.pipelines import PipelineOutputs
from sspyr_mm.speed.timing import wait_for

_PREFETCHED = 2
"""Batches a worker makes in advance."""
_LEAST_BURSTS = 2
"""Of the batches that workers make at the same time: so many are timed at least."""
_PRECISION = ("type", "dtype", "loss_scale")
"""What of an optimiser's wrapper says in which numbers is computed."""


@dataclass
class Setting:
    """What is trained, on what.

    Args:
        cfg: A pre-training config.
        device: Where.
        batch_size: Images a step.
        num_workers: Of loaders.
        paths: Images.
        rounds: Steps that are timed.
    """

    cfg: Config
    device: torch.device
    batch_size: int
    num_workers: int
    paths: Sequence[str]
    rounds: int

    @property
    def spec(self) -> PyramidSpec:
        """The pyramid."""
        return PyramidSpec.from_config(self.cfg.model.pyramid)

    def build(self, **changes: Any) -> SSPRL:
        """The network, in training mode.

        Args:
            changes: Of the model's config.
        """
        torch.manual_seed(0)
        level = logging.root.manager.disable
        logging.disable(logging.INFO)  # a line for each parameter that is initialised
        try:
            config = {**copy.deepcopy(self.cfg.model), **changes}
            model = revert_sync_batchnorm(MODELS.build(config))
            if isinstance(model, BaseModule):
                model.init_weights()
        finally:
            logging.disable(level)
        return model.to(self.device).train()

    def wrap(self, model: nn.Module, optimizer: dict) -> OptimWrapper:
        """An optimiser in the config's precision.

        Args:
            model: Whose parameters it updates.
            optimizer: Its config.
        """
        precision = {n: v for n, v in self.cfg.optim_wrapper.items() if n in _PRECISION}
        with DefaultScope.overwrite_default_scope("mmpretrain"):
            return build_optim_wrapper(model, {**precision, "optimizer": copy.deepcopy(optimizer)})

    def loader(self, pipeline: Callable[[str], object], steps: int, collate: Any) -> DataLoader:
        """Batches of a pipeline."""
        return DataLoader(
            PipelineOutputs(pipeline, self.paths, steps * self.batch_size),
            self.batch_size,
            num_workers=self.num_workers,
            collate_fn=collate,
            pin_memory=self.device.type == "cuda",
            prefetch_factor=_PREFETCHED if self.num_workers else None,
            drop_last=True,
        )

    def images_per_s(
        self, pipeline: Callable[[str], object], collate: Any, step: Callable[[Any], object]
    ) -> float:
        """From files to updated weights, once workers are at their own pace.

        The first steps do not count: in them workers are started, and then live on what they have made in advance.
        Workers that were started together also end together, so whole rounds of them are timed. More images follow, for
        workers to be busy until the last step that counts; ending them is no part of it.

        Args:
            pipeline: Of a path, in a worker.
            collate: Of a batch's images.
            step: Trains on a batch.
        """
        at_once = max(1, self.num_workers)
        ahead = (1 + _PREFETCHED) * at_once
        timed = max(_LEAST_BURSTS, math.ceil(self.rounds / at_once)) * at_once
        loader = self.loader(pipeline, 2 * ahead + timed, collate)
        batches: Iterator[Any] = iter(loader)
        for batch in itertools.islice(batches, ahead):
            step(batch)
        wait_for(self.device)
        start = time.perf_counter()
        for batch in itertools.islice(batches, timed):
            step(batch)
        wait_for(self.device)
        return timed * self.batch_size / (time.perf_counter() - start)
