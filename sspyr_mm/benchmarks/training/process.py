"""Training runs in their own processes: start, lock, wait, stop."""

import json
import signal
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import torch
from mmengine.config import Config

from sspyr_mm.benchmarks.training.worker import METRICS_FILE
from sspyr_mm.files import FolderInUseError, folder_lock

_STOPPED = 130  # exit status of a worker that saved a checkpoint after an interrupt; see InterruptHook
PATIENCE = 60.0  # seconds a worker has to save that checkpoint


def run_config(cfg: Config, num_processes: int, title: str) -> dict[str, float]:
    """Trains a config in one worker process per device, and returns the metrics after the last epoch.

    Prints ``title`` and the path of the log. Metrics that the work dir already contains are returned at once. Raises
    ValueError if another run is training there, ChildProcessError with the end of the log if training fails,
    KeyboardInterrupt if it was interrupted; the next call resumes it.
    """
    folder = Path(cfg.work_dir)
    metrics = folder / METRICS_FILE
    folder.mkdir(parents=True, exist_ok=True)
    print(f"{title}; log: {folder}/log.txt", file=sys.stderr, flush=True)
    with ExitStack() as stack:
        try:
            lock = stack.enter_context(folder_lock(folder))
        except FolderInUseError as error:
            raise ValueError(
                f"Another run ({error}) is training in {folder}: wait for it, stop it, or give another --work-dir"
            ) from error
        if (known := _read_metrics(metrics)) is None:
            config = folder / "config.py"
            cfg.dump(config)
            command = ["-m", "sspyr_mm.benchmarks.training.worker", str(config), "--exit-on-eof"]
            if num_processes > 1:
                torchrun = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={num_processes}"]
                command = [*torchrun, *command, "--launcher", "pytorch"]
            _train(folder, [sys.executable, *command], lock.fd)
            known = _read_metrics(metrics)
    if known is None:
        raise ChildProcessError(f"Training ended without metrics; its log: {folder}/log.txt")
    return known


def default_processes(batch: int = 32) -> int:
    """Returns the largest number of processes, at most one per GPU, that divides a batch.

    Default: the smallest batch of the classification protocols, which divides the others.
    """
    devices = max(1, torch.cuda.device_count())
    return max(number for number in range(1, devices + 1) if batch % number == 0)


def _read_metrics(path: Path) -> dict[str, float] | None:
    """Returns the metrics of a finished run; None if it has not finished, or the file is damaged."""
    if not path.exists():
        return None
    try:
        found = json.loads(path.read_text())
        if not found or not all(isinstance(value, float) for value in found.values()):
            raise ValueError("it contains no figures")
        return found
    except (ValueError, AttributeError) as error:
        print(f"{path} is damaged ({error}): measured again", file=sys.stderr)
        path.unlink()
        return None


def _train(folder: Path, command: list[str], lock: int) -> None:
    """Runs a worker and removes its checkpoints, gigabytes in a grid of learning rates."""
    path = folder / "log.txt"
    with (
        open(path, "a") as log,
        # The system closes the pipe when this process ends, even if it is killed.
        subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=log, stderr=subprocess.STDOUT, pass_fds=[lock]
        ) as process,
    ):
        status = wait_for(process)
    check_status(status, "Training", path)
    for checkpoint in folder.glob("*.pth"):
        checkpoint.unlink()


def check_status(status: int, what: str, log: Path) -> None:
    """Raises KeyboardInterrupt for a command that was interrupted, ChildProcessError for one that failed."""
    if status in (_STOPPED, -signal.SIGINT, -signal.SIGTERM):
        raise KeyboardInterrupt
    if status:
        try:
            end = "\n".join(log.read_text(errors="replace").splitlines()[-15:])
        except OSError as error:
            end = f"(not readable: {error})"
        raise ChildProcessError(f"{what} failed with exit status {status}; whole log: {log}; its end:\n{end}\n")


def wait_for(process: subprocess.Popen) -> int:
    """Returns the exit status of a process; after an interrupt, it has a minute to save. SIGTERM is passed on."""
    on_term = signal.signal(signal.SIGTERM, lambda number, _: process.send_signal(number))
    try:
        return process.wait()
    except KeyboardInterrupt:  # terminals send it to the worker as well
        try:
            process.wait(PATIENCE)
        except (KeyboardInterrupt, subprocess.TimeoutExpired):
            process.kill()
        raise
    finally:
        signal.signal(signal.SIGTERM, on_term)
