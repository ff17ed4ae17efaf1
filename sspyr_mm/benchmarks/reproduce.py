"""Pre-trains and evaluates every system of a table of the paper; skips finished steps."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sspyr_mm.benchmarks.plan import IMAGES_OPTION, Plan, check_plan, load_config, num_epochs, write_record
from sspyr_mm.benchmarks.results.paper_table import PaperRow, PaperTable
from sspyr_mm.benchmarks.results.result import Result, find_results
from sspyr_mm.benchmarks.systems import System, training_slug
from sspyr_mm.benchmarks.training.logged_commands import LoggedCommand, run_logged
from sspyr_mm.files import configs_dir
from sspyr_mm.machine import environments

_MOCO_FLOP = 2 * 16.4e9
"""Operations per image and step of MoCo v2 with ResNet-50 at 224 px: two forward passes and one backward pass."""
_GPU_FLOPS = 40e12
"""Operations per second that a GPU is assumed to do in training."""
_NUM_IMAGES = {"coco": 82_783, "imagenet": 1_281_167}
_START = 15.0
"""Seconds that a command takes to start, at mini size a large part of its time."""


@dataclass(frozen=True)
class Step(LoggedCommand):
    """One command of a reproduction."""

    is_done: bool
    hours: float  # estimate
    row: tuple[str, int] | None = None  # system and seed; None: all of them need it


def plan_steps(plan: Plan) -> list[Step]:
    """Lists all commands of a reproduction, in order.

    Raises ValueError for unknown methods, missing data, or a work dir with results of other settings.
    """
    check_plan(plan)
    steps = [_draw_scenes(plan)] if plan.scale == "mini" else []
    for seed in plan.seeds:
        lacks_random = any(s.folder is None for s in plan.systems) and not _random_results(plan, seed)
        for system in plan.trained:
            first = system is plan.trained[0]
            steps.append(_pretraining(plan, system, seed))
            steps.append(_evaluation(plan, system, seed, with_random=first and lacks_random))
    return steps


def run_steps(plan: Plan, steps: Sequence[Step]) -> None:
    """Runs the commands that are not done, several rows at the same time if the plan has several jobs.

    Raises ChildProcessError at the end if a step fails: that ends its row, and the others continue.
    """
    write_record(plan)
    left = [step for step in steps if not step.is_done]
    numbers = iter(range(1, len(left) + 1))

    def announce(step: LoggedCommand) -> None:
        print(f"== {next(numbers)}/{len(left)} {step.what}; log: {step.log}", file=sys.stderr, flush=True)

    rows: dict[Any, list[Step]] = {}
    for step in left:
        rows.setdefault(step.row, []).append(step)
    failures = run_logged([rows.pop(None, [])], [{}], announce)
    if not failures:
        failures = run_logged(list(rows.values()), environments(plan.jobs, plan.gpus), announce)
    if failures:
        raise ChildProcessError("".join(failures) + "Repeat `reproduce` to continue from here.")


def _epochs(plan: Plan, system: System) -> int:
    """Returns the epochs of a pre-training."""
    changed = _options(plan, system).get("train_cfg.max_epochs")
    return changed or load_config(plan.config(system)).train_cfg.max_epochs


def _options(plan: Plan, system: System) -> dict[str, Any]:
    """Returns the changes of a system's config."""
    if plan.scale == "full":
        return {"train_cfg.max_epochs": plan.epochs} if plan.epochs else {}
    return {
        # A scene keeps its hues in all of its views: without strong jitter the network learns the hues.
        "model.data_preprocessor.jitter": (0.6, 0.6, 0.8, 0.5),
        "model.data_preprocessor.jitter_prob": 1.0,
        "model.data_preprocessor.blur_sigma": (0.1, 0.6),
        "train_cfg.max_epochs": plan.mini_epochs,
        "default_hooks.checkpoint.max_keep_ckpts": 1,
        **system.mini_options,
    }


def _checkpoint(plan: Plan, system: System, seed: int) -> Path:
    """Returns the checkpoint after the last epoch."""
    slug = training_slug(system, plan.scale)
    return plan.work_dir / plan.scale / "pretrain" / slug / f"seed{seed}" / f"epoch_{_epochs(plan, system)}.pth"


