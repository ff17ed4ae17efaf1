"""Training runs as processes: started, kept apart, waited for, stopped."""

import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config

from sspyr_mm.benchmarks.training.worker import METRICS_FILE, STARTED_BY

__all__ = ["default_processes", "run_config"]

_STOPPED = 130
"""Exit status of a worker that has saved because it was told to stop; see :class:`InterruptHook`."""
_PATIENCE = 60.0
"""Seconds a worker has for that."""
_ORPHANS = 10.0
"""Seconds within which a worker is gone whose command was killed."""


def run_config(cfg: Config, num_processes: int) -> dict[str, float]:
    """Trains in processes of their own, unless that was done.

    Args:
        cfg: What :mod:`sspyr_mm.benchmarks.training.worker` runs; its work dir is this run's alone.
        num_processes: Devices to train on, a process each.

    Returns:
        Metrics after the last epoch.

    Raises:
        ValueError: If another run is training there.
        ChildProcessError: If training fails; the message shows the end of its log.
        KeyboardInterrupt: If it was told to stop; it goes on when it is run again.
    """
    folder = Path(cfg.work_dir)
    metrics = folder / METRICS_FILE
    folder.mkdir(parents=True, exist_ok=True)
    with _locked(folder) as lock:
        if (known := _read_metrics(metrics)) is None:
            config = folder / "config.py"
            cfg.dump(config)
            command = ["-m", "sspyr_mm.benchmarks.training.worker", str(config)]
            if num_processes > 1:
                torchrun = ["torch.distributed.run", "--standalone"]
                command = ["-m", *torchrun, f"--nproc_per_node={num_processes}", *command]
                command += ["--launcher", "pytorch"]
            _train(folder, [sys.executable, *command], lock)
            known = _read_metrics(metrics)
    if known is None:
        raise ChildProcessError(f"Training ended without metrics; its log: {folder}/log.txt")
    return known


def default_processes(batch: int = 32) -> int:
    """A process per GPU, but only as many as divide the batch, or one.

    Args:
        batch: Images a step; default: the smallest one of the classification protocols, which divides their others.
    """
    devices = max(1, torch.cuda.device_count())
    return max(number for number in range(1, devices + 1) if batch % number == 0)


def _read_metrics(path: Path) -> dict[str, float] | None:
    """Metrics of a run that has ended; None if it has not, or the file is damaged: then it is measured again."""
    if not path.exists():
        return None
    try:
        found = json.loads(path.read_text())
        if not found or not all(isinstance(value, float) for value in found.values()):
            raise ValueError("it holds no figures")
        return found
    except (ValueError, AttributeError) as error:
        print(f"{path} is damaged ({error}): measured again", file=sys.stderr)
        path.unlink()
        return None


@contextmanager
def _locked(folder: Path) -> Iterator[int]:
    """Keeps a second run out of a folder; the worker has the lock, too, and keeps it if it is left alone."""
    with open(folder / "lock", "a+") as file:
        give_up = time.monotonic() + _ORPHANS
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except OSError as error:
                if time.monotonic() > give_up:
                    file.seek(0)
                    raise ValueError(
                        f"Another run (process {file.read() or 'unknown'}) is training in {folder}: wait for it, stop "
                        "it, or give another --work-dir"
                    ) from error
                time.sleep(0.2)
        file.truncate(0)
        file.write(f"{os.getpid()} on {socket.gethostname()}")
        file.flush()
        yield file.fileno()


def _train(folder: Path, command: list[str], lock: int) -> None:
    """Runs a worker and removes what only training needed."""
    with open(folder / "log.txt", "a+") as log:
        process = subprocess.Popen(
            command,
            stdout=log,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            pass_fds=[lock],
            env={**os.environ, STARTED_BY: str(os.getpid())},
        )
        status = _wait(process)
        if status in (_STOPPED, -signal.SIGINT, -signal.SIGTERM):
            raise KeyboardInterrupt
        if status:
            log.seek(0)
            end = "".join(log.readlines()[-15:])
            raise ChildProcessError(
                f"Training failed with exit status {status}; whole log: {log.name}; its end:\n{end}"
            )
    for checkpoint in folder.glob("*.pth"):  # gigabytes in a grid; the figures are what is wanted
        checkpoint.unlink()


def _wait(process: subprocess.Popen) -> int:
    """Exit status of a worker; one that is told to stop has a minute to save."""
    on_term: Any = signal.SIG_DFL
    if threading.current_thread() is threading.main_thread():
        on_term = signal.signal(signal.SIGTERM, lambda number, _: process.send_signal(number))
    try:
        return process.wait()
    except KeyboardInterrupt:  # which terminals send to the worker as well
        try:
            process.wait(_PATIENCE)
        except (KeyboardInterrupt, subprocess.TimeoutExpired):
            process.kill()
        raise
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, on_term)
