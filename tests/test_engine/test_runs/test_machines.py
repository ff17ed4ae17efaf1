"""Runs over launchers of several machines, and a requeued Slurm job, equal an uninterrupted run of one launcher."""

import os
import socket
import subprocess
import sys

import pytest
import torch
from project import ROOT
from slurm_node import one_node, wait_until

pytestmark = pytest.mark.slow

EPOCHS = 40
OPTIONS = ["--cfg-options", f"train_cfg.max_epochs={EPOCHS}", "default_hooks.checkpoint.max_keep_ckpts=2"]


def launch(config, work, *, ranks, **environment):
    names = {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1", "PYTHON": sys.executable}
    command = ["bash", "tools/dist_train.sh", config, ranks, "--work-dir", work, *OPTIONS]
    log = open(f"{work}.log", "a")  # noqa: SIM115
    return subprocess.Popen(
        list(map(str, command)), cwd=ROOT, env={**os.environ, **names, **environment}, stdout=log, stderr=log
    )


def weights(work):
    return torch.load(work / f"epoch_{EPOCHS}.pth", weights_only=False)["state_dict"]


@pytest.fixture(scope="module")
def expected(config, tmp_path_factory):
    work = tmp_path_factory.mktemp("one") / "work"
    assert launch(config, work, ranks=2).wait(300) == 0
    return weights(work)


def assert_equal(work, expected):
    found = weights(work)
    assert found.keys() == expected.keys() and all(torch.equal(found[name], expected[name]) for name in found)


def test_launchers_of_two_machines_train_one_network(config, tmp_path, expected):
    """Both launchers run on this machine, each with one process, and share the work dir as machines share a disk."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    names = dict(NNODES="2", MASTER_ADDR="127.0.0.1", PORT=port)
    started = [launch(config, tmp_path / "work", ranks=1, NODE_RANK=str(rank), **names) for rank in range(2)]
    assert [process.wait(300) for process in started] == [0, 0], (tmp_path / "work.log").read_text()[-3000:]
    assert_equal(tmp_path / "work", expected)


def test_requeued_slurm_job_continues_from_its_checkpoint(config, tmp_path, expected):
    work, log = tmp_path / "work", tmp_path / "log.txt"
    script = tmp_path / "job.sh"
    script.write_text(f"""#!/bin/bash
#SBATCH --ntasks=2 --cpus-per-task=1 --requeue --open-mode=append --output={log}
export CUDA_VISIBLE_DEVICES= OMP_NUM_THREADS=1 PYTHON={sys.executable}
export GPUS=2 GPUS_PER_NODE=2 CPUS_PER_TASK=1 SRUN_ARGS="--gres=none"
bash tools/slurm_train.sh one ssprl {config} {work} --resume {" ".join(OPTIONS)}
""")
    with one_node(tmp_path) as slurm:
        job = slurm(["sbatch", "--parsable", script], cwd=ROOT).stdout.strip()
        wait_until(lambda: list(work.glob("epoch_*.pth")))
        slurm(["scontrol", "requeue", job])
        wait_until(lambda: f"{job} PENDING" in slurm(["squeue", "--noheader", "--format=%i %T"]).stdout)
        assert not (work / f"epoch_{EPOCHS}.pth").exists()
        slurm(["scontrol", "update", f"JobId={job}", "StartTime=now"])  # Slurm waits two minutes
        wait_until(lambda: not slurm(["squeue", "--noheader"]).stdout)
    assert "resumed epoch" in log.read_text(), log.read_text()[-3000:]
    assert_equal(work, expected)


def test_job_saves_a_checkpoint_before_its_time_limit(config, tmp_path):
    """In a script of sbatch the limit is that of the job: srun's own --signal has no effect."""
    work, script = tmp_path / "work", tmp_path / "job.sh"
    script.write_text(f"""#!/bin/bash
#SBATCH --ntasks=2 --cpus-per-task=1 --time=3 --signal=TERM@60 --output={tmp_path}/log.txt
export CUDA_VISIBLE_DEVICES= OMP_NUM_THREADS=1 PYTHON={sys.executable}
export GPUS=2 GPUS_PER_NODE=2 CPUS_PER_TASK=1 SRUN_ARGS="--gres=none"
bash tools/slurm_train.sh one ssprl {config} {work} --cfg-options train_cfg.max_epochs=100000
""")
    with one_node(tmp_path) as slurm:
        slurm(["sbatch", script], cwd=ROOT)
        wait_until(lambda: not slurm(["squeue", "--noheader"]).stdout)
    assert (work / "interrupted.pth").exists()
