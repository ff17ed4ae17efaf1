"""TrainingRunner: one run in a work dir, and checkpoints that are read without executing them."""

import os
import re

import pytest
import torch
from small_runs import make_runner, train, warnings_of

from sspyr_mm.engine import runner as runner_module
from sspyr_mm.files import folder_lock


@pytest.fixture(autouse=True)
def no_patience(monkeypatch):
    monkeypatch.setattr(runner_module, "_PATIENCE", 0)


def test_a_second_run_in_a_work_dir_is_refused_before_it_changes_the_first(config, tmp_path):
    first = make_runner(config, tmp_path)
    there = {tmp_path / name: (tmp_path / name).read_bytes() for name in ("config.py", "training.lock")}
    second = make_runner(config, tmp_path, {"train_cfg.max_epochs": 2})
    with pytest.raises(ValueError, match=rf"^Another run \(process {os.getpid()} on .*, for \d+ min\) trains in "):
        second.train()
    assert {path: path.read_bytes() for path in there} == there
    first._release()
    second.train()
    assert "max_epochs=2" in (tmp_path / "config.py").read_text()


def test_the_work_dir_is_free_after_training(config, tmp_path):
    def fail(runner):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        train(config, tmp_path, before_train_iter=fail)
    with folder_lock(tmp_path, "training.lock", patience=0) as lock:
        assert lock.left_by == ""


def test_the_lock_of_a_killed_run_is_taken_over(config, tmp_path, log):
    (tmp_path / "training.lock").write_text("process 123 on elsewhere")
    train(config, tmp_path, {"train_cfg.max_epochs": 1})
    assert f"The last run in {tmp_path} (process 123 on elsewhere) was killed" in warnings_of(log)
    assert (tmp_path / "training.lock").read_text() == ""


class Attack:
    """Creates a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (self.path, "w")


def test_a_checkpoint_that_is_found_is_not_executed(config, uninterrupted, tmp_path, log):
    attack = torch.load(uninterrupted.work_dir / "epoch_3.pth", weights_only=False)
    attack["meta"]["extra"] = Attack(str(tmp_path / "executed"))
    torch.save(attack, tmp_path / "epoch_3.pth")
    with pytest.raises(ValueError, match=re.escape(f"{tmp_path}/epoch_3.pth needs arbitrary pickle (")):
        train(config, tmp_path, {"resume": True})
    assert not (tmp_path / "executed").exists()


def test_a_trusted_checkpoint_is_read(config, uninterrupted, tmp_path, log):
    trusted = torch.load(uninterrupted.work_dir / "epoch_2.pth", weights_only=False)
    trusted["meta"]["extra"] = Attack(str(tmp_path / "executed"))
    torch.save(trusted, tmp_path / "trusted.pth")
    train(config, tmp_path / "work", {"resume": True, "load_from": f"{tmp_path}/trusted.pth", "allow_pickle": True})
    assert (tmp_path / "executed").exists()
