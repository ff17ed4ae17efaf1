"""Checkpoints on disks that are full or cannot be written."""

import os
import platform
import re
import shutil
import signal
import subprocess
import sys

import pytest
from small_runs import ITERS, assert_equal, state, train

from sspyr_mm.engine.saving import KeepingCheckpointHook, UnwritableError, newest_whole

KEEP_ONE = {"default_hooks.checkpoint.max_keep_ckpts": 1}


def names(work):
    return sorted(path.name for path in work.glob("*.pth*"))


def test_the_last_checkpoint_is_kept_until_the_next_is_whole(config, tmp_path, log, file_size_limit, uninterrupted):
    """The disk is full while epoch 2 ends; the run continues, and epoch 3 is saved."""
    seen = []

    def look(runner):
        seen.append(names(tmp_path))
        file_size_limit(500_000 if runner.epoch == 1 else None)

    runner = train(config, tmp_path, KEEP_ONE, before_train_epoch=look)
    assert seen == [[], ["epoch_1.pth"], ["epoch_1.pth"]]
    assert names(tmp_path) == ["epoch_3.pth"]
    assert newest_whole([tmp_path]) == (f"{tmp_path}/epoch_3.pth", [])
    assert_equal(state(runner), uninterrupted.state)
    (said,) = [m for _, m in log if "could not be written" in m]
    assert f"The last one is {tmp_path}/epoch_1.pth. Training continues" in said


def test_the_best_checkpoint_is_kept_until_the_next_is_whole(config, tmp_path, log, file_size_limit):
    seen = []

    def validate(runner):
        """Reports a metric that rises after each epoch; the disk is full after the second."""
        (hook,) = (hook for hook in runner.hooks if isinstance(hook, KeepingCheckpointHook))
        if runner.epoch:
            file_size_limit(500_000 if runner.epoch == 2 else None)
            hook.after_val_epoch(runner, metrics={"mAP": float(runner.epoch)})
            file_size_limit(None)
            seen.append((names(tmp_path), runner.message_hub.get_info("best_score")))

    best = {f"default_hooks.checkpoint.{key}": value for key, value in dict(save_best="mAP", rule="greater").items()}
    train(config, tmp_path, {**KEEP_ONE, **best}, before_train_epoch=validate)
    assert seen == [
        (["best_mAP_epoch_1.pth", "epoch_1.pth"], 1.0),
        (["best_mAP_epoch_1.pth", "epoch_2.pth"], 1.0),
    ]


def test_training_stops_on_a_full_disk_if_asked_to(config, tmp_path, log, file_size_limit):
    options = {"default_hooks.checkpoint.stop_on_error": True, "default_hooks.checkpoint.type": "KeepingCheckpointHook"}

    def fill(runner):
        if runner.epoch == 1:
            file_size_limit(500_000)

    with pytest.raises(UnwritableError, match=rf"File too large.*The last one is {tmp_path}/epoch_1.pth"):
        train(config, tmp_path, options, before_train_epoch=fill)
    assert names(tmp_path) == ["epoch_1.pth"]


def test_a_full_disk_is_found_before_the_first_step(config, tmp_path, file_size_limit):
    steps = []
    file_size_limit(500_000)
    message = rf"No checkpoint of \d MB can be written to {tmp_path} \(File too large\): free space, or give another"
    with pytest.raises(UnwritableError, match=message):
        train(config, tmp_path, before_train_iter=steps.append)
    assert not steps and not names(tmp_path)


def test_a_work_dir_that_cannot_be_made_is_reported(config, tmp_path):
    (tmp_path / "file").write_text("")
    message = f"{tmp_path}/file/work cannot be written (Not a directory): give another --work-dir"
    with pytest.raises(UnwritableError, match=re.escape(message)):
        train(config, tmp_path / "file/work")


def test_partial_files_of_a_killed_run_are_removed(config, tmp_path):
    """The partial file of another process that writes into the folder is kept."""
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    (tmp_path / "epoch_1.pth.host.123.0123abcd.partial").write_bytes(b"half")
    (tmp_path / f"epoch_1.pth.{platform.node()}.{ended.pid}.0123abcd.partial").write_bytes(b"half")
    living = tmp_path / f"backbone.pth.{platform.node()}.{os.getppid()}.0123abcd.partial"
    living.write_bytes(b"half")
    train(config, tmp_path, {"train_cfg.max_epochs": 1})
    assert names(tmp_path) == [living.name, "epoch_1.pth"]


def test_a_second_checkpoint_hook_keeps_its_last_checkpoint_too(config, tmp_path, log, file_size_limit):
    """The disk is full while the second checkpoint of a custom hook is written."""
    custom = dict(type="CheckpointHook", interval=ITERS, by_epoch=False, max_keep_ckpts=1, filename_tmpl="at_{}.pth")

    def fill(runner):
        if runner.epoch == 1:
            file_size_limit(500_000)

    train(config, tmp_path, {**KEEP_ONE, "custom_hooks": [custom]}, before_train_epoch=fill)
    assert names(tmp_path) == [f"at_{ITERS}.pth", "epoch_1.pth"]


def test_a_file_name_without_a_number_keeps_the_new_checkpoint(config, tmp_path, log):
    options = {"default_hooks.checkpoint.filename_tmpl": "latest.pth", "train_cfg.max_epochs": 2}
    train(config, tmp_path, {**KEEP_ONE, **options})
    assert names(tmp_path) == ["latest.pth"]


def test_the_best_checkpoint_of_a_copied_run_is_left_alone(config, tmp_path, log):
    best = {f"default_hooks.checkpoint.{key}": value for key, value in dict(save_best="mAP", rule="greater").items()}

    def validate(runner):
        (hook,) = (hook for hook in runner.hooks if isinstance(hook, KeepingCheckpointHook))
        if runner.epoch:
            hook.after_val_epoch(runner, metrics={"mAP": float(runner.epoch)})

    train(config, tmp_path / "one", {**best, "train_cfg.max_epochs": 2}, before_train_epoch=validate)
    there = names(tmp_path / "one")
    assert "best_mAP_epoch_1.pth" in there
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    train(config, tmp_path / "two", {**best, "resume": True, "train_cfg.max_epochs": 2})
    options = {**best, "resume": True, "load_from": str(tmp_path / "two/epoch_1.pth"), "train_cfg.max_epochs": 2}
    train(config, tmp_path / "two", options, before_train_epoch=validate)
    assert names(tmp_path / "one") == there


def test_an_interrupted_checkpoint_without_a_pointer_is_kept_until_a_later_one(config, tmp_path, log):
    def stop(runner):
        if runner.iter == 1:
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(SystemExit):
        train(config, tmp_path, before_train_iter=stop)
    (tmp_path / "last_checkpoint").unlink()
    seen = []
    options = {"resume": True, "default_hooks.checkpoint.interval": 2}
    train(config, tmp_path, options, before_train_epoch=lambda _: seen.append(names(tmp_path)))
    assert seen == [["interrupted.pth"], ["interrupted.pth"], ["epoch_2.pth"]]
