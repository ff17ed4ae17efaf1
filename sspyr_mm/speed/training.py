"""A training step: how fast, what of it goes where, how it compares with its bound and with a plain implementation."""

import copy
import logging
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from mmengine.config import Config
from mmengine.model import BaseModule, revert_sync_batchnorm
from mmengine.optim import build_optim_wrapper
from mmpretrain.registry import MODELS
from torch import Tensor
from torch.utils.data import DataLoader

from sspyr_mm.engine.launch import prepare_config
from sspyr_mm.machine import num_cores
from sspyr_mm.models import SSPRL
from sspyr_mm.pyramid import PyramidSpec
from sspyr_mm.speed.counters import OperatorCounter
from sspyr_mm.speed.growth import pixels
from sspyr_mm.speed.pipelines import Ours, PipelineOutputs, PlainPipeline
from sspyr_mm.speed.ranks import count_collectives
from sspyr_mm.speed.release_step import ReleaseStep, stack_views
from sspyr_mm.speed.swav import (
    Swav,
    has_lightly,
    lightly_swav,
    mmpretrain_swav,
    scaled_sides,
    view_pixels,
)
from sspyr_mm.speed.timing import wait_for, wall_ms

_PREFETCHED = 2
"""Batches a worker makes in advance."""


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

    def build(self) -> SSPRL:
        """The network, in training mode."""
        torch.manual_seed(0)
        logging.disable(logging.INFO)  # a line for each parameter that is initialised
        model = revert_sync_batchnorm(MODELS.build(copy.deepcopy(self.cfg.model)))
        if isinstance(model, BaseModule):
            model.init_weights()
        logging.disable(logging.NOTSET)
        return model.to(self.device).train()

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


