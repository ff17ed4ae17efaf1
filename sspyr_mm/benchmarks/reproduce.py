"""Pre-trains and evaluates every system of a table of the paper; skips finished steps."""

import json
import shlex
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from mmengine.config import Config

from sspyr_mm.benchmarks.results.paper_table import PaperRow
from sspyr_mm.benchmarks.results.result import Result, find_results
from sspyr_mm.benchmarks.systems import System, Table, training_slug
from sspyr_mm.benchmarks.training.process import wait_for
from sspyr_mm.files import configs_dir, write_json

_MOCO_FLOP = 2 * 16.4e9
"""Operations per image and step of MoCo v2 with ResNet-50 at 224 px: two forward passes and one backward pass."""
_GPU_FLOPS = 40e12
"""Operations per second that a GPU is assumed to do in training."""
_NUM_IMAGES = {"coco": 82_783, "imagenet": 1_281_167}
_IMAGES_OPTION = {"coco": "images", "imagenet": "imagenet"}
"""Option of the folder of each set of training images."""
_MINI_EPOCHS = 10


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Settings of a reproduction."""

    table: Table
    scale: str  # full or mini
    seeds: tuple[int, ...]  # to run
    work_dir: Path
    methods: tuple[str, ...] = ()  # names of systems; empty: all
    data: dict[str, str | None]  # folders by option: images, imagenet, coco, voc, voc_masks
    gpus: int = 1  # processes of a pre-training
    epochs: int | None = None  # of pre-training; None: those of the config
    num_images: int = 4000  # scenes of the mini size

    @property
    def rows(self) -> tuple[System, ...]:
        """Rows of the table; at mini size there is one set of training images."""
        return tuple(s for s in self.table.systems if self.scale == "full" or s.images == "coco")

    @property
    def systems(self) -> tuple[System, ...]:
        """Chosen rows, in the order of the table."""
        names = {name.lower() for name in self.methods}
        return tuple(s for s in self.rows if not names or names & {s.name.lower(), s.slug})

    @property
    def trained(self) -> list[System]:
        """Systems that are pre-trained."""
        return [system for system in self.systems if system.folder]

    @property
    def record(self) -> dict[str, Any]:
        """Settings on which all results in the work dir depend."""
        if self.scale == "mini":
            return {"epochs": self.epochs or _MINI_EPOCHS, "num_images": self.num_images}
        return {"epochs": self.epochs, **{k: v and str(Path(v).resolve()) for k, v in self.data.items()}}

    @property
    def scenes(self) -> Path:
        """Folder of the generated scenes of the mini size."""
        return self.work_dir / f"scenes_{self.num_images}"


@dataclass(frozen=True)
class Step:
    """One command."""

    what: str  # description
    command: list[str]
    is_done: bool
    hours: float  # estimate
    is_shared: bool = False  # whether all systems and seeds need it


def plan_steps(plan: Plan) -> list[Step]:
    """Lists all commands of a reproduction, in order.

    Raises ValueError for unknown methods, missing data, or a work dir with results of other settings.
    """
    _check(plan)
    steps = [_draw_scenes(plan)] if plan.scale == "mini" else []
    for seed in plan.seeds:
        for system in plan.trained:
            steps.append(_pretraining(plan, system, seed))
        lacks_random = any(s.folder is None for s in plan.systems) and not _random_results(plan, seed)
        for system in plan.trained:
            first = system is plan.trained[0]
            steps.append(_evaluation(plan, system, seed, with_random=first and lacks_random))
    return steps


def _check(plan: Plan) -> None:
    known = {name for s in plan.rows for name in (s.name.lower(), s.slug)}
    names = ", ".join(f'"{s.name}"' for s in plan.rows)
    if unknown := [name for name in plan.methods if name.lower() not in known]:
        raise ValueError(
            f"Table {plan.table.name} at {plan.scale} size has no {', '.join(unknown)}: choose from {names}"
        )
    if not plan.trained:
        raise ValueError("No row to pre-train is chosen: Random init is measured next to another row")
    if plan.scale == "full":
        options = sorted({_IMAGES_OPTION[system.images] for system in plan.trained} | {plan.table.needs})
        if missing := [f"--{name.replace('_', '-')} DIR" for name in options if not plan.data.get(name)]:
            raise ValueError(f"Table {plan.table.name} at full size needs {' '.join(missing)}")
        if absent := [folder for name in options if (folder := plan.data[name]) and not Path(folder).is_dir()]:
            raise ValueError(f"{', '.join(absent)} is not a folder: give the folders of the data sets")
    if plan.scale == "mini" and plan.gpus > 1:
        raise ValueError(f"--gpus {plan.gpus} is for --scale full: at mini size it would change the batch size")
    record = plan.record
    earlier = _read_record(plan, default=record)
    # Data of other tables may be added later.
    added = {name for name in plan.data if None in (earlier.get(name), record.get(name))}
    if any(earlier.get(name) != value for name, value in record.items() if name not in added):
        raise ValueError(
            f"{_record_path(plan).parent} holds results of other settings, {earlier}, not {record}: give another "
            "--work-dir"
        )


def _record_path(plan: Plan) -> Path:
    return plan.work_dir / plan.scale / "settings.json"


def _read_record(plan: Plan, *, default: dict[str, Any]) -> dict[str, Any]:
    """Reads the settings of the results in the work dir; raises ValueError if the file does not hold any."""
    path = _record_path(plan)
    try:
        return dict(json.loads(path.read_text())) if path.exists() else default
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"{path} does not hold the settings of the results in its folder ({error}): restore it, or give another "
            "--work-dir"
        ) from error


def run_steps(plan: Plan, steps: Sequence[Step]) -> None:
    """Runs the commands that are not done; raises ChildProcessError if one fails."""
    earlier = _read_record(plan, default={})
    write_json(_record_path(plan), {**earlier, **{k: v for k, v in plan.record.items() if v or k not in earlier}})
    left = [step for step in steps if not step.is_done]
    for number, step in enumerate(left, start=1):
        print(f"== {number}/{len(left)} {step.what}", file=sys.stderr, flush=True)
        with subprocess.Popen(step.command) as process:
            status = wait_for(process)
        if status in (130, -signal.SIGINT, -signal.SIGTERM):
            raise KeyboardInterrupt
        if status:
            raise ChildProcessError(
                f"{step.what} ended with status {status}. Its output is above; repeat the command to continue. It was: "
                f"{shlex.join(step.command)}"
            )


@cache
def _recipe(path: Path) -> tuple[int, int | None]:
    """Returns the epochs of a config, and the images per step that its learning rate is for."""
    cfg = Config.fromfile(path)
    return cfg.train_cfg.max_epochs, (cfg.get("auto_scale_lr") or {}).get("base_batch_size")


def _config(plan: Plan, system: System) -> Path:
    return configs_dir() / str(system.folder) / f"{system.full if plan.scale == 'full' else system.mini}.py"


def _options(plan: Plan, system: System) -> dict[str, Any]:
    """Returns the changes of a system's config."""
    if plan.scale == "full":
        return {"train_cfg.max_epochs": plan.epochs} if plan.epochs else {}
    return {
        # A scene keeps its hues in all of its views: without strong jitter the network learns the hues.
        "model.data_preprocessor.jitter": (0.6, 0.6, 0.8, 0.5),
        "model.data_preprocessor.jitter_prob": 1.0,
        "model.data_preprocessor.blur_sigma": (0.1, 0.6),
        "train_cfg.max_epochs": plan.epochs or _MINI_EPOCHS,
        "default_hooks.checkpoint.max_keep_ckpts": 1,
        **system.mini_options,
    }