def _draw_scenes(plan: Plan) -> Step:
    sizes = ["--num-train", str(plan.num_images), "--num-val", str(max(50, plan.num_images // 4)), "--size", "96"]
    command = [sys.executable, "-m", "sspyr_mm", "toy-scenes", str(plan.scenes), *sizes, "--quiet"]
    done = (plan.scenes / "annotations" / "instances_val2017.json").exists()
    hours = _START / 3600 + plan.num_images * 5e-6
    log = plan.scenes.with_name(f"{plan.scenes.name}_log.txt")
    return Step("draw scenes", command, log, done, hours)


def _pretraining(plan: Plan, system: System, seed: int) -> Step:
    options = {**_options(plan, system), "randomness.seed": seed}
    config, epochs = plan.config(system), _epochs(plan, system)
    if plan.scale == "mini":
        images = str(plan.scenes / "train2017")
        hours = (_START + plan.num_images * epochs / system.mini_rate) / 3600
    else:
        images = str(plan.data[IMAGES_OPTION[system.images]])
        base = (load_config(config).get("auto_scale_lr") or {}).get("base_batch_size")  # its learning rate is for
        if base is None or base % plan.gpus:
            raise ValueError(f"{system.name} has {base} images per step, which --gpus {plan.gpus} does not divide")
        options["train_dataloader.batch_size"] = base // plan.gpus
        hours = _NUM_IMAGES[system.images] * epochs * system.cost * _MOCO_FLOP / _GPU_FLOPS / 3600
    tools = configs_dir().parent / "tools"
    program = [sys.executable, str(tools / "train.py"), str(config)]
    if plan.gpus > 1:
        program = [
            "env",
            f"PYTHON={sys.executable}",
            "bash",
            str(tools / "dist_train.sh"),
            str(config),
            str(plan.gpus),
        ]
    checkpoint = _checkpoint(plan, system, seed)
    command = [*program, "--data-root", images, "--work-dir", str(checkpoint.parent), "--resume"]
    command += ["--cfg-options", *(f"{key}={_text(value)}" for key, value in options.items())]
    what = f"pre-train {system.label}, seed {seed}"
    return Step(what, command, checkpoint.parent / "log.txt", checkpoint.exists(), hours, (system.slug, seed))


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
    is_measured = any(result.network != "random" for result in _results(folder))
    hours = plan.table.hours
    if plan.scale == "mini":
        hours = (plan.table.mini_seconds + plan.table.mini_seconds_per_scene * plan.num_images) / 3600
    names = [system.label] * (not is_measured) + ["Random init"] * with_random
    what = f"evaluate {' and '.join(names or [system.label])}, seed {seed}"
    if is_measured and with_random:
        what += f" (network of {system.label})"
    done = is_measured and not with_random
    hours = hours * max(1, len(names)) + _START / 3600
    return Step(what, command, folder / "log.txt", done, hours, (system.slug, seed))


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


def build_table(plan: Plan) -> PaperTable:
    """Returns all rows of the table, with the results of all seeds in the work dir."""
    rows = []
    for system in plan.rows:
        if system.folder:
            found = [r for r in _results(_folder(plan, system)) if r.network != "random"]
        else:
            found = _random_results(plan)
        values = {result.seed: result.value for result in sorted(found, key=lambda result: result.seed)}
        rows.append(PaperRow(system.name, plan.table.published(system), values, system.note))
    table, epochs = plan.table, "the epochs of its config"
    measured = f"{table.measure} on {'generated scenes' if plan.scale == 'mini' else table.data_title}"
    if plan.scale == "mini" or plan.epochs:
        epochs = num_epochs(plan.epochs or plan.mini_epochs)
    budget = epochs + (f" of {plan.num_images} scenes" if plan.scale == "mini" else "")
    title = f"Table {table.name}, {plan.scale} size: {measured}, each row pre-trained for {budget}"
    return PaperTable(title, f"{table.measure} on {table.data_title}", measured, tuple(rows))
