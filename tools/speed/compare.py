"""Compares the speed of pre-training with other implementations: ``python tools/speed/compare.py --out OUT``.

Measures workers and augmentation, also of Pillow for the same views, and training from files, also of SwAV in
mmpretrain and in lightly (if it is installed) and of the views and step of the official code; all train the config's
backbone in its precision and memory format. Compares a loader of files with one of packed shards. Writes
OUT/compare.json.
"""

from __future__ import annotations

import argparse
import importlib.util
import itertools
import tempfile
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from growth import count_pixels
from official_step import OfficialStep, stack_views
from outputs import require_writable
from PIL import Image
from pillow_views import PillowPipeline, pillow_augment
from swav import (
    Method,
    has_lightly,
    lightly_pipeline,
    lightly_swav,
    mmpretrain_pipeline,
    mmpretrain_swav,
    scaled_sides,
    view_pixels,
)
from torch import Tensor
from torch.utils.data import DataLoader

import sspyr_mm.registration  # noqa: F401
from sspyr_mm.cli.arguments import positive_int
from sspyr_mm.datasets import StreamedImages
from sspyr_mm.datasets.streaming.shards import pack
from sspyr_mm.files import write_json
from sspyr_mm.models import PyramidAugment
from sspyr_mm.pyramid import PyramidSpec
from sspyr_mm.speed.bench import describe_machine, open_setting, paper_pyramid
from sspyr_mm.speed.inputs import PyramidPipeline, collate
from sspyr_mm.speed.timing import cpu_ms, wall_ms
from sspyr_mm.speed.training import Setting, make_step

SHARD_BYTES = 4 << 20
"""Small enough for a few images to fill several shards."""


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", required=True, metavar="DIR", type=Path)
    parser.add_argument("--quick", action="store_true", help="measure few images and steps")
    parser.add_argument("--config", help="pre-training config (default: the paper's on a GPU)")
    parser.add_argument("--images", metavar="DIR", help="your images (default: generated images)")
    parser.add_argument("--batch-size", type=positive_int, help="default: the config's")
    parser.add_argument("--num-workers", type=positive_int, help="default: all cores but one")
    args = parser.parse_args()
    require_writable(parser, "--out", args.out / "compare.json")
    return args


def measure_workers(spec: PyramidSpec, paths: Sequence[str]) -> dict[str, Any]:
    """Measures CPU milliseconds per image in a worker; Pillow makes our views, SwAV has eight."""
    pipelines = {"ours": PyramidPipeline(spec), "pillow": PillowPipeline(spec), "mmpretrain": mmpretrain_pipeline()}
    if has_lightly():
        pipelines["lightly"] = lightly_pipeline()
    return {f"{name}_worker_ms": ms for name, ms in cpu_ms(pipelines, paths).items()}


def measure_augmentation(spec: PyramidSpec, setting: Setting, count: int = 2) -> dict[str, Any]:
    """Measures the augmentation of all patches of an image: ours on the device, Pillow's, both with one thread."""
    ours, pillow, pipeline = PyramidAugment(spec).to(setting.device), pillow_augment(), PyramidPipeline(spec)
    paths = setting.paths[:count]
    batch = collate([pipeline(path) for path in paths])
    sides = [g.patch for g in spec.groups for _ in range(g.num_views * g.num_patches)]
    patches = [Image.open(path).convert("RGB").resize((side, side)) for path in paths for side in sides]
    functions = {"ours": lambda: ours(batch, True), "pillow": lambda: [pillow(patch) for patch in patches]}
    ms = wall_ms(functions, rounds=setting.rounds, calls=setting.calls, num_threads=1)
    return {f"{name}_augment_ms": ms[name] / len(paths) for name in ms}


