"""Signals, and the checkpoints that are saved after them."""

import os
import re
import signal
import subprocess
import sys

import pytest
import torch
from commands import run
from project import ROOT
from small_runs import ITERS, NUM_IMAGES, assert_equal, make_runner, train

from sspyr_mm.engine.saving import InterruptHook


@pytest.mark.usefixtures("listens_to_ctrl_c")
@pytest.mark.parametrize("after_a_failed_run", [False, True])
def test_second_signal_ends_the_program_at_once(config, tmp_path, after_a_failed_run):
    if after_a_failed_run:
        for _ in range(2):
            with pytest.raises(ZeroDivisionError, match="division by zero"):
                train(config, tmp_path, before_train_iter=lambda _: 1 / 0)

    def stop(runner):
        if runner.iter == 1:
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)
            pytest.fail("is not reached")

    with pytest.raises(KeyboardInterrupt, match=r"^$"):
        train(config, tmp_path, before_train_iter=stop)
    assert not (tmp_path / "interrupted.pth").exists()


@pytest.mark.usefixtures("listens_to_ctrl_c")
def test_handlers_are_restored_when_a_run_fails(config, tmp_path):
    def fail(runner):
        assert all(signal.getsignal(number) != handler for number, handler in before.items())
        raise ZeroDivisionError

    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    runner = make_runner(config, tmp_path, before_train_iter=fail)
    for _ in range(2):  # also where the same runner trains again
        with pytest.raises(ZeroDivisionError):
            runner.train()
        assert {number: signal.getsignal(number) for number in before} == before


def test_interrupted_checkpoint_is_removed_after_a_later_one(config, tmp_path, log):
    def stop(runner):
        if runner.iter == ITERS + 1:
            signal.raise_signal(signal.SIGINT)

    stale, pointer = tmp_path / "interrupted.pth", tmp_path / "last_checkpoint"
    with pytest.raises(SystemExit, match=r"^130$"):
        train(config, tmp_path, before_train_iter=stop)
    assert stale.is_file() and pointer.read_text() == str(stale)
    there = []
    options = {"resume": True, "default_hooks.checkpoint.interval": 3, "train_cfg.max_epochs": 3}
    train(config, tmp_path, options, before_train_epoch=lambda _: there.append(stale.is_file()))
    assert there == [True, True]  # epoch 2 saves no checkpoint
    assert not stale.exists()
    assert pointer.read_text() == str(tmp_path / "epoch_3.pth")


def test_a_stop_on_a_full_disk_names_the_checkpoint_that_stands(config, tmp_path, log, file_size_limit):
    def stop(runner):
        if runner.iter == ITERS + 1:
            file_size_limit(500_000)
            signal.raise_signal(signal.SIGTERM)

    with pytest.raises(SystemExit, match=r"^130$"):
        train(config, tmp_path, before_train_iter=stop)
    file_size_limit(None)
    (said,) = [m for _, m in log if "could not be written" in m]
    assert said.startswith(f"Stopped; {tmp_path}/interrupted.pth could not be written ([Errno 27] File too large")
    assert said.endswith(f"--resume continues from {tmp_path}/epoch_1.pth.")
    assert sorted(path.name for path in tmp_path.glob("*.pth*")) == ["epoch_1.pth"]
    assert (tmp_path / "last_checkpoint").read_text() == str(tmp_path / "epoch_1.pth")


def test_interval_of_zero_seconds_is_rejected():
    with pytest.raises(ValueError, match=r"seconds must be > 0, got 0; the default is 2"):
        InterruptHook(seconds=0)


def start(config, work_dir, *options):
    command = [sys.executable, "tools/train.py", config, "--work-dir", work_dir, *options]
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [str(part) for part in command],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,  # Ctrl-C reaches the whole group, also the workers
    )


def test_too_few_images_are_reported_before_the_schedule_is_built(config, tmp_path):
    too_large = f"train_dataloader.batch_size={NUM_IMAGES + 1}"
    done = run("tools/train.py", config, "--work-dir", tmp_path, "--cfg-options", too_large, check=False)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert done.stderr.splitlines()[-1].startswith(
        f"train: {NUM_IMAGES} images do not fill one batch of {NUM_IMAGES + 1} on each of 1 process(es): set "
    )


@pytest.mark.parametrize(
    ("number", "num_workers"),
    [*(pytest.param(signal.SIGINT, n, marks=pytest.mark.slow) for n in (0, 2)), (signal.SIGTERM, 2)],
)
def test_signal_to_all_processes_and_resume_from_the_command_line(config, tmp_path, uninterrupted, number, num_workers):
    options = ["--cfg-options", f"train_dataloader.num_workers={num_workers}"]
    process = start(config, tmp_path, *options)
    output = []
    for line in process.stdout:
        output.append(line)
        if re.search(rf"Epoch\(train\) +\[2\]\[1/{ITERS}\]", line):
            os.killpg(process.pid, number)
    assert process.wait(timeout=300) == 130, "".join(output[-40:])
    assert (tmp_path / "interrupted.pth").is_file(), "".join(output[-40:])
    said = "".join(output)
    assert "Saving a checkpoint after this iteration" in said
    assert "Traceback" not in said

    resumed = run("tools/train.py", config, "--work-dir", tmp_path, "--resume", *options)
    assert re.search(r"Epoch 2 continues after iteration \d of", resumed.stdout)
    weights = torch.load(tmp_path / "epoch_3.pth", map_location="cpu", weights_only=False)
    assert_equal(weights["state_dict"], uninterrupted.state)
