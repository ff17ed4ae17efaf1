"""Slurm arrays of a reproduction: a task per system and seed, each of which repeats ``reproduce`` for its row."""

import os
import shlex
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from sspyr_mm.benchmarks.plan import Plan
from sspyr_mm.benchmarks.reproduce import plan_steps
from sspyr_mm.files import write_text

_CPUS_PER_GPU = 10  # eight workers of a data loader, and two


def write_slurm_array(plan: Plan, path: str | os.PathLike) -> int:
    """Writes a script for ``sbatch``, to be submitted from the present folder; returns its number of tasks.

    A task that is stopped two minutes before the time limit saves a checkpoint and is queued again. Random weights are
    measured by the first task of each seed. Finished rows are left out; ValueError is raised if all are finished.
    """
    tasks = list(_tasks(plan))
    if not tasks:
        raise ValueError("All rows are finished: repeat the command without --slurm to print the table")
    resources = [f"--gres=gpu:{plan.gpus}", f"--cpus-per-task={_CPUS_PER_GPU * plan.gpus}"]
    options = [
        f"--job-name={plan.table.name}",
        f"--array=0-{len(tasks) - 1}",
        "--ntasks=1",
        *(resources if plan.scale == "full" else ["--cpus-per-task=2"]),
        "--signal=B:TERM@120",
        "--open-mode=append",  # a task that is queued again continues its log
        f'--output="{Path(path).resolve().parent}/slurm-%A_%a.log"',
    ]
    shared = ["--scale", plan.scale, "--work-dir", str(plan.work_dir), "--gpus", str(plan.gpus)]
    shared += ["--epochs", str(plan.epochs)] if plan.epochs else []
    shared += ["--num-images", str(plan.num_images)] if plan.scale == "mini" else []
    shared += [part for name, place in plan.data.items() if place for part in (f"--{name.replace('_', '-')}", place)]
    command = [sys.executable, "-m", "sspyr_mm", "reproduce", plan.table.name, *shared]
    lines = [
        "#!/usr/bin/env bash",
        f"# Pre-trains and evaluates table {plan.table.name}, one system and seed per task.",
        "# Options of sbatch on the command line take precedence: sbatch --partition=NAME --time=24:00:00 FILE",
        *(f"#SBATCH {option}" for option in options),
        "set -uo pipefail",
        "rows=(",
        *(f"    {shlex.quote(shlex.join(task))}" for task in tasks),
        ")",
        f"cd {shlex.quote(str(Path.cwd()))} || exit",
        'read -r -a row <<<"${rows[$SLURM_ARRAY_TASK_ID]}"',
        f'{shlex.join(command)} "${{row[@]}}" &',
        "child=$!",
        "trap 'kill -TERM \"$child\"' TERM",
        'wait "$child" # a signal ends the first wait; the second one returns the status of the command',
        'wait "$child"',
        "status=$?",
        "if ((status == 130 || status == 143)); then",
        '    scontrol requeue "$SLURM_JOB_ID"',
        "fi",
        "exit $status",
    ]
    write_text(path, "\n".join(lines) + "\n")
    return len(tasks)


def _tasks(plan: Plan) -> Iterator[list[str]]:
    """Yields the options of each unfinished row."""
    random = [system.slug for system in plan.systems if system.folder is None]
    for seed in plan.seeds:
        for system in plan.trained:
            names = [system.slug, *(random if system is plan.trained[0] else ())]
            if not all(step.is_done for step in plan_steps(replace(plan, methods=tuple(names), seeds=(seed,)))):
                yield ["--methods", *names, "--seeds", str(seed)]
