"""Slurm arrays of a reproduction: their tasks, and a run by a real Slurm of one node."""

import os
import re
import subprocess
from dataclasses import replace

import commands
import pytest
from slurm_node import one_node, wait_until

from sspyr_mm.benchmarks.plan import Plan
from sspyr_mm.benchmarks.results.result import Result, write_result
from sspyr_mm.benchmarks.slurm_array import write_slurm_array
from sspyr_mm.benchmarks.systems import find_table


def write(folder, network, seed):
    about = dict(sha256="0" * 64, identity=f"{network}{seed}")
    result = Result(network, "fcn_voc", "voc07", seed, "mIoU", 50.0, False, about, {}, "d", {})
    write_result(result, folder / f"result-{network}.json")


def test_array_has_a_task_per_unfinished_row(tmp_path):
    masks = tmp_path / "it's"
    masks.mkdir()
    data = {"images": ".", "voc_masks": str(masks)}
    work_dir = tmp_path / "my runs"
    plan = Plan(table=find_table("S-A"), scale="full", seeds=(0, 1), work_dir=work_dir, data=data, gpus=4)
    for seed in (0, 1):
        checkpoint = work_dir / f"full/pretrain/moco-v2-coco/seed{seed}/epoch_200.pth"
        checkpoint.parent.mkdir(parents=True)
        checkpoint.touch()
        write(work_dir / f"full/S-A/moco-v2-coco/seed{seed}", "epoch_200.pth", seed)
    write(work_dir / "full/S-A/moco-v2-coco/seed0", "random", 0)
    script = tmp_path / "table.sbatch"
    assert write_slurm_array(plan, script) == 15
    text = script.read_text()
    for option in ("array=0-14", "gres=gpu:4", "cpus-per-task=40", f'output="{tmp_path}/slurm-%A_%a.log"'):
        assert f"#SBATCH --{option}\n" in text
    # bash passes the options of a row to the command, which `printf` replaces here.
    printing = re.sub(r"(?m)^\S+ -m sspyr_mm (.*) &$", r"printf '%s\\n' \1; exit", text)
    for index, row in ((0, "--methods swav-coco --seeds 0"), (7, "--methods moco-v2-coco random-init --seeds 1")):
        env = {**os.environ, "SLURM_ARRAY_TASK_ID": str(index)}
        done = subprocess.run(["bash", "-c", printing], env=env, capture_output=True, text=True, check=True)
        arguments = done.stdout.splitlines()
        assert arguments[:2] == ["reproduce", "S-A"] and arguments[-len(row.split()) :] == row.split()
        assert arguments[arguments.index("--work-dir") + 1] == str(work_dir)
        assert arguments[arguments.index("--voc-masks") + 1] == str(masks)
    with pytest.raises(ValueError, match="All rows are finished: repeat the command without --slurm"):
        write_slurm_array(replace(plan, methods=("moco-v2-coco",)), script)


@pytest.fixture
def slurm(tmp_path_factory):
    with one_node(tmp_path_factory.mktemp("slurm")) as run:
        yield run


@pytest.mark.slow
def test_slurm_runs_an_array_and_queues_a_stopped_task_again(slurm, tmp_path):
    arguments = ["S-C", "--epochs", 6, "--num-images", 300, "--work-dir", tmp_path, "--seeds", 0]
    arguments += ["--methods", "ss-prl-two-scales", "ss-prl-scale-0-alone"]
    script = tmp_path / "table.sbatch"
    written = commands.run("-m", "sspyr_mm", "reproduce", *arguments, "--slurm", script)
    assert "Submit 2 tasks by `sbatch" in written.stdout
    job = slurm(["sbatch", "--parsable", script]).stdout.strip()
    log = tmp_path / "mini/pretrain/ss-prl-scale-0-alone/seed0/log.txt"
    wait_until(lambda: log.exists() and "Epoch(train)" in log.read_text())
    # As at two minutes before a time limit.
    slurm(["scancel", "--batch", "--signal=TERM", f"{job}_0"])
    wait_until(lambda: "Stopped;" in log.read_text())
    wait_until(lambda: f"{job}_0 PENDING" in slurm(["squeue", "--noheader", "--format=%i %T", "-r"]).stdout)
    slurm(["scontrol", "update", f"JobId={job}_0", "StartTime=now"])  # Slurm waits two minutes
    wait_until(lambda: not slurm(["squeue", "--noheader"]).stdout)
    assert "resumed epoch" in log.read_text().split("Stopped;")[1]
    table = commands.run("-m", "sspyr_mm", "reproduce", *arguments)
    assert "0 of 5 steps left" in table.stdout
