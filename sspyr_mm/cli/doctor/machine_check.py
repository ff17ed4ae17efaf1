"""Checks of processors and memory."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from sspyr_mm import compat
from sspyr_mm.cli.doctor.finding import NOTE, OK, PROBLEM, SETUP, Finding, last_line
from sspyr_mm.machine import num_cores

GIB = 2**30


def check_torch() -> Iterator[Finding]:
    """Imports torch, lists the GPUs that it detects, and reports a GPU that it does not."""
    if not compat.is_importable("torch"):
        return  # reported by check_stack()
    try:
        import torch
    except Exception as error:
        yield Finding("torch import", PROBLEM, f"fails: {last_line(error)}", SETUP)
        return
    driver = _nvidia_driver()
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            gpu = torch.cuda.get_device_properties(index)
            half = "bfloat16" if torch.cuda.is_bf16_supported() else "float16 only"
            found = f"{gpu.name}, {gpu.total_memory / GIB:.0f} GiB, {half}, driver {driver or '?'}"
            yield Finding(f"GPU {index}", OK, f"{found}, CUDA {torch.version.cuda}")
        return
    if driver is None:
        yield Finding("GPU", OK, "none: training runs on the CPU (several processes with gloo)")
        return
    if os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1"):
        remedy = "unset CUDA_VISIBLE_DEVICES to use it"
    elif torch.version.cuda is None:
        remedy = "this torch is built without CUDA: install a build with CUDA"
    else:
        remedy = (
            f"torch is built for CUDA {torch.version.cuda}: update the driver, or install a torch built "
            "for the CUDA version that `nvidia-smi` shows"
        )
    yield Finding("GPU", NOTE, f"driver {driver}, but torch sees no GPU", remedy)


def check_machine() -> Iterator[Finding]:
    """Checks cores, memory, and the shared memory through which data loader workers pass batches."""
    yield Finding("cores", OK, str(num_cores()))
    memory = _memory_limit()
    if memory is not None:
        remedy = (
            "use smaller batches and fewer workers: --cfg-options train_dataloader.batch_size=16 "
            "train_dataloader.num_workers=1"
        )
        yield _enough("memory", f"{memory / GIB:.1f} GiB", memory >= 4 * GIB, remedy)
    if Path("/dev/shm").is_dir():
        free = shutil.disk_usage("/dev/shm").free
        remedy = (
            "workers may die with 'Bus error': docker run --shm-size=8g (or --ipc=host), or "
            "--cfg-options train_dataloader.num_workers=0"
        )
        yield _enough("/dev/shm", f"{free / GIB:.1f} GiB free", free >= GIB / 2, remedy)


def _enough(name: str, found: str, is_enough: bool, remedy: str) -> Finding:
    return Finding(name, OK, found) if is_enough else Finding(name, NOTE, found, remedy)


def _nvidia_driver() -> str | None:
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        result = subprocess.run(command, capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return None
    lines = result.stdout.split()
    return lines[0] if result.returncode == 0 and lines else None


def _memory_limit() -> int | None:
    """Returns the bytes of memory this process may use: the smaller of the machine's and the container's."""
    limits = []
    with contextlib.suppress(AttributeError, OSError, ValueError):
        limits.append(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    for name in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        with contextlib.suppress(OSError, ValueError):  # 'max', or no such file
            limits.append(int(Path(name).read_text()))
    return min(limits, default=None)
