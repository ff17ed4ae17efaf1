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
