"""A training step: how fast, what of it goes where, how it compares with its bound and with other implementations."""

import copy
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from sspyr_mm.engine.cpu import prepare_config
from sspyr_mm.machine import num_cores
from sspyr_mm.speed.counters import OperatorCounter
from sspyr_mm.speed.growth import pixels
from sspyr_mm.speed.pipelines import Ours, PlainPipeline
from sspyr_mm.speed.ranks import count_collectives
from sspyr_mm.speed.release_step import ReleaseStep, stack_views
from sspyr_mm.speed.setting import Setting
from sspyr_mm.speed.swav import (
    Swav,
    has_lightly,
    lightly_swav,
    mmpretrain_swav,
    scaled_sides,
    view_pixels,
)
from sspyr_mm.speed.timing import wall_ms


def _collate(samples: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    names = samples[0]["inputs"]
    return {"inputs": {n: torch.stack([s["inputs"][n] for s in samples]) for n in names}}


def measure_training(setting: Setting) -> dict[str, Any]:
    """Speeds and shares of a step.

    Args:
        setting: What and where.

    Returns:
        ``images_per_s`` from files to updated weights; ``bound_images_per_s`` of the same network on patches that are
        on the device already; ``step_ms``, and ``step_images_per_s``, from regions to updated weights;
        ``recompute_ratio`` of a step on patches that computes a scale's activations again to one that keeps them;
        ``augment_share``, ``sinkhorn_share`` and ``optimizer_share`` of a step; ``host_syncs_per_step``; on a GPU
        ``sync_warnings_per_step`` of torch's sync debug mode and ``peak_memory_gib`` of tensors, None elsewhere;
        ``collectives_per_step`` and ``collective_bytes_per_step`` of codes and queues; ``allocated_mib_per_step``;
        ``operators_per_step``.
    """
    cfg = prepare_config(copy.deepcopy(setting.cfg))
    model = setting.build()
    wrapper = setting.wrap(model, cfg.optim_wrapper.optimizer)
    batch = next(iter(setting.loader(Ours(setting.spec), 1, _collate)))

    def from_regions(given: Mapping[str, Any] = batch) -> None:
        model.train_step(given, wrapper)
        model.head.normalize_()

    from_regions()  # state of the optimiser is there
    on_gpu = _look_at_gpu(from_regions, setting.device)
    patches = model.data_preprocessor(batch, True)["inputs"]

    def on_patches() -> None:
        with wrapper.optim_context(model):
            losses = model.loss(patches)
        wrapper.update_params(model.parse_losses(losses)[0])
        model.head.normalize_()

    def with_recomputing() -> None:
        model.recompute, kept = "scale", model.recompute
        try:
            on_patches()
        finally:
            model.recompute = kept

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
        "images_per_s": setting.images_per_s(Ours(setting.spec), _collate, from_regions),
        "bound_images_per_s": 1e3 * images / ms["bound"],
        "step_images_per_s": 1e3 * images / ms["step"],
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


def measure_release(setting: Setting) -> dict[str, Any]:
    """A step as the authors' released code takes it, from files, in the config's precision and memory format.

    Args:
        setting: What and where.

    Returns:
        ``release_images_per_s``; None where the pyramid has what the plain implementation has not, multi-crops, or the
        GPU has too little memory: nothing is computed again there.
    """
    if any(scale.multi_crop for scale in setting.spec.scales):
        return {"release_images_per_s": None}
    return {"release_images_per_s": _if_it_fits(partial(_release_images_per_s, setting))}


def _release_images_per_s(setting: Setting) -> float:
    model = setting.build(recompute=None, compile_backbone=False)
    wrapper = setting.wrap(model, {"type": "SGD", "lr": 0.1})
    take = ReleaseStep(model, precision=partial(wrapper.optim_context, model))

    def step(patches: Mapping[str, Tensor]) -> None:
        take({n: x.to(setting.device, non_blocking=True) for n, x in patches.items()})

    collate = partial(stack_views, spec=setting.spec)
    return setting.images_per_s(PlainPipeline(setting.spec), collate, step)


def measure_swav(setting: Setting) -> dict[str, Any]:
    """SwAV by mmpretrain and by lightly, from files, around the config's backbone, in its precision and memory format.

    Args:
        setting: What and where.

    Returns:
        ``mmpretrain_images_per_s`` and ``lightly_images_per_s``, None where there is none: lightly is not installed,
        the backbone is no ResNet, for which mmpretrain's neck is made, or the GPU has too little memory. ``pixels``
        that the encoder sees of an image, and ``swav_pixels``: they see fewer.
    """
    makers: dict[str, Callable[[Setting], Swav]] = {"mmpretrain": mmpretrain_swav}
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
        **{
            f"{name}_images_per_s": _if_it_fits(partial(_swav_images_per_s, setting, make))
            for name, make in makers.items()
        },
    }


def _swav_images_per_s(setting: Setting, make: Callable[[Setting], Swav]) -> float:
    torch.manual_seed(0)
    swav = make(setting)
    return setting.images_per_s(swav.pipeline, swav.collate, swav.step)


def _if_it_fits(measure: Callable[[], float]) -> float | None:
    """None where the GPU's memory is too small for it: what was measured before is not lost."""
    try:
        return measure()
    except torch.cuda.OutOfMemoryError:
        return None
    finally:
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def default_workers() -> int:
    """Workers of a loader: a core each, one left for the process that trains."""
    return max(1, num_cores() - 1)
