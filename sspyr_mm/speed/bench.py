"""All of it, as one table."""

import platform
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from PIL import Image

from sspyr_mm.compat import find_distribution
from sspyr_mm.files import configs_dir
from sspyr_mm.models import PyramidAugment
from sspyr_mm.pyramid import PyramidSpec
from sspyr_mm.speed.images import find_images, make_images
from sspyr_mm.speed.pipelines import Ours, PlainPhotometric, PlainPipeline
from sspyr_mm.speed.reading import measure_reading
from sspyr_mm.speed.setting import Setting
from sspyr_mm.speed.swav import has_lightly, lightly_pipeline, mmpretrain_pipeline
from sspyr_mm.speed.timing import cpu_ms, one_thread, wall_ms
from sspyr_mm.speed.training import (
    default_workers,
    measure_release,
    measure_swav,
    measure_training,
)

_VERSIONED = (
    *("torch", "torchvision", "mmcv", "mmengine", "mmpretrain", "numpy"),
    *("opencv-python", "opencv-python-headless", "pillow", "litdata", "lightly", "simplejpeg"),
)


@dataclass(frozen=True)
class Size:
    """How long it takes.

    Args:
        images: That workers are timed on.
        rounds: Steps.
        augmented: Images of a batch whose augmentation is timed.
    """

    images: int
    rounds: int
    augmented: int


QUICK, FULL = Size(16, 3, 2), Size(160, 20, 8)


def run_bench(
    *,
    config: str | None = None,
    images: str | None = None,
    batch_size: int | None = None,
    num_workers: int | None = None,
    size: Size = FULL,
) -> dict[str, Any]:
    """Measures workers, augmentation and training on this machine.

    Args:
        config: Pre-training config that is trained; default: the paper's on a GPU, the CPU-size one without.
        images: Whatever ``UnlabelledImages`` reads; default: generated ones.
        batch_size: Images a step; default: the config's.
        num_workers: Of loaders; default: all cores but one.
        size: How long it takes.

    Returns:
        Plain values; workers and augmentation are timed on the paper's views, training on the config's.

    Raises:
        ValueError: If there are no images, or the config is not one of pre-training.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    folder = configs_dir() / "ssprl"
    path = Path(
        config or folder / f"{'r50_coco_200e' if device.type == 'cuda' else 'r18_small_50e'}.py"
    )
    cfg = _read_config(path)
    spec = paper_pyramid()
    with tempfile.TemporaryDirectory() as made:
        paths = find_images(images, size.images) if images else make_images(Path(made), size.images)
        setting = Setting(
            cfg,
            device,
            batch_size or cfg.train_dataloader.batch_size,
            default_workers() if num_workers is None else num_workers,
            paths,
            size.rounds,
        )
        return {
            **measure_workers(spec, paths),
            **measure_augmentation(spec, paths[: size.augmented], device, size.rounds),
            **measure_reading(spec, paths, num_workers=setting.num_workers, rounds=size.rounds),
            **measure_training(setting),
            **measure_release(setting),
            **measure_swav(setting),
            "config": path.stem,
            "batch_size": setting.batch_size,
            "num_workers": setting.num_workers,
            "num_images": len(paths),
            "images": "given" if images else "generated",
            "device": device_name(device),
            "num_threads": torch.get_num_threads(),
            "versions": versions(),
        }


def paper_pyramid() -> PyramidSpec:
    """The views that workers, augmentation and decoding are measured on."""
    config = Config.fromfile(configs_dir() / "ssprl" / "r50_coco_200e.py")
    return PyramidSpec.from_config(config.model.pyramid)


def _read_config(path: Path) -> Config:
    """A pre-training config that updates weights in every step, and states the size of an embedding at the neck."""
    cfg = Config.fromfile(path)
    problems = [f"no {n}" for n in ("train_dataloader", "optim_wrapper") if n not in cfg]
    if cfg.get("model", {}).get("type") != "SSPRL":
        problems.append("its model is not SSPRL")
    if problems:
        raise ValueError(
            f"{path} is no pre-training config ({', '.join(problems)}): give one of configs/ssprl, or one that "
            "inherits from it"
        )
    cfg.optim_wrapper.accumulative_counts = 1
    if "embed_dims" in cfg.model.head:
        cfg.model.neck.setdefault("out_channels", cfg.model.head.embed_dims)
    return cfg


def measure_workers(spec: PyramidSpec, paths: Sequence[str]) -> dict[str, Any]:
    """What an image costs a worker of one core; milliseconds of CPU time, medians."""
    ours = Ours(spec)
    functions: dict[str, Callable[[str], object]] = {
        "decode": ours.decode,
        "ours": ours,
        "plain": PlainPipeline(spec),
        "mmpretrain": mmpretrain_pipeline(),
    }
    if has_lightly():
        functions["lightly"] = lightly_pipeline()
    with one_thread():
        ms = cpu_ms(functions, paths)
    inputs = ours(paths[0])["inputs"]
    return {
        "worker_ms": ms["ours"],
        "worker_ratio_vs_pil": ms["plain"] / ms["ours"],
        "decode_ms": ms["decode"],
        "pil_worker_ms": ms["plain"],
        "mmpretrain_worker_ms": ms["mmpretrain"],
        "lightly_worker_ms": ms.get("lightly"),
        "worker_bytes": sum(x.numel() * x.element_size() for x in inputs.values()),
    }


def measure_augmentation(
    spec: PyramidSpec, paths: Sequence[str], device: torch.device, rounds: int
) -> dict[str, Any]:
    """Photometric part of all patches of some images: ours on the device, Pillow's on one core, in turn.

    Both have one thread of the CPU.
    """
    augment = PyramidAugment(spec).to(device)
    ours = Ours(spec)
    samples = [ours(path)["inputs"] for path in paths]
    batch = {"inputs": {n: torch.stack([s[n] for s in samples]) for n in samples[0]}}
    sides = [g.patch for g in spec.groups for _ in range(g.num_views * g.num_patches)]
    pictures = [Image.open(path).convert("RGB").resize((s, s)) for path in paths for s in sides]
    plain = PlainPhotometric()
    with one_thread():
        ms = wall_ms(
            {
                "ours": lambda: augment(batch, True),
                "plain": lambda: [plain(picture) for picture in pictures],
            },
            rounds=rounds,
            device=device,
        )
    return {
        "augment_ms": ms["ours"] / len(paths),
        "pil_augment_ms": ms["plain"] / len(paths),
        "augment_ratio_vs_pil": ms["plain"] / ms["ours"],
    }


def device_name(device: torch.device) -> str:
    """What it is called."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return platform.processor() or platform.machine()