def _collate(samples: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    names = samples[0]["inputs"]
    return {"inputs": {n: torch.stack([s["inputs"][n] for s in samples]) for n in names}}


def measure_training(setting: Setting) -> dict[str, Any]:
    """Speeds and shares of a step.

    Args:
        setting: What and where.

    Returns:
        ``images_per_s`` from files to updated weights; ``bound_images_per_s`` of the same network on patches that are
        on the device already; ``release_images_per_s`` of a plain implementation on the same views; ``step_ms``;
        ``recompute_ratio`` of a step on patches that computes a scale's activations again to one that keeps them;
        ``augment_share``, ``sinkhorn_share`` and ``optimizer_share`` of a step; ``host_syncs_per_step``; on a GPU
        ``sync_warnings_per_step`` of torch's sync debug mode and ``peak_memory_gib`` of tensors, None elsewhere;
        ``collectives_per_step`` and ``collective_bytes_per_step`` of codes and queues; ``allocated_mib_per_step``;
        ``operators_per_step``.
    """
    cfg = prepare_config(copy.deepcopy(setting.cfg))
    model = setting.build()
    wrapper = build_optim_wrapper(model, copy.deepcopy(cfg.optim_wrapper))
    batch = next(iter(setting.loader(Ours(setting.spec), 1, _collate)))
    patches = model.data_preprocessor(batch, True)["inputs"]

    def on_patches() -> None:
        with wrapper.optim_context(model):
            losses = model.loss(patches)
        wrapper.update_params(model.parse_losses(losses)[0])
        model.head.normalize_()

    def from_regions(given: Mapping[str, Any] = batch) -> None:
        model.train_step(given, wrapper)
        model.head.normalize_()

    def with_recomputing() -> None:
        model.recompute, kept = "scale", model.recompute
        try:
            on_patches()
        finally:
            model.recompute = kept

    from_regions()  # state of the optimiser is there
    on_gpu = _look_at_gpu(from_regions, setting.device)
    embeddings = {name: z.detach() for name, z in model.embed(patches).items()}
    gradients = [torch.full_like(param, 1e-6) for param in model.parameters()]

    def update() -> None:
        for param, gradient in zip(model.parameters(), gradients, strict=True):
            param.grad = gradient
        wrapper.optimizer.step()
        wrapper.zero_grad()

    parts: dict[str, Callable[[], object]] = {
        "bound": on_patches,
        "step": from_regions,
        "augment": partial(model.data_preprocessor, batch, True),
        "sinkhorn": partial(model.head.assign_codes, embeddings),
        "optimizer": update,
    }
    if model.recompute is None:
        parts["recompute"] = with_recomputing
    ms = wall_ms(parts, rounds=setting.rounds, device=setting.device)
    # Step counts of torch's optimisers lie on the host.
    steps = [state["step"] for state in wrapper.optimizer.state.values() if "step" in state]
    with OperatorCounter(on_host=steps) as counter:
        from_regions()
    counts, collectives = counter.counts, count_collectives(setting.cfg)
    images = setting.batch_size
    return {
        "images_per_s": _images_per_s(setting, Ours(setting.spec), _collate, from_regions),
        "bound_images_per_s": 1e3 * images / ms["bound"],
        "release_images_per_s": _release_images_per_s(setting),
        "step_ms": ms["step"],
        "recompute_ratio": ms["recompute"] / ms["bound"] if "recompute" in ms else None,
        "augment_share": ms["augment"] / ms["step"],
        "sinkhorn_share": ms["sinkhorn"] / ms["step"],
        "optimizer_share": ms["optimizer"] / ms["step"],
        **on_gpu,
        "host_syncs_per_step": counts.host_syncs.total(),
        "collectives_per_step": len(collectives.collectives),
        "collective_bytes_per_step": collectives.bytes_given,
        "allocated_mib_per_step": counts.allocated / 2**20,
        "operators_per_step": counts.operators.total(),
    }


def _look_at_gpu(step: Callable[[], object], device: torch.device) -> dict[str, Any]:
    """What only CUDA knows of a step: how often the host waited for it, and how much memory it took."""
    if device.type != "cuda":
        return {"sync_warnings_per_step": None, "peak_memory_gib": None}
    torch.cuda.reset_peak_memory_stats(device)
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            step()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return {
        "sync_warnings_per_step": sum("synchronizing" in str(w.message) for w in caught),
        "peak_memory_gib": torch.cuda.max_memory_allocated(device) / 2**30,
    }


def _images_per_s(
    setting: Setting, pipeline: Callable[[str], object], collate: Any, step: Callable[[Any], object]
) -> float:
    """From files to updated weights, once workers are at their own pace.

    The first steps do not count: in them workers are started, and then live on what they have made in advance.
    """
    ahead = 2 + _PREFETCHED * setting.num_workers
    timed = max(setting.rounds, setting.num_workers)
    batches: Iterator[Any] = iter(setting.loader(pipeline, ahead + timed, collate))
    for _ in range(ahead):
        step(next(batches))
    wait_for(setting.device)
    start, count = time.perf_counter(), 0
    for batch in batches:
        step(batch)
        count += setting.batch_size
    wait_for(setting.device)
    return count / (time.perf_counter() - start)


def _release_images_per_s(setting: Setting) -> float | None:
    """None where the pyramid has what the plain implementation has not: multi-crops."""
    if any(scale.multi_crop for scale in setting.spec.scales):
        return None
    model = setting.build()
    take = ReleaseStep(model)

    def step(patches: Mapping[str, Tensor]) -> None:
        take({n: x.to(setting.device, non_blocking=True) for n, x in patches.items()})

    collate = partial(stack_views, spec=setting.spec)
    return _images_per_s(setting, PlainPipeline(setting.spec), collate, step)


def measure_swav(setting: Setting) -> dict[str, Any]:
    """SwAV by mmpretrain and by lightly, from files to updated weights, around the config's backbone.

    Args:
        setting: What and where.

    Returns:
        ``mmpretrain_images_per_s`` and ``lightly_images_per_s``, None where there is none: lightly is not installed,
        or the backbone is no ResNet, for which mmpretrain's neck is made. ``pixels`` that the encoder sees of an image,
        and ``swav_pixels``: they see fewer.
    """
    makers: dict[str, Callable[[Config, torch.device], Swav]] = {"mmpretrain": mmpretrain_swav}
    if has_lightly():
        makers["lightly"] = lightly_swav
    if setting.cfg.model.backbone.type != "ResNet":
        makers = {}
    sides = scaled_sides(setting.spec.scales[0].patch)
    return {
        "pixels": pixels(setting.spec),
        "swav_pixels": view_pixels(sides),
        "mmpretrain_images_per_s": None,
        "lightly_images_per_s": None,
        **{f"{name}_images_per_s": _swav_images_per_s(setting, makers[name]) for name in makers},
    }


def _swav_images_per_s(setting: Setting, make: Callable[[Config, torch.device], Swav]) -> float:
    torch.manual_seed(0)
    swav = make(setting.cfg, setting.device)
    return _images_per_s(setting, swav.pipeline, swav.collate, swav.step)


def default_workers() -> int:
    """Workers of a loader: a core each, one left for the process that trains."""
    return max(1, num_cores() - 1)
