"""Threads of a process and its workers do not exceed the cores."""

import pytest
import torch

from sspyr_mm import machine


@pytest.fixture(autouse=True)
def _threads(monkeypatch):
    for name in ("OMP_NUM_THREADS", "SSPYR_MM_THREADS", "LOCAL_WORLD_SIZE", "SLURM_NTASKS_PER_NODE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(machine, "num_cores", lambda: 8)
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("workers", "processes", "threads"), [(0, 1, 8), (2, 1, 6), (8, 1, 1), (20, 1, 1), (1, 2, 3), (4, 8, 1)]
)
def test_cores_are_shared_with_workers_and_processes(monkeypatch, workers, processes, threads):
    if processes > 1:
        monkeypatch.setenv("LOCAL_WORLD_SIZE", str(processes))
    assert machine.limit_threads(workers) == threads == torch.get_num_threads()


def test_number_from_the_environment_takes_precedence(monkeypatch):
    torch.set_num_threads(2)
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    assert machine.limit_threads(1) == 2 == torch.get_num_threads()
    monkeypatch.setenv("SSPYR_MM_THREADS", "3")
    assert machine.limit_threads(1) == 3 == torch.get_num_threads()
    monkeypatch.setenv("SSPYR_MM_THREADS", "auto")
    assert machine.limit_threads(1) == 7 == torch.get_num_threads()
    monkeypatch.setenv("SSPYR_MM_THREADS", "all")
    with pytest.raises(ValueError, match="must be auto or a number > 0, got 'all'"):
        machine.limit_threads(1)


def test_slurm_allocation_without_a_launcher_is_one_process(monkeypatch):
    monkeypatch.setenv("SLURM_NTASKS_PER_NODE", "8")
    assert machine.limit_threads(2) == 6
