"""What this machine lends to this process."""

import os


def num_cores() -> int:
    """Cores that this process may run on: fewer than the machine has in a container, or in a job of Slurm."""
    affinity = getattr(os, "sched_getaffinity", None)  # Linux only
    return len(affinity(0)) if affinity else os.cpu_count() or 1