def measure_loaders(spec: PyramidSpec, paths: Sequence[str], *, num_workers: int, rounds: int) -> dict[str, Any]:
    """Measures epochs of a loader that reads images from files and, with litdata, of one that reads packed shards.

    Both read from the page cache if the images fit into it: the disk is not measured. Workers persist between epochs.
    """
    ours = PyramidPipeline(spec)
    options: dict[str, Any] = {"batch_size": None, "num_workers": num_workers}
    options["persistent_workers"] = num_workers > 0
    files = DataLoader(paths, collate_fn=ours, **options)
    functions: dict[str, Callable[[], object]] = {"files": partial(drain, files)}
    counts = {"files": len(paths)}
    with tempfile.TemporaryDirectory() as folder:
        if importlib.util.find_spec("litdata") is not None:
            packed = str(Path(folder, "shards"))
            pack(paths, packed, shard_bytes=SHARD_BYTES)
            stream = StreamedImages(packed, pipeline=ours.transforms.transforms)
            shards, epochs = DataLoader(stream, **options), itertools.count()

            def read_shards() -> int:
                stream.start_epoch(next(epochs), seed=0, batch_size=1, num_workers=num_workers)
                return drain(shards)

            # A worker's share is rounded down.
            functions["shards"], counts["shards"] = read_shards, read_shards()
        ms = wall_ms(functions, rounds=rounds)
    return {f"{name}_images_per_s": 1e3 * counts[name] / ms[name] for name in ms}


def drain(loader: DataLoader) -> int:
    return sum(1 for _ in loader)


def train_official(setting: Setting) -> Method:
    """Builds views and step of the official code, without recomputation and compilation."""
    model = setting.build(recompute=None, compile_backbone=False)
    wrapper = setting.wrap(model, {"type": "SGD", "lr": 0.1})
    take = OfficialStep(model, precision=partial(wrapper.optim_context, model))

    def step(patches: Mapping[str, Tensor]) -> None:
        take({n: x.to(setting.device, non_blocking=True) for n, x in patches.items()})

    return Method(PillowPipeline(setting.spec), partial(stack_views, spec=setting.spec), step)


def train_ours(setting: Setting) -> Method:
    return Method(PyramidPipeline(setting.spec), collate, make_step(setting)[-1])


def list_methods(setting: Setting) -> dict[str, Callable[[Setting], Method]]:
    """Lists the methods that fit a config: the official step has no multi-crops, and the others need a ResNet."""
    methods: dict[str, Callable[[Setting], Method]] = {"ours": train_ours}
    if not any(scale.multi_crop for scale in setting.spec.scales):
        methods["official"] = train_official
    if setting.cfg.model.backbone.type == "ResNet":
        methods["mmpretrain"] = mmpretrain_swav
        if has_lightly():
            methods["lightly"] = lightly_swav
    return methods


def measure_training(setting: Setting) -> dict[str, Any]:
    """Measures images per second from files; None where the GPU has too little memory."""
    found: dict[str, Any] = {}
    for name, make in list_methods(setting).items():
        torch.manual_seed(0)
        try:
            method = make(setting)
            speed = setting.images_per_s(method.pipeline, method.collate, method.step)
        except torch.cuda.OutOfMemoryError:
            speed = None
        found[f"{name}_images_per_s"] = speed
        method = None  # frees its memory before the next one
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
    return found


def main() -> None:
    args = parse_args()
    given = {name: value for name, value in vars(args).items() if name != "out"}
    spec = paper_pyramid()
    with open_setting(**given) as setting:
        workers, rounds = setting.num_workers, setting.rounds
        found = {
            **measure_workers(spec, setting.paths),
            **measure_augmentation(spec, setting),
            **measure_loaders(spec, setting.paths, num_workers=workers, rounds=rounds),
            **measure_training(setting),
            "pixels": count_pixels(setting.spec),
            "swav_pixels": view_pixels(scaled_sides(setting.spec.scales[0].patch)),
            "config": Path(setting.cfg.filename).stem,
            "batch_size": setting.batch_size,
            "num_workers": workers,
            "num_images": len(setting.paths),
            "num_threads": torch.get_num_threads(),
            **describe_machine(setting.device),
        }
    write_json(args.out / "compare.json", found)
    for name, value in found.items():
        print(f"{name}: {value:,.2f}" if isinstance(value, float) else f"{name}: {value}")


if __name__ == "__main__":
    main()
