"""Atomic file writes."""

import json
import os
import platform

import pytest

from sspyr_mm.files import remove_left_over, whole_file, write_json


def test_writers_with_the_same_process_id_use_different_files(tmp_path, monkeypatch):
    """The first processes of containers have the same id and may share a disk."""
    monkeypatch.setattr(os, "getpid", lambda: 1)
    target = tmp_path / "deep" / "a.json"
    with whole_file(target) as one:
        one.write_text("one")
        with whole_file(target) as two:
            assert two != one and two.parent == one.parent == target.parent
            two.write_text("two")
        assert target.read_text() == "two" and one.read_text() == "one"
    assert target.read_text() == "one"
    assert list(target.parent.iterdir()) == [target]


def test_partial_name_contains_host_and_process(tmp_path):
    with whole_file(tmp_path / "a.json") as partial:
        partial.touch()
        assert partial.name.startswith(f"a.json.{platform.node()}.{os.getpid()}.")
        assert partial.suffix == ".partial"


@pytest.mark.parametrize("mask", [0o022, 0o077, 0o002])
def test_mode_follows_the_umask(tmp_path, mask):
    before = os.umask(mask)
    try:
        with whole_file(tmp_path / "a") as partial:
            partial.write_text("a")
    finally:
        os.umask(before)
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o666 & ~mask


def test_content_is_synced_before_the_rename(tmp_path, monkeypatch):
    """A power failure in between must not leave an empty file under the name."""
    calls = []
    fsync, replace = os.fsync, os.replace

    def noted_fsync(file):
        calls.append(("fsync", os.fstat(file).st_ino))
        fsync(file)

    def noted_replace(source, target):
        calls.append(("replace", os.stat(source).st_ino))
        replace(source, target)

    monkeypatch.setattr(os, "fsync", noted_fsync)
    monkeypatch.setattr(os, "replace", noted_replace)
    write_json(tmp_path / "a.json", [1])
    inode = (tmp_path / "a.json").stat().st_ino
    assert calls == [("fsync", inode), ("replace", inode)]


def test_failed_block_leaves_no_file(tmp_path):
    (tmp_path / "a").write_text("before")
    with pytest.raises(KeyError, match="stop"), whole_file(tmp_path / "a") as partial:
        partial.write_text("half")
        raise KeyError("stop")
    assert [p.name for p in tmp_path.iterdir()] == ["a"]
    assert (tmp_path / "a").read_text() == "before"


def test_only_old_partial_files_are_removed(tmp_path):
    old = tmp_path / "b.host.7.ab.partial"
    old.write_text("half")
    os.utime(old, (1, 1))
    with whole_file(tmp_path / "a") as partial:
        partial.write_text("a")
        remove_left_over(tmp_path)
        assert partial.exists() and not old.exists()
    assert (tmp_path / "a").read_text() == "a"


def test_json_is_written_atomically(tmp_path):
    write_json(tmp_path / "new/a.json", {"b": [1, None]})
    assert json.loads((tmp_path / "new/a.json").read_text()) == {"b": [1, None]}
    with pytest.raises(TypeError):
        write_json(tmp_path / "new/a.json", {"b": object()})
    assert json.loads((tmp_path / "new/a.json").read_text()) == {"b": [1, None]}
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["a.json"]