def versions() -> dict[str, str]:
    """Of what speed depends on."""
    return {"python": platform.python_version()} | dict(
        filter(None, map(find_distribution, _VERSIONED))
    )


_WORKERS = (  # key, what it is, unit
    ("worker_ms", "worker, an image: decode, cut regions, pack", "ms"),
    ("decode_ms", "of this decoding", "ms"),
    ("pil_worker_ms", "plain Pillow pipeline, the same views", "ms"),
    ("worker_ratio_vs_pil", "which is", "x"),
    ("mmpretrain_worker_ms", "mmpretrain's SwAV pipeline, 8 views", "ms"),
    ("lightly_worker_ms", "lightly's SwAV pipeline, 8 views", "ms"),
    ("worker_bytes", "from a worker to the device, an image", "bytes"),
    ("files_images_per_s", "loader, images from files", "images/s"),
    ("shards_images_per_s", "loader, images from packed shards", "images/s"),
    ("augment_ms", "augmentation, an image", "ms"),
    ("pil_augment_ms", "Pillow's on one core, the same patches", "ms"),
    ("augment_ratio_vs_pil", "which is", "x"),
)
_TRAINING = (
    ("images_per_s", "training from files", "images/s"),
    ("step_images_per_s", "a step alone, regions at hand", "images/s"),
    ("bound_images_per_s", "bound: patches on the device already", "images/s"),
    ("release_images_per_s", "plain implementation, the same views", "images/s"),
    ("mmpretrain_images_per_s", "mmpretrain's SwAV, the same backbone, 8 views", "images/s"),
    ("lightly_images_per_s", "lightly's SwAV, the same backbone, 8 views", "images/s"),
    ("pixels", "pixels of an image that the backbone sees", ""),
    ("swav_pixels", "in SwAV", ""),
    ("step_ms", "a step", "ms"),
    ("recompute_ratio", "a step that recomputes, by scale", "x"),
    ("augment_share", "augmentation in a step", "share"),
    ("sinkhorn_share", "codes in it", "share"),
    ("optimizer_share", "optimiser in it", "share"),
    ("host_syncs_per_step", "times the host waits for the device", ""),
    ("sync_warnings_per_step", "the same, by torch's sync debug mode", ""),
    ("peak_memory_gib", "most memory a step takes of the GPU", "GiB"),
    ("collectives_per_step", "collectives, besides gradients", ""),
    ("collective_bytes_per_step", "bytes a process gives to them", "bytes"),
)


def to_table(found: Mapping[str, Any]) -> str:
    """Figures for people.

    Args:
        found: What :func:`run_bench` returned.
    """
    lines = [
        f"{found['device']}, {found['num_threads']} thread(s), {found['num_workers']} worker(s), "
        f"{found['num_images']} {found['images']} images",
        "-- the paper's views",
        *_lines(_WORKERS, found),
        f"-- {found['config']}, {found['batch_size']} images a step",
        *_lines(_TRAINING, found),
    ]
    return "\n".join(lines)


def _lines(rows: Sequence[tuple[str, str, str]], found: Mapping[str, Any]) -> list[str]:
    return [
        f"{what:46} {found[key]:12,.{0 if isinstance(found[key], int) else 3}f} {unit}"
        for key, what, unit in rows
        if found.get(key) is not None
    ]
