"""Fine-tuning runs as processes: started, kept apart, waited for, stopped."""

import fcntl
import json
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mmengine.config import Config

from sspyr_mm.benchmarks.finetune_worker import METRICS_FILE

_STOPPED = 130
"""Exit status of a worker that has saved because it was told to stop; see :class:`InterruptHook`."""
_PATIENCE = 60.0
"""Seconds a worker has for that."""


def run_config(cfg: Config, num_processes: int) -> dict[str, float]:
    """Trains in processes of their own, unless that was done.

    Args:
        cfg: What :mod:`sspyr_mm.benchmarks.finetune_worker` runs; its work dir is this run's alone.
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
        if not metrics.exists():
            config = folder / "config.py"
            cfg.dump(config)
            command = ["-m", "sspyr_mm.benchmarks.finetune_worker", str(config)]
            if num_processes > 1:
                torchrun = ["torch.distributed.run", "--standalone"]
                command = ["-m", *torchrun, f"--nproc_per_node={num_processes}", *command]
                command += ["--launcher", "pytorch"]
            _train(folder, [sys.executable, *command], lock)
    return json.loads(metrics.read_text())


@contextmanager
def _locked(folder: Path) -> Iterator[int]:
    """Keeps a second run out of a folder; the worker has the lock, too, and keeps it if it is left alone."""
    with open(folder / "lock", "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise ValueError(
                f"Another run is training in {folder}: wait for it, stop it, or give another --work-dir"
            ) from error
        yield file.fileno()


def _train(folder: Path, command: list[str], lock: int) -> None:
    """Runs a worker and removes what only training needed."""
    with open(folder / "log.txt", "a+") as log:
        process = subprocess.Popen(
            command, stdout=log, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, pass_fds=[lock]
        )
        status = _wait(process)
        if status == _STOPPED:
            raise KeyboardInterrupt
        if status:
            log.seek(0)
            end = "".join(log.readlines()[-15:])
            raise ChildProcessError(
                f"Fine-tuning failed with exit status {status}; whole log: {log.name}; its end:\n{end}"
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
