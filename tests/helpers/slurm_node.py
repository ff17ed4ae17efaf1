"""A real Slurm of one node."""

import os
import shutil
import subprocess
import time
from contextlib import ExitStack, contextmanager
from functools import partial

import pytest

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


@contextmanager
def one_node(folder):
    """Starts the daemons and yields a function that runs a command of Slurm; skips the test without Slurm."""
    if not shutil.which("slurmctld") or os.geteuid() != 0:
        pytest.skip("needs Slurm (Debian: slurm-wlm) and root")
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
