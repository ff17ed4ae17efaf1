"""All measurements of ``bench``, as one dict and one table."""

import platform
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from PIL import Image

from sspyr_mm.compat import find_distribution
from sspyr_mm.engine.cpu import prepare_config
from sspyr_mm.files import configs_dir
from sspyr_mm.machine import num_cores
from sspyr_mm.models import PyramidAugment
from sspyr_mm.pyramid import PyramidSpec
from sspyr_mm.speed.images import find_images, make_images
from sspyr_mm.speed.pipelines import PillowPipeline, PyramidPipeline, collate, pillow_augment
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
    "pil_worker_ms": ("Pillow pipeline, the same views", "ms"),
    "worker_ratio_vs_pil": ("Pillow / ours", "x"),
    "worker_bytes": ("data from worker to device, per image", "bytes"),
    "augment_ms": ("augmentation, per image", "ms"),
    "pil_augment_ms": ("Pillow on one core, the same patches", "ms"),
    "augment_ratio_vs_pil": ("Pillow / ours", "x"),
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


def run_bench(setting: Setting, *, num_augmented: int = 8) -> dict[str, Any]:
    """Measures workers, augmentation (of ``num_augmented`` images together) and training on this machine.

    Workers and augmentation are measured on the views of the paper, training on those of the config.
    """
    spec = paper_pyramid()
    return {
        **measure_workers(spec, setting.paths),
        **measure_augmentation(spec, setting, num_augmented),
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
    count = 16 if quick else 160
    with tempfile.TemporaryDirectory() as made:
        yield Setting(
            cfg,
            device,
            batch_size or cfg.train_dataloader.batch_size,
            max(1, num_cores() - 1) if num_workers is None else num_workers,
            find_images(images, count) if images else make_images(Path(made), count),
            rounds=1 if quick else 4,
            calls=3 if quick else 5,
        )


def _read_config(path: Path) -> Config:
    """Reads a pre-training config, for this machine."""
    cfg = Config.fromfile(path)
    problems = [f"no {n}" for n in ("train_dataloader", "optim_wrapper") if n not in cfg]
    if cfg.get("model", {}).get("type") != "SSPRL":
        problems.append("its model is not SSPRL")
    if problems:
        raise ValueError(
            f"{path} is not a pre-training config ({', '.join(problems)}); pass one of configs/ssprl, or one that "
            "inherits from it"
        )
    return prepare_config(cfg)


def paper_pyramid() -> PyramidSpec:
    """Returns the paper's pyramid."""
    config = Config.fromfile(configs_dir() / "ssprl" / "r50_coco_200e.py")
    return PyramidSpec.from_config(config.model.pyramid)


def measure_workers(spec: PyramidSpec, paths: Sequence[str]) -> dict[str, Any]:
    """Measures the CPU time per image in a worker, ours and Pillow's."""
    ours = PyramidPipeline(spec)
    ms = cpu_ms({"decode": ours.decode, "ours": ours, "pil": PillowPipeline(spec)}, paths)
    return {
        "worker_ms": ms["ours"],
        "decode_ms": ms["decode"],
        "pil_worker_ms": ms["pil"],
        "worker_ratio_vs_pil": ms["pil"] / ms["ours"],
        "worker_bytes": sum(regions.nbytes for regions in ours(paths[0])["inputs"].values()),
    }


def measure_augmentation(spec: PyramidSpec, setting: Setting, count: int) -> dict[str, Any]:
    """Measures the augmentation of all patches of an image: ours on the device, Pillow's on one core."""
    augment, pillow = PyramidAugment(spec).to(setting.device), pillow_augment()
    paths = setting.paths[:count]
    batch = collate([PyramidPipeline(spec)(path) for path in paths])
    sides = [g.patch for g in spec.groups for _ in range(g.num_views * g.num_patches)]
    patches = [Image.open(path).convert("RGB").resize((s, s)) for path in paths for s in sides]
    functions = {"ours": lambda: augment(batch, True), "pil": lambda: [pillow(p) for p in patches]}
    ms = wall_ms(functions, rounds=setting.rounds, calls=setting.calls, num_threads=1)
    return {
        "augment_ms": ms["ours"] / len(paths),
        "pil_augment_ms": ms["pil"] / len(paths),
        "augment_ratio_vs_pil": ms["pil"] / ms["ours"],
    }


def describe_machine(device: torch.device) -> dict[str, Any]:
    """Returns the name of the device, and versions of the packages that speed depends on."""
    cpu = platform.processor() or platform.machine()
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else cpu
    versions = dict(filter(None, map(find_distribution, _VERSIONED)))
    return {"device": name, "versions": {"python": platform.python_version(), **versions}}


def to_table(found: Mapping[str, Any]) -> str:
    """Formats the output of :func:`run_bench`, one figure per line."""
    head = (
        f"{found['device']}, {found['num_threads']} thread(s), {found['num_workers']} worker(s), "
        f"{found['num_images']} images\nworker and augmentation: the paper's views; "
        f"training: {found['config']}, {found['batch_size']} images per step"
    )
    lines = [head]
    for key, (description, unit) in _ROWS.items():
        if (value := found[key]) is not None:
            lines.append(f"{description:46} {value:12,.{0 if isinstance(value, int) else 3}f} {unit}")
    return "\n".join(lines)
