"""The checkpoint that a run is resumed from, and the checkpoints of earlier runs."""

import os
import random
import re
import shutil

import pytest
import torch
from damage import fill_with_zeros, flip_a_bit
from small_runs import ITERS, assert_equal, make_runner, state, train, warnings_of

from sspyr_mm.engine.saving.run_checkpoints import newest_whole, set_aside


@pytest.fixture
def work(uninterrupted, tmp_path):
    """A copy of the work dir of a finished run of three epochs."""
    return shutil.copytree(uninterrupted.work_dir, tmp_path / "work")


def truncate(path):
    path.write_bytes(path.read_bytes()[:-1000])


def empty(path):
    path.write_bytes(b"")


DAMAGES = [truncate, empty, fill_with_zeros, flip_a_bit]


@pytest.mark.parametrize("pointer", ["", "/missing/run/epoch_2.pth", "{work}/epoch_2.pth", None, b"\xff\x00"])
def test_the_pointer_is_only_a_hint(work, pointer):
    if pointer is None:
        (work / "last_checkpoint").unlink()
    else:
        data = pointer if isinstance(pointer, bytes) else pointer.format(work=work).encode()
        (work / "last_checkpoint").write_bytes(data)
    assert newest_whole([work]) == (str(work / "epoch_3.pth"), [])


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_is_passed_over(work, damage):
    damage(work / "epoch_3.pth")
    newest, (warning,) = newest_whole([work])
    assert newest == str(work / "epoch_2.pth")
    assert warning.startswith(f"{work}/epoch_3.pth ")
    assert warning.endswith(f"It is passed over: training resumes from {work}/epoch_2.pth")


def test_a_run_never_begins_anew_where_all_checkpoints_are_damaged(work):
    for number, damage in zip((1, 2, 3), DAMAGES, strict=False):
        damage(work / f"epoch_{number}.pth")
    with pytest.raises(ValueError, match=rf"^--resume: {work} has no checkpoint that can be read: (?s:.)*epoch_1.pth"):
        newest_whole([work])


def test_a_run_begins_where_no_checkpoint_is(tmp_path):
    assert newest_whole([tmp_path / "missing", tmp_path]) == (None, [])
    (tmp_path / "last_checkpoint").write_text(f"{tmp_path}/epoch_9.pth")
    torch.save({"state_dict": {}}, tmp_path / "backbone.pth")
    newest, (warning,) = newest_whole([tmp_path])
    assert newest is None and "epoch_9.pth, which does not exist: training begins anew" in warning


@pytest.mark.parametrize("template", ["ckpt_{}.pth", "epoch_{:03d}.pt", "{}"])
def test_checkpoints_of_other_names_are_found_reported_and_set_aside(template, config, tmp_path, log):
    options = {"default_hooks.checkpoint.filename_tmpl": template, "train_cfg.max_epochs": 2}
    names = [template.format(number) for number in (1, 2)]
    train(config, tmp_path, options)
    assert all((tmp_path / name).is_file() for name in names)
    truncate(tmp_path / names[1])
    partial = tmp_path / f"{names[1]}.x.partial"
    partial.touch()
    log.clear()
    runner = train(config, tmp_path, {**options, "resume": True})
    assert any(m.startswith(f"{tmp_path}/{names[1]} ") and "passed over" in m for m in warnings_of(log))
    assert runner.iter == 2 * ITERS and not list(tmp_path.glob("earlier_*"))
    for name in names:
        truncate(tmp_path / name)
    content = (tmp_path / names[0]).read_bytes()
    with pytest.raises(ValueError, match="has no checkpoint that can be read"):
        train(config, tmp_path, {**options, "resume": True})
    train(config, tmp_path, options)  # a new run keeps the damaged files as well
    assert sorted(path.name for path in (tmp_path / "earlier_1").iterdir()) == names
    assert (tmp_path / "earlier_1" / names[0]).read_bytes() == content


def test_checkpoint_of_a_name_that_is_no_longer_given_is_found(config, tmp_path, log):
    train(config, tmp_path, {"default_hooks.checkpoint.filename_tmpl": "epoch_{}.pt", "train_cfg.max_epochs": 1})
    assert newest_whole([tmp_path])[0] == f"{tmp_path}/epoch_1.pt"  # by last_checkpoint
    truncate(tmp_path / "epoch_1.pt")
    with pytest.raises(ValueError, match="has no checkpoint that can be read"):
        newest_whole([tmp_path])


@pytest.mark.parametrize("pointer", ["http://127.0.0.1:9/epoch_3.pth", "xyz://garbage"])
def test_an_address_counts_only_for_a_run_that_saves_in_an_object_store(work, pointer):
    (work / "last_checkpoint").write_text(pointer)
    assert newest_whole([work]) == (str(work / "epoch_3.pth"), [])
    assert newest_whole([work], is_remote=True) == (pointer, [])


