"""Temporary files and limits of processes, and progress on a terminal."""

import contextlib
import multiprocessing
import os
import signal
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch

from sspyr_mm import machine


@pytest.fixture
def base(monkeypatch):
    """A temporary folder with a short path, as of a socket."""
    with tempfile.TemporaryDirectory(prefix="t", dir="/tmp") as folder:
        monkeypatch.setattr(tempfile, "tempdir", folder)
        yield Path(folder)


def test_a_forked_process_leaves_the_temporary_folder_of_its_parent(base):
    """Python calls the exit handlers of the parent in a process of multiprocessing."""
    machine.use_own_temporary_folder()
    own = Path(tempfile.gettempdir())
    child = multiprocessing.get_context("fork").Process(target=machine._remove_own, args=(own, os.getpid()))
    child.start()
    child.join()
    assert child.exitcode == 0 and own.parent == base and own.is_dir()
    machine._remove_own(own, os.getpid())
    assert not own.exists()


def test_folders_of_processes_that_have_ended_are_removed(base):
    machine.use_own_temporary_folder()
    own = Path(tempfile.gettempdir())
    left, new = base / "sspyr-left", base / "sspyr-new"
    for folder in (left, new):
        folder.mkdir()
        (folder / "socket").touch()
    (left / "in_use").touch()  # no process holds it
    tempfile.tempdir = str(base)
    machine.use_own_temporary_folder()
    assert not left.exists() and new.exists() and own.exists() and Path(tempfile.gettempdir()) != own


def test_progress_is_shown_on_a_terminal_alone(monkeypatch, capsys):
    assert list(machine.with_progress("ab", 2)) == ["a", "b"] and capsys.readouterr().err == ""
    shown, terminal = os.openpty()
    with open(terminal, "w") as stderr:
        monkeypatch.setattr(sys, "stderr", stderr)
        assert list(machine.with_progress("ab", 2)) == ["a", "b"]
    received = b""
    with contextlib.suppress(OSError):  # after the last byte: the terminal is closed
        while part := os.read(shown, 10_000):  # some of what was written: the kernel hands it over in parts
            received += part
    os.close(shown)
    assert b"2/2" in received


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="there are limits on Linux only")
def test_memory_and_time_of_a_block_are_limited():
    import resource

    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    size = min(8 << 30, total // 2) + (1 << 30)
    before = resource.getrlimit(resource.RLIMIT_AS), signal.getsignal(signal.SIGVTALRM)
    with pytest.raises(ValueError, match="more than 0 s on the CPU"), machine.limited(num_bytes=0, seconds=0.1):
        while True:
            pass
    for reserve, dtype in ((np.empty, np.uint8), (torch.empty, torch.uint8)):  # neither touches the memory
        with pytest.raises((MemoryError, RuntimeError)), machine.limited(num_bytes=0, seconds=60):
            reserve(size, dtype=dtype)
        reserve(size, dtype=dtype)
    assert (resource.getrlimit(resource.RLIMIT_AS), signal.getsignal(signal.SIGVTALRM)) == before
    assert signal.getitimer(signal.ITIMER_VIRTUAL) == (0, 0)


@pytest.mark.parametrize(
    ("visible", "number", "gpus", "expected"),
    [
        (None, 2, 2, ["0,1", "2,3"]),
        ("7,2,5,GPU-1", 2, 2, ["7,2", "5,GPU-1"]),
        (None, 3, 1, ["0", "1", "2"]),
        (None, 6, 1, ["0", "1", "2", "3", "0", "1"]),  # more commands than GPUs
        (None, 1, 1, [None]),
    ],
)
def test_commands_at_the_same_time_have_gpus_of_their_own(visible, number, gpus, expected, monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    shares = machine.environments(number, gpus)
    assert [share.get("CUDA_VISIBLE_DEVICES") for share in shares] == expected


def test_commands_at_the_same_time_share_the_cores(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(machine, "num_cores", lambda: 12)
    assert [share["OMP_NUM_THREADS"] for share in machine.environments(3)] == ["4"] * 3
    assert all("OMP_NUM_THREADS" not in share for share in machine.environments(2, gpus=2))  # torchrun sets it
    assert machine.environments(1) == [{}]
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert all("OMP_NUM_THREADS" not in share for share in machine.environments(2))