def _checkpoint(plan: Plan, system: System, seed: int) -> Path:
    """Returns the checkpoint after the last epoch."""
    epochs = _options(plan, system).get("train_cfg.max_epochs") or _recipe(_config(plan, system))[0]
    slug = training_slug(system, plan.scale)
    return plan.work_dir / plan.scale / "pretrain" / slug / f"seed{seed}" / f"epoch_{epochs}.pth"


def _draw_scenes(plan: Plan) -> Step:
    sizes = ["--num-train", str(plan.num_images), "--num-val", str(max(50, plan.num_images // 4)), "--size", "96"]
    command = [sys.executable, "-m", "sspyr_mm", "toy-scenes", str(plan.scenes), *sizes, "--quiet"]
    done = (plan.scenes / "annotations" / "instances_val2017.json").exists()
    return Step("draw scenes", command, done, plan.num_images * 5e-6, is_shared=True)


def _pretraining(plan: Plan, system: System, seed: int) -> Step:
    options = {**_options(plan, system), "randomness.seed": seed}
    recipe_epochs, base = _recipe(_config(plan, system))
    epochs = options.get("train_cfg.max_epochs") or recipe_epochs
    if plan.scale == "mini":
        images, hours = str(plan.scenes / "train2017"), plan.num_images * epochs / system.mini_rate / 3600
    else:
        images = str(plan.data[_IMAGES_OPTION[system.images]])
        if base is None or base % plan.gpus:
            raise ValueError(f"{system.name} has {base} images per step, which --gpus {plan.gpus} does not divide")
        options["train_dataloader.batch_size"] = base // plan.gpus
        hours = _NUM_IMAGES[system.images] * epochs * system.cost * _MOCO_FLOP / _GPU_FLOPS / 3600
    tools = configs_dir().parent / "tools"
    program = [sys.executable, str(tools / "train.py"), str(_config(plan, system))]
    if plan.gpus > 1:
        program = [
            "env",
            f"PYTHON={sys.executable}",
            "bash",
            str(tools / "dist_train.sh"),
            str(_config(plan, system)),
            str(plan.gpus),
        ]
    checkpoint = _checkpoint(plan, system, seed)
    command = [*program, "--data-root", images, "--work-dir", str(checkpoint.parent), "--resume"]
    command += ["--cfg-options", *(f"{key}={_text(value)}" for key, value in options.items())]
    return Step(f"pre-train {system.name}, seed {seed}", command, checkpoint.exists(), hours)


def _evaluation(plan: Plan, system: System, seed: int, *, with_random: bool) -> Step:
    if plan.scale == "mini":
        flags = [flag.format(data=plan.scenes) for flag in plan.table.mini_flags]
    else:
        flags = [f"--{plan.table.needs.replace('_', '-')}", str(plan.data[plan.table.needs])]
    folder = _folder(plan, system, seed)
    command = [
        sys.executable,
        "-m",
        "sspyr_mm",
        "evaluate",
        str(_checkpoint(plan, system, seed)),
        "--protocol",
        plan.table.protocol,
        *flags,
    ]
    command += ["--seeds", str(seed), "--work-dir", str(folder), *(["--random"] if with_random else [])]
    done = any(result.network != "random" for result in _results(folder)) and not with_random
    hours = plan.table.hours * (1 + with_random) if plan.scale == "full" else 0.1
    return Step(f"evaluate {system.name}, seed {seed}", command, done, hours)


def _folder(plan: Plan, system: System, seed: int | None = None) -> Path:
    """Returns the folder of the results of a system, of one seed or of all."""
    return plan.work_dir / plan.scale / plan.table.name / system.slug / ("" if seed is None else f"seed{seed}")


def _text(value: Any) -> str:
    """Formats a value as ``--cfg-options`` reads it."""
    return f"[{','.join(map(str, value))}]" if isinstance(value, tuple) else str(value)


def _results(folder: Path) -> list[Result]:
    return list(find_results([str(folder)])) if any(folder.glob("**/result-*.json")) else []


def _random_results(plan: Plan, seed: int | None = None) -> list[Result]:
    """Returns results of random weights, each measured next to a system."""
    trained = [system for system in plan.rows if system.folder]
    found = [result for s in trained for result in _results(_folder(plan, s, seed))]
    return [result for result in found if result.network == "random"]


def build_rows(plan: Plan) -> list[PaperRow]:
    """Returns all rows of the table, with the results of all seeds in the work dir."""
    rows = []
    for system in plan.rows:
        if system.folder:
            found = [r for r in _results(_folder(plan, system)) if r.network != "random"]
        else:
            found = _random_results(plan)
        values = {result.seed: result.value for result in sorted(found, key=lambda result: result.seed)}
        rows.append(PaperRow(system.name, plan.table.published(system), values))
    return rows


def title(plan: Plan) -> str:
    """Returns a title for the table, with the budget of each pre-training."""
    epochs = sorted({str(_options(plan, s).get("train_cfg.max_epochs", "the config's")) for s in plan.trained})
    images = f" of {plan.num_images} scenes" if plan.scale == "mini" else ""
    return (
        f"Table {plan.table.name}, {plan.scale} size: each system is pre-trained for {', '.join(epochs)} epochs{images}"
    )
