"""Cores, threads, limits and temporary files of this process, its progress on a terminal, and its end."""

import atexit
import os
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

if sys.platform != "win32":
    import fcntl


_T = TypeVar("_T")


def with_progress(items: Iterable[_T], total: int) -> Iterator[_T]:
    """Yields items; if stderr is a terminal, a progress bar there shows how many of ``total`` are done."""
    if not sys.stderr.isatty():
        return iter(items)
    from mmengine.utils import track_iter_progress  # imports torch, which doctor must not require

    return track_iter_progress((items, total), file=sys.stderr)


@contextmanager
def limited(*, num_bytes: int, seconds: float) -> Iterator[None]:
    """Limits what the block may add to the memory of this process, and its time on the CPU.

    More memory is a MemoryError of Python or a RuntimeError of torch, more time a ValueError. 8 GB, or half of the
    machine's memory, are free in addition. There are limits in the main thread and on Linux only.
    """
    if not sys.platform.startswith("linux") or threading.current_thread() is not threading.main_thread():
        yield
        return
    import resource

    page = resource.getpagesize()
    used = int(Path("/proc/self/statm").read_text().split()[0]) * page
    free = min(8 << 30, os.sysconf("SC_PHYS_PAGES") * page // 2)
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    bounds = [used + num_bytes + free, *(one for one in (soft, hard) if one != resource.RLIM_INFINITY)]

    def stop(number: int, frame: Any) -> None:
        raise ValueError(f"it takes more than {seconds:.0f} s on the CPU")

    before = signal.signal(signal.SIGVTALRM, stop)
    try:
        resource.setrlimit(resource.RLIMIT_AS, (min(bounds), hard))
        signal.setitimer(signal.ITIMER_VIRTUAL, seconds)
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before or signal.SIG_DFL)
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def num_cores() -> int:
    """Returns the number of cores this process may use: fewer than the machine has in a container or a Slurm job."""
    affinity = getattr(os, "sched_getaffinity", None)  # Linux only
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def local_processes() -> int:
    """Returns the number of processes of this run on this machine; 1 without a launcher."""
    from mmengine.dist import get_world_size  # imports torch, which doctor must not require

    names = ["LOCAL_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_SIZE"]
    if get_world_size() > 1:  # a Slurm allocation also sets the variable for a single process
        names.append("SLURM_NTASKS_PER_NODE")
    return next((int(os.environ[name]) for name in names if os.environ.get(name)), 1)


def cores_per_process() -> int:
    """Returns each local process's share of the cores, at least 1."""
    return max(1, num_cores() // local_processes())


def list_devices() -> list[str]:
    """Returns the GPUs of this process, or else the CPU, as torch names them."""
    import torch

    return [f"cuda:{i}" for i in range(torch.cuda.device_count())] or ["cpu"]


def environments(number: int, gpus: int = 1) -> list[dict[str, str]]:
    """Returns variables for each of several commands that run at the same time on this machine.

    Each command has as many of the GPUs as it needs; commands share GPUs if there are too few. With at most one GPU it
    has its share of the cores, unless ``OMP_NUM_THREADS`` is set; with more, torchrun sets the threads. A single
    command needs no variables.

    Args:
        number: Commands at the same time.
        gpus: GPUs per command.
    """
    if number == 1:
        return [{}]
    indices = [device.removeprefix("cuda:") for device in list_devices() if device != "cpu"]
    visible = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
    found = (visible or indices)[: len(indices)]
    shared: dict[str, str] = {}
    if gpus == 1 and not os.environ.get("OMP_NUM_THREADS"):
        shared["OMP_NUM_THREADS"] = str(max(1, num_cores() // number))
    if not found:
        return [shared] * number
    chosen = [[found[(slot * gpus + index) % len(found)] for index in range(gpus)] for slot in range(number)]
    return [{**shared, "CUDA_VISIBLE_DEVICES": ",".join(dict.fromkeys(names))} for names in chosen]


def limit_threads(num_workers: int) -> int:
    """Sets the threads of torch's operators in this process, so that it and its workers do not exceed the cores.

    OpenMP threads that share a core spin while they wait for one another. ``OMP_NUM_THREADS`` takes precedence;
    ``SSPYR_MM_THREADS``, a number or auto, takes precedence over both. A worker runs one thread.

    Returns:
        Number of threads.

    Raises:
        ValueError: If ``SSPYR_MM_THREADS`` is neither auto nor a number > 0.
    """
    import torch

    wanted = os.environ.get("SSPYR_MM_THREADS")
    if not wanted and os.environ.get("OMP_NUM_THREADS"):
        return torch.get_num_threads()  # OpenMP has read its variable
    if wanted in (None, "", "auto"):
        threads = max(1, cores_per_process() - num_workers)
    elif wanted.isdecimal() and int(wanted) > 0:
        threads = int(wanted)
    else:
        raise ValueError(f"SSPYR_MM_THREADS must be auto or a number > 0, got {wanted!r}")
    torch.set_num_threads(threads)
    return threads


def end_with_parent(patience: float = 60.0) -> None:
    """Ends this process when the one that started it has ended, even if that was killed.

    This process receives SIGTERM, which lets training save a checkpoint, and exits ``patience`` seconds later at the
    latest. Without this, the processes of a killed launcher would continue to train next to those of a resumed run.
    """
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(patience)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def use_own_temporary_folder() -> None:
    """Gives this process a temporary folder of its own, and removes those of killed processes of this user.

    Loaders keep sockets in the temporary folder, which they remove at the end, but not if they are killed. Does nothing
    on Windows, and where the path of a socket would be too long.
    """
    base = tempfile.gettempdir()
    if sys.platform == "win32" or _OWN_FOLDER in base or len(base) > _MAX_BASE:
        return
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", os.path.join(base, f"torchinductor_{os.getuid()}"))  # kept
    with suppress(OSError):
        for left in Path(base).glob(f"{_OWN_FOLDER}*"):
            _remove_unless_locked(left)
        own = Path(tempfile.mkdtemp(prefix=_OWN_FOLDER))
        # Held by this process and its workers, in whatever container they are.
        fcntl.flock(os.open(own / _HELD, os.O_CREAT | os.O_RDWR), fcntl.LOCK_EX)
        tempfile.tempdir = str(own)
        atexit.register(_remove_own, own, os.getpid())


_OWN_FOLDER = "sspyr-"
_HELD = "in_use"
_MAX_BASE = 60
"""Longest path of a temporary folder: that of a socket in it has at most 107 bytes."""


def _remove_unless_locked(folder: Path) -> None:
    with suppress(OSError), open(folder / _HELD, "r+") as file:  # of another user, or just being made
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(folder, ignore_errors=True)


def _remove_own(folder: Path, pid: int) -> None:
    if os.getpid() == pid:  # a process forked from this one also calls it, as a loader's worker
        shutil.rmtree(folder, ignore_errors=True)
