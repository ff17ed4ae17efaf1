"""All measurements of ``bench``, as one dict and one table."""

import platform
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config

from sspyr_mm.compat import find_distribution
from sspyr_mm.engine.cpu import prepare_config
from sspyr_mm.files import configs_dir
from sspyr_mm.machine import num_cores
from sspyr_mm.models import PyramidAugment
from sspyr_mm.pyramid import PyramidSpec
from sspyr_mm.speed.inputs import PyramidPipeline, collate, find_images, make_images
from sspyr_mm.speed.timing import cpu_ms, wall_ms
from sspyr_mm.speed.training import Setting, measure_training

__all__ = ["describe_machine", "open_setting", "paper_pyramid", "run_bench", "to_table"]

_VERSIONED = (
    *("torch", "torchvision", "mmcv", "mmengine", "mmpretrain", "numpy"),
    *("opencv-python", "opencv-python-headless", "pillow", "litdata", "lightly", "simplejpeg"),
)
_ROWS = {  # key: (description, unit)
    "worker_ms": ("worker: decode, cut regions, pack, per image", "ms"),
    "decode_ms": ("decoding only", "ms"),
    "worker_bytes": ("data from worker to device, per image", "bytes"),
    "augment_ms": ("augmentation, per image", "ms"),
    "images_per_s": ("training from files", "images/s"),
    "step_images_per_s": ("step only, from regions in memory", "images/s"),
    "bound_images_per_s": ("bound: from patches on the device", "images/s"),
    "step_ms": ("step", "ms"),
    "augment_share": ("augmentation", "of the step"),
    "sinkhorn_share": ("codes", "of the step"),
    "optimizer_share": ("optimizer", "of the step"),
    "recompute_ratio": ("step with recompute='scale' / without", "x"),
    "sync_warnings_per_step": ("waits of the host for the GPU", "per step"),
    "peak_memory_gib": ("peak GPU memory of a step", "GiB"),
}


def run_bench(setting: Setting) -> dict[str, Any]:
    """Measures workers, augmentation and training on this machine.

    Workers and augmentation are measured on the views of the paper, training on those of the config.
    """
    spec = paper_pyramid()
    return {
        **measure_workers(spec, setting.paths),
        **measure_augmentation(spec, setting),
        **measure_training(setting),
        "config": Path(setting.cfg.filename).stem,
        "batch_size": setting.batch_size,
        "num_workers": setting.num_workers,
        "num_images": len(setting.paths),
        "num_threads": torch.get_num_threads(),
        **describe_machine(setting.device),
    }


@contextmanager
def open_setting(
    *, config: str | None, images: str | None, batch_size: int | None, num_workers: int | None, quick: bool
) -> Iterator[Setting]:
    """Reads a config and finds or generates images, which exist inside the block; None means the default of ``bench``.

    Raises ValueError if no image can be read or the config is not a pre-training config.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    name = "r50_coco_200e" if device.type == "cuda" else "r18_small_50e"
    cfg = _read_config(Path(config or configs_dir() / f"ssprl/{name}.py"))
    count, rounds, calls = (16, 1, 3) if quick else (160, 4, 5)
    with tempfile.TemporaryDirectory() as made:
        yield Setting(
            cfg,
            device,
            batch_size or cfg.train_dataloader.batch_size,
            max(1, num_cores() - 1) if num_workers is None else num_workers,
            find_images(images, count) if images else make_images(Path(made), count),
            rounds,
            calls,
        )


def _read_config(path: Path) -> Config:
    """Reads a pre-training config, for this machine."""
    cfg = Config.fromfile(path)
    problems = [f"no {n}" for n in ("train_dataloader", "optim_wrapper") if n not in cfg]
    if cfg.get("model", {}).get("type") != "SSPRL":
        problems.append("its model is not SSPRL, which alone is measured")
    if problems:
        raise ValueError(
            f"{path} is not a pre-training config ({', '.join(problems)}); pass one of configs/ssprl, or one that "
            "inherits from it"
        )
    return prepare_config(cfg)


def paper_pyramid() -> PyramidSpec:
    """Returns the paper's pyramid."""
    return PyramidSpec.from_config(Config.fromfile(configs_dir() / "ssprl/r50_coco_200e.py").model.pyramid)


def measure_workers(spec: PyramidSpec, paths: Sequence[str]) -> dict[str, Any]:
    """Measures the CPU time per image in a worker."""
    pipeline = PyramidPipeline(spec)
    ms = cpu_ms({"worker_ms": pipeline, "decode_ms": pipeline.decode}, paths)
    return {**ms, "worker_bytes": sum(regions.nbytes for regions in pipeline(paths[0])["inputs"].values())}


def measure_augmentation(spec: PyramidSpec, setting: Setting) -> dict[str, Any]:
    """Measures the augmentation of eight images together, on the device; on a CPU with one thread."""
    augment = PyramidAugment(spec).to(setting.device)
    paths = setting.paths[:8]
    batch = collate(list(map(PyramidPipeline(spec), paths)))
    ms = wall_ms({"augment": lambda: augment(batch, True)}, rounds=setting.rounds, calls=setting.calls, num_threads=1)
    return {"augment_ms": ms["augment"] / len(paths)}


def describe_machine(device: torch.device) -> dict[str, Any]:
    """Returns the name of the device, and versions of the packages that speed depends on."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or platform.machine()
    versions = dict(filter(None, map(find_distribution, _VERSIONED)))
    return {"device": name, "versions": {"python": platform.python_version(), **versions}}


def to_table(found: Mapping[str, Any]) -> str:
    """Formats the output of :func:`run_bench`, one figure per line."""
    lines = [
        f"{found['device']}, {found['num_threads']} thread(s), {found['num_workers']} worker(s), "
        f"{found['num_images']} images",
        "worker and augmentation: the paper's views; "
        f"training: {found['config']}, {found['batch_size']} images per step",
    ]
    for key, (description, unit) in _ROWS.items():
        if (value := found[key]) is not None:
            lines.append(f"{description:46} {value:12,.{0 if isinstance(value, int) else 3}f} {unit}")
    return "\n".join(lines)
