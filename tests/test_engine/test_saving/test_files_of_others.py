"""A run removes and replaces no file that it has not written, and begins or resumes only where all of it fits."""

import os
import shutil

import pytest
import torch
from mmengine.hooks import Hook
from small_runs import make_runner, train, warnings_of

from sspyr_mm.engine import runner as runner_module
from sspyr_mm.engine.saving import KeepingCheckpointHook


@pytest.fixture
def work(uninterrupted, tmp_path):
    """A copy of the work dir of a finished run of three epochs."""
    return shutil.copytree(uninterrupted.work_dir, tmp_path / "work")


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.glob("*.pth")}


@pytest.mark.parametrize("name", ["epoch_1.pth", "interrupted.pth"])
def test_weights_in_the_work_dir_of_a_new_run_are_moved_with_the_others(name, config, work, log):
    (work / "epoch_2.pth").replace(work / "interrupted.pth")
    before = contents(work)
    train(config, work, {"load_from": str(work / name), "train_cfg.max_epochs": 1})
    assert contents(work / "earlier_1") == before
    assert list(contents(work)) == ["epoch_1.pth"]


def test_weights_under_the_name_of_a_checkpoint_are_moved(config, work, log):
    torch.save({"state_dict": {"conv1.weight": torch.zeros(1)}}, work / "epoch_3.pth")
    torch.save({"state_dict": {"conv1.weight": torch.zeros(1)}}, work / "backbone.pth")
    before = contents(work)
    train(config, work, {"resume": True})
    assert contents(work / "earlier_1") == {"epoch_3.pth": before["epoch_3.pth"]}
    assert contents(work)["backbone.pth"] == before["backbone.pth"]
    assert any("are now in" in message for message in warnings_of(log))


class Refusal(Hook):
    def before_train(self, runner):
        raise ValueError("refused")


def test_a_run_that_is_refused_moves_no_checkpoint(config, work, tmp_path, log):
    other = shutil.copy(work / "epoch_1.pth", tmp_path)
    before = contents(work)
    runner = make_runner(config, work, {"resume": True, "load_from": other})
    runner.register_hook(Refusal())
    with pytest.raises(ValueError, match="refused"):
        runner.train()
    assert contents(work) == before and not list(work.glob("earlier_*"))


def without(key):
    def change(checkpoint):
        del checkpoint[key]

    return change


CHANGES = {
    "weights only": lambda checkpoint: [checkpoint.pop(key) for key in list(checkpoint) if key != "state_dict"],
    "no meta": without("meta"),
    "empty meta": lambda checkpoint: checkpoint["meta"].clear(),
    "no log": without("message_hub"),
    "text as a number": lambda checkpoint: checkpoint["meta"].update(iter="x"),
    "list as meta": lambda checkpoint: checkpoint.update(meta=[1]),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_file_without_a_state_of_training_is_not_resumed(change, config, work, tmp_path):
    checkpoint = torch.load(work / "epoch_1.pth", weights_only=False)
    CHANGES[change](checkpoint)
    torch.save(checkpoint, tmp_path / "x.pth")
    before = contents(work)
    with pytest.raises(ValueError, match=r"x.pth cannot be resumed: it has no state of training .*load_from=FILE"):
        train(config, work, {"resume": True, "load_from": str(tmp_path / "x.pth")})
    assert contents(work) == before


@pytest.mark.parametrize("name", ["sub/ep{}.pth", "best_{}.pth"])
def test_a_file_name_with_a_folder_or_of_the_best_checkpoint_is_refused(name, config, tmp_path):
    with pytest.raises(ValueError, match=rf"filename_tmpl must be a file name .* got '{name}'"):
        train(config, tmp_path, {"default_hooks.checkpoint.filename_tmpl": name})


def test_names_in_a_checkpoint_remove_no_file(config, work, tmp_path, log):
    """mmengine removes outdated checkpoints by what the message hub of a checkpoint says."""
    victim, script = tmp_path / "victim.pth", work / "notes.txt"
    victim.touch()
    script.touch()
    checkpoint = torch.load(work / "epoch_1.pth", weights_only=False)
    infos = checkpoint["message_hub"]["runtime_info"]
    infos["keep_ckpt_ids"] = [str(victim.with_suffix("")), "../victim"] * 2
    infos["best_ckpt"] = str(script)
    torch.save(checkpoint, work / "epoch_1.pth")
    saving = dict(filename_tmpl="{}.pth", max_keep_ckpts=1, save_best="mAP", rule="greater")
    options = {f"default_hooks.checkpoint.{key}": value for key, value in saving.items()}

    def validate(runner):
        (hook,) = (hook for hook in runner.hooks if isinstance(hook, KeepingCheckpointHook))
        hook.after_val_epoch(runner, metrics={"mAP": float(runner.epoch)})

    run = {"resume": True, "load_from": str(work / "epoch_1.pth")}
    train(config, work, {**options, **run}, before_train_epoch=validate)
    assert victim.exists() and script.exists()
    assert {"3.pth", "best_mAP_2.pth"} <= set(contents(work))


def test_work_dirs_of_one_name_do_not_share_a_folder_of_checkpoints(config, tmp_path, log, monkeypatch):
    monkeypatch.setattr(runner_module, "_PATIENCE", 0)
    out = str(tmp_path / "out")
    options = {"default_hooks.checkpoint.out_dir": out, "train_cfg.max_epochs": 1}
    options["custom_hooks"] = [dict(type="CheckpointHook", out_dir=out, filename_tmpl="b{}.pth")]  # shares it

    def begin_another(runner):
        with pytest.raises(ValueError, match=rf"process {os.getpid()} on .* trains in {tmp_path}/out/run: wait for it"):
            train(config, tmp_path / "b/run", options)

    train(config, tmp_path / "a/run", options, before_train_epoch=begin_another)
    assert sorted(contents(tmp_path / "out/run")) == ["b1.pth", "epoch_1.pth"]
