"""Slurm arrays of a reproduction: their tasks, and a run by a real Slurm of one node."""

import os
import re
import shutil
import subprocess
import time
from contextlib import ExitStack
from dataclasses import replace
from functools import partial

import commands
import pytest

from sspyr_mm.benchmarks.plan import Plan
from sspyr_mm.benchmarks.results.result import Result, write_result
from sspyr_mm.benchmarks.slurm_array import write_slurm_array
from sspyr_mm.benchmarks.systems import find_table

CONFIG = """
ClusterName=one
SlurmctldHost=localhost
SlurmctldPort={port}
SlurmdPort={other_port}
SlurmUser=root
AuthInfo=socket={folder}/munge.socket
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmdSpoolDir={folder}/spool
StateSaveLocation={folder}/state
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
NodeName=localhost CPUs=2 State=UNKNOWN
PartitionName=one Nodes=ALL Default=YES State=UP
"""


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
    """Runs a Slurm of one node; returns a function that runs one of its commands."""
    if not shutil.which("slurmctld") or os.geteuid() != 0:
        pytest.skip("needs Slurm (Debian: slurm-wlm) and root")
    folder = tmp_path_factory.mktemp("slurm")
    for name in ("state", "spool"):
        (folder / name).mkdir()
    with ExitStack() as stack:
        port = 20000 + os.getpid() % 10000
        (folder / "slurm.conf").write_text(CONFIG.format(folder=folder, port=port, other_port=port + 10000))
        (folder / "munge.key").write_bytes(os.urandom(1024))
        (folder / "munge.key").chmod(0o400)
        files = ("socket", "pid-file", "log-file", "seed-file")
        munge = [f"--key-file={folder}/munge.key", *(f"--{name}={folder}/munge.{name}" for name in files)]
        env = {**os.environ, "SLURM_CONF": f"{folder}/slurm.conf"}
        for command in (
            ["munged", "--foreground", "--force", *munge],
            ["slurmctld", "-D"],
            ["slurmd", "-D"],
        ):
            process = stack.enter_context(subprocess.Popen(command, env=env, stderr=subprocess.DEVNULL))
            stack.callback(process.terminate)
            time.sleep(1)
        yield partial(subprocess.run, env=env, check=True, capture_output=True, text=True)


def wait_until(condition):
    for _ in range(3000):
        if condition():
            return
        time.sleep(0.1)
    raise TimeoutError


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
