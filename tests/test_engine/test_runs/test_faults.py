"""Faults of whole processes during training: killed, stopped, started twice. Real processes throughout."""

import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
import torch
from project import ROOT

pytestmark = pytest.mark.slow

ENDLESS = "train_cfg.max_epochs=100000"
PATIENCE = 300.0
"""Seconds after which a test fails that waits for a process, on a busy machine."""


def start(config, work, *options, ranks=1, **environment):
    program = (
        ["bash", "tools/dist_train.sh", config, str(ranks)] if ranks > 1 else [sys.executable, "tools/train.py", config]
    )
    log = open(work.parent / f"{work.name}.log", "a+")  # noqa: SIM115
    process = subprocess.Popen(
        [*map(str, program), "--work-dir", str(work), *options],
        cwd=ROOT,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1", "PYTHON": sys.executable, **environment},
        stdout=log,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    process.log = Path(log.name)
    return process


def wait_until(condition, what):
    give_up = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < give_up, what
        time.sleep(0.1)


def wait_for_epoch(process, number):
    def reached():
        assert process.poll() is None, process.log.read_text()[-3000:]
        return f"Epoch(train) [{number}]" in re.sub(r" +", " ", process.log.read_text())

    wait_until(reached, f"epoch {number} is not reached")


def parent_of(pid):
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return None


def is_there(pid):
    """Whether a process exists that is not a zombie whose parent has yet to read its status."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def children(pid):
    found = [int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit()]
    return sorted(child for child in found if parent_of(child) == pid and is_there(child))


def cmdline(pid):
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:  # it has ended
        return b""


@pytest.fixture
def work(tmp_path):
    yield tmp_path / "work"
    for path in Path("/proc").iterdir():  # processes of a failed test
        if path.name.isdigit() and str(tmp_path).encode() in cmdline(path.name):
            os.kill(int(path.name), signal.SIGKILL)


def tensors(path):
    return torch.load(path, weights_only=False)["state_dict"]


def test_ranks_end_with_their_killed_launcher(config, work):
    """They save first; the resumed run ends with the weights of an uninterrupted one."""
    options = ["--cfg-options", "train_cfg.max_epochs=40", "default_hooks.checkpoint.interval=20"]
    process = start(config, work, *options, ranks=2)
    wait_for_epoch(process, 2)
    ranks = children(process.pid)
    assert len(ranks) == 2
    process.kill()
    process.wait()
    wait_until(lambda: not any(map(is_there, ranks)), "ranks outlive their launcher")
    assert (work / "interrupted.pth").is_file()
    assert start(config, work, "--resume", *options, ranks=2).wait(PATIENCE) == 0
    whole = work.with_name("whole")
    assert start(config, whole, *options, ranks=2).wait(PATIENCE) == 0
    one, two = tensors(work / "epoch_40.pth"), tensors(whole / "epoch_40.pth")
    assert not [name for name in one if not torch.equal(one[name], two[name])]


def test_a_killed_rank_is_restarted_and_equals_an_uninterrupted_run(config, work):
    options = ["--cfg-options", "train_cfg.max_epochs=40"]
    process = start(config, work, "--resume", *options, ranks=2, MAX_RESTARTS="1")
    wait_for_epoch(process, 3)
    os.kill(children(process.pid)[1], signal.SIGKILL)
    assert process.wait(PATIENCE) == 0, process.log.read_text()[-3000:]
    assert "resumed epoch: " in process.log.read_text()
    whole = work.with_name("whole")
    assert start(config, whole, *options, ranks=2).wait(PATIENCE) == 0
    one, two = tensors(work / "epoch_40.pth"), tensors(whole / "epoch_40.pth")
    assert not [name for name in one if not torch.equal(one[name], two[name])]


def test_temporary_files_of_a_killed_run_are_removed_by_the_next(config, work):
    temporary = Path(tempfile.mkdtemp(prefix="t"))  # short: sockets in it have a path of at most 107 bytes
    options = ["--cfg-options", "train_dataloader.num_workers=2", "train_dataloader.persistent_workers=True"]
    first = start(config, work, *options, ENDLESS, TMPDIR=str(temporary))
    wait_for_epoch(first, 2)
    workers = children(first.pid)
    first.kill()
    first.wait()
    assert list(temporary.iterdir())
    wait_until(lambda: not any(map(is_there, workers)), "workers outlive their process")
    first.log.unlink()
    second = start(config, work, "--resume", *options, ENDLESS, TMPDIR=str(temporary))
    wait_until(lambda: "Epoch(train)" in second.log.read_text(), "no iteration")
    second.send_signal(signal.SIGTERM)
    assert second.wait(PATIENCE) == 130
    assert not list(temporary.iterdir())
    temporary.rmdir()


def test_a_stopped_rank_is_named_and_ends_the_run(config, work):
    process = start(config, work, "--cfg-options", ENDLESS, "default_hooks.stall.seconds=15", ranks=2)
    wait_for_epoch(process, 2)
    ranks = children(process.pid)
    os.kill(ranks[1], signal.SIGSTOP)
    assert process.wait(PATIENCE) == 1
    said = process.log.read_text()
    line = r"train: No iteration has finished for 15 s: rank \d \(process (\d+) on .*\) has not answered for \d+ s in "
    assert [int(pid) for pid in re.findall(line + r"iteration \d+", said)] == [ranks[1]]
    wait_until(lambda: not any(map(is_there, ranks)), "a rank remains")


def test_a_stopped_data_worker_is_named_and_ends_the_run(config, work):
    options = ["train_dataloader.num_workers=2", "train_dataloader.persistent_workers=True", ENDLESS]
    process = start(config, work, "--cfg-options", *options, "default_hooks.stall.seconds=10")
    wait_for_epoch(process, 2)
    workers = [child for child in children(process.pid) if b"resource_tracker" not in cmdline(child)]
    os.kill(workers[0], signal.SIGSTOP)
    assert process.wait(PATIENCE) == 1
    said = process.log.read_text()
    assert re.search(rf"waits for its data in iteration \d+; data workers of .*: .*{workers[0]} \(stopped\)", said), (
        said[-2000:]
    )
    wait_until(lambda: not any(map(is_there, workers)), "a worker remains")


def test_a_killed_data_worker_ends_the_run_with_a_message(config, work):
    options = ["train_dataloader.num_workers=2", "train_dataloader.persistent_workers=True", ENDLESS]
    process = start(config, work, "--cfg-options", *options)
    wait_for_epoch(process, 2)
    workers = [child for child in children(process.pid) if b"resource_tracker" not in cmdline(child)]
    os.kill(workers[0], signal.SIGKILL)
    assert process.wait(PATIENCE) == 1
    # Without its number, if the loss of a tensor shows it first.
    assert re.search(rf"\ntrain: a data worker( \(process {workers[0]}\))? was killed", process.log.read_text())
    wait_until(lambda: not any(map(is_there, workers)), "a worker remains")


def test_a_second_run_is_refused_and_the_first_goes_on(config, work):
    first = start(config, work, "--cfg-options", ENDLESS)
    wait_for_epoch(first, 1)
    second = start(config, work)
    assert second.wait(PATIENCE) == 2
    message = rf"train: Another run \(process {first.pid} on .*, for \d+ min\) trains in {work}: wait for it"
    assert re.search(message, second.log.read_text())
    assert first.poll() is None
    first.kill()
    first.wait()
    first.log.unlink()
    resumed = start(config, work, "--resume", "--cfg-options", ENDLESS)
    wait_until(lambda: "Epoch(train)" in resumed.log.read_text(), "no iteration")
    resumed.send_signal(signal.SIGTERM)
    assert resumed.wait(PATIENCE) == 130
    assert f"The last run in {work} (process {first.pid} on " in resumed.log.read_text()