class Call:
    """Makes a folder when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("name", ["epoch_9.pth", "other.pth"])
@pytest.mark.parametrize("legacy", [False, True])
def test_a_run_that_resumes_by_itself_executes_nothing_in_any_file(work, name, legacy, config, tmp_path, log):
    content = torch.load(work / "epoch_3.pth", weights_only=False)
    content["x"] = Call(tmp_path / "ran")
    content["meta"]["iter"] += 100
    torch.save(content, work / name, _use_new_zipfile_serialization=not legacy)
    runner = train(config, work, {"resume": True})
    assert runner.iter == 3 * ITERS and not (tmp_path / "ran").exists()


def test_the_best_checkpoint_is_not_resumed(work):
    best = torch.load(work / "epoch_3.pth", weights_only=False)
    best["meta"]["iter"] += 100
    torch.save(best, work / "best_mAP_epoch_3.pth")
    assert newest_whole([work])[0] == str(work / "epoch_3.pth")


def test_other_files_do_not_disturb(work, tmp_path):
    (work / "model.pth").mkdir()
    (work / "dangling.pth").symlink_to(tmp_path / "missing")
    (work / "foreign.pth").write_bytes(b"text")
    assert newest_whole([work]) == (str(work / "epoch_3.pth"), [])
    assert set_aside([work], after=0) == [work / "earlier_1"]
    assert sorted(path.name for path in work.glob("*.pth")) == ["dangling.pth", "foreign.pth", "model.pth"]


def test_a_forgotten_resume_is_reported(work):
    set_aside([work], after=0)
    newest, (warning,) = newest_whole([work])
    assert newest is None and f"--resume {work}/earlier_1/epoch_1.pth" in warning


def test_testing_changes_no_checkpoint(config, work, log):
    before = sorted(path.name for path in work.iterdir() if path.is_file())
    runner = make_runner(config, work, {"load_from": str(work / "epoch_3.pth")})
    runner._load_from = str(work / "epoch_3.pth")
    runner.load_or_resume()
    assert sorted(path.name for path in work.iterdir() if path.is_file()) == before


@pytest.mark.parametrize("out", ["out", "out/deep"])
def test_checkpoints_in_another_folder_are_found_and_set_aside(config, tmp_path, log, out):
    options = {"default_hooks.checkpoint.out_dir": str(tmp_path / out), "train_cfg.max_epochs": 2}
    work, there = tmp_path / "work", tmp_path / out / "work"
    train(config, work, options)
    assert {path.name for path in there.glob("*.pth")} == {"epoch_1.pth", "epoch_2.pth"} and not list(
        work.glob("*.pth")
    )
    assert newest_whole([work, there])[0] == str(there / "epoch_2.pth")
    log.clear()
    train(config, work, {**options, "resume": True})  # finished
    assert any(f"from path: {there}/epoch_2.pth" in m or f"{there}/epoch_2.pth" in m for _, m in log)
    train(config, work, options)
    assert {path.name for path in (there / "earlier_1").iterdir()} == {"epoch_1.pth", "epoch_2.pth"}


def test_resuming_past_a_flipped_bit_equals_an_uninterrupted_run(config, work, uninterrupted, log):
    flip_a_bit(work / "epoch_3.pth")
    (work / "last_checkpoint").write_text("")
    runner = train(config, work, {"resume": True})
    assert_equal(state(runner), uninterrupted.state)
    assert any(m.startswith(f"{work}/epoch_3.pth ") and "passed over" in m for m in warnings_of(log))
    assert newest_whole([work]) == (str(work / "epoch_3.pth"), [])  # written again


def test_a_damaged_checkpoint_that_is_named_is_refused(config, work, log):
    flip_a_bit(work / "epoch_2.pth")
    with pytest.raises(ValueError, match=re.escape(f"{work}/epoch_2.pth ")):
        train(config, work, {"resume": True, "load_from": str(work / "epoch_2.pth")})


def test_a_new_run_moves_the_checkpoints_of_an_earlier_one(config, work, log):
    shutil.copy(work / "epoch_3.pth", work / "interrupted.pth")
    torch.save({"state_dict": {"conv1.weight": torch.zeros(1)}}, work / "backbone.pth")
    kept = (work / "epoch_2.pth").read_bytes()
    train(config, work, {"train_cfg.max_epochs": 1})
    assert {path.name for path in work.glob("*.pth")} == {"backbone.pth", "epoch_1.pth"}
    earlier = work / "earlier_1"
    assert {path.name for path in earlier.iterdir()} == {"interrupted.pth", *(f"epoch_{n}.pth" for n in (1, 2, 3))}
    assert (earlier / "epoch_2.pth").read_bytes() == kept
    assert any(f"--resume {earlier}/CHECKPOINT --work-dir OTHER" in m for m in warnings_of(log))
    assert newest_whole([work])[0] == str(work / "epoch_1.pth")


def test_resuming_an_earlier_checkpoint_moves_the_later_ones(config, work, log):
    """Otherwise the next --resume would take the later one, of the other run."""

    def fail(runner):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        train(config, work, {"resume": True, "load_from": str(work / "epoch_1.pth")}, before_train_iter=fail)
    assert [path.name for path in work.glob("*.pth")] == ["epoch_1.pth"]
    assert {path.name for path in (work / "earlier_1").iterdir()} == {"epoch_2.pth", "epoch_3.pth"}
    assert newest_whole([work]) == (str(work / "epoch_1.pth"), [])


@pytest.mark.slow
def test_flipped_bits_anywhere_are_noticed_or_harmless(work):
    """Of 60 random bits of the file, each is reported, or the state that is read is the same."""
    target, rng = work / "epoch_3.pth", random.Random(0)
    whole, before = target.read_bytes(), torch.load(target, weights_only=False)
    noticed = 0
    for _ in range(60):
        data = bytearray(whole)
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        target.write_bytes(data)
        if newest_whole([work])[0] == str(work / "epoch_2.pth"):
            noticed += 1
        else:
            after = torch.load(target, weights_only=False)
            assert_equal(after["state_dict"], before["state_dict"])
            assert after["meta"] == before["meta"]
    assert noticed > 40


def test_names_are_of_this_run(uninterrupted):
    """The tests above need these files."""
    assert sorted(path.name for path in uninterrupted.work_dir.glob("*.pth")) == [f"epoch_{n}.pth" for n in (1, 2, 3)]
    assert ITERS > 2
