"""Speed of training: images per second, the parts of a step, an upper bound; on a GPU also memory and waits."""

import copy
import itertools
import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from mmengine.config import Config
from mmengine.model import revert_sync_batchnorm
from mmengine.optim import OptimWrapper, build_optim_wrapper
from mmengine.registry import DefaultScope
from mmpretrain.registry import MODELS
from torch import nn
from torch.utils.data import DataLoader

from sspyr_mm.models import SSPRL
from sspyr_mm.pyramid import PyramidSpec
from sspyr_mm.speed.inputs import PyramidPipeline, collate
from sspyr_mm.speed.timing import wall_ms

__all__ = ["Setting", "make_step", "measure_training"]

_PREFETCHED = 2  # batches, by each worker: DataLoader's default


@dataclass
class Setting:
    """Config, images and device of the measured training: ``rounds`` measurements of ``calls`` steps."""

    cfg: Config
    device: torch.device
    batch_size: int
    num_workers: int
    paths: Sequence[str]
    rounds: int
    calls: int

    @property
    def spec(self) -> PyramidSpec:
        """Pyramid of the config."""
        return PyramidSpec.from_config(self.cfg.model.pyramid)

    def build(self, **changes: Any) -> SSPRL:
        """Builds the network of the config, with changes, in training mode."""
        torch.manual_seed(0)
        model = MODELS.build({**copy.deepcopy(self.cfg.model), **changes})
        return revert_sync_batchnorm(model).to(self.device).train()

    def wrap(self, model: nn.Module, optimizer: dict) -> OptimWrapper:
        """Builds an optimizer from its config, in the precision of the training config."""
        precision = {n: v for n, v in self.cfg.optim_wrapper.items() if n in ("type", "dtype", "loss_scale")}
        with DefaultScope.overwrite_default_scope("mmpretrain"):
            return build_optim_wrapper(model, {**precision, "optimizer": copy.deepcopy(optimizer)})

    def images_per_s(self, pipeline: Callable[[str], object], collate_fn: Any, step: Callable[[Any], object]) -> float:
        """Measures training from files to updated weights, at the steady pace of the workers.

        A worker runs ``pipeline`` on the path of each image and ``collate_fn`` on the results of a batch; ``step``
        trains on a batch. The first steps, which consume prefetched batches, do not count. More batches follow the last
        timed one, so that the workers stay busy until then.
        """
        workers = max(1, self.num_workers)
        ahead = (1 + _PREFETCHED) * workers
        # Workers that start together also end together: whole rounds of them are timed, at least two.
        timed = max(2, math.ceil(self.rounds * self.calls / workers)) * workers
        # torch's Timer takes two batches before it measures.
        batches = iter(self.loader(pipeline, collate_fn, ahead + 2 + timed + ahead))
        for batch in itertools.islice(batches, ahead):
            step(batch)
        ms = wall_ms({"step": lambda: step(next(batches))}, rounds=1, calls=timed)
        return 1e3 * self.batch_size / ms["step"]

    def loader(self, pipeline: Callable[[str], object], collate_fn: Any, num_batches: int) -> DataLoader:
        """Builds a loader of the outputs of a pipeline."""
        dataset: Any = list(itertools.islice(itertools.cycle(self.paths), num_batches * self.batch_size))
        return DataLoader(
            dataset,
            self.batch_size,
            num_workers=self.num_workers,
            collate_fn=partial(_load, pipeline, collate_fn),
            pin_memory=self.device.type == "cuda",
        )


def _load(pipeline: Callable[[str], object], collate_fn: Any, paths: Sequence[str]) -> Any:
    return collate_fn([pipeline(path) for path in paths])


def make_step(setting: Setting) -> tuple[SSPRL, OptimWrapper, Callable[[Mapping[str, Any]], None]]:
    """Builds network and optimizer of the config, and a function that trains on a batch of regions."""
    model = setting.build()
    wrapper = setting.wrap(model, setting.cfg.optim_wrapper.optimizer)

    def step(regions: Mapping[str, Any]) -> None:
        model.train_step(regions, wrapper)
        model.head.normalize_()

    return model, wrapper, step


def measure_training(setting: Setting) -> dict[str, Any]:
    """Measures training from files, a step from regions in memory, and the parts of the step.

    ``bound_images_per_s`` counts images whose patches are on the device already; ``recompute_ratio`` compares steps
    with ``recompute='scale'`` and without (None if the config recomputes). Figures of the GPU are None without one.
    """
    model, wrapper, step = make_step(setting)
    pipeline = PyramidPipeline(setting.spec)
    batch = next(iter(setting.loader(pipeline, collate, 1)))
    on_regions = partial(step, batch)
    on_regions()  # creates the optimizer's state
    on_gpu = _inspect_gpu(on_regions, setting.device)
    parts: dict[str, Callable[[], object]] = {"step": on_regions, **_parts(model, wrapper, batch)}
    ms = wall_ms(parts, rounds=setting.rounds, calls=setting.calls)
    return {
        "images_per_s": setting.images_per_s(pipeline, collate, step),
        "bound_images_per_s": 1e3 * setting.batch_size / ms["bound"],
        "step_images_per_s": 1e3 * setting.batch_size / ms["step"],
        "step_ms": ms["step"],
        "recompute_ratio": ms["recompute"] / ms["bound"] if "recompute" in ms else None,
        **{f"{part}_share": ms[part] / ms["step"] for part in ("augment", "sinkhorn", "optimizer")},
        **on_gpu,
    }


def _parts(model: SSPRL, wrapper: OptimWrapper, batch: Mapping[str, Any]) -> dict[str, Callable[[], object]]:
    """Returns the parts of a step that can run separately."""
    patches = model.data_preprocessor(batch, True)["inputs"]
    embeddings = {name: z.detach() for name, z in model.embed(patches).items()}
    gradients = [torch.full_like(param, 1e-6) for param in model.parameters()]

    def on_patches(recompute: str | None = model.recompute) -> None:
        model.recompute, kept = recompute, model.recompute
        with wrapper.optim_context(model):
            losses = model.loss(patches)
        wrapper.update_params(model.parse_losses(losses)[0])
        model.recompute = kept
        model.head.normalize_()

    def update() -> None:
        for param, gradient in zip(model.parameters(), gradients, strict=True):
            param.grad = gradient
        wrapper.optimizer.step()
        wrapper.zero_grad()

    return {
        "bound": on_patches,
        "augment": partial(model.data_preprocessor, batch, True),
        "sinkhorn": partial(model.head.assign_codes, embeddings),
        "optimizer": update,
        **({} if model.recompute else {"recompute": partial(on_patches, "scale")}),
    }


def _inspect_gpu(step: Callable[[], object], device: torch.device) -> dict[str, Any]:
    """Counts waits of the host and measures the peak memory of a step."""
    if device.type != "cuda":
        return {"sync_warnings_per_step": None, "peak_memory_gib": None}
    torch.cuda.reset_peak_memory_stats(device)
    torch.cuda.set_sync_debug_mode("warn")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        step()
    torch.cuda.set_sync_debug_mode("default")
    return {
        "sync_warnings_per_step": sum("synchronizing" in str(w.message) for w in caught),
        "peak_memory_gib": torch.cuda.max_memory_allocated(device) / 2**30,
    }
