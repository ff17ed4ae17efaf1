"""Cores and threads of this process."""

import os


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
