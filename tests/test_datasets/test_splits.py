"""Lists of image ids: reproducible, nested, and read back unchanged."""

import hashlib
import json
import random
import re
import runpy
import sys

import pytest
from project import ROOT

from sspyr_mm.datasets.splits import rank_ids, read_split, write_split

TRAIN2014 = "faf6d29331c6ce9e08b1387eff05479be6496b86b66e5fb699169bf2aa9982b5"
"""SHA-256 of the ids of train2014, sorted as text, one per line."""
IDS = [str(number) for number in range(9, 2009, 2)]


def test_order_depends_only_on_the_digests():
    shuffled = random.Random(0).sample(IDS, len(IDS))
    expected = sorted(IDS, key=lambda one: hashlib.sha256(f"7:{one}".encode()).hexdigest())
    assert rank_ids(shuffled, 7) == expected != rank_ids(shuffled, 8)
    # Known digests: no version of this package may draw other lists.
    assert rank_ids(["9", "25", "30", "34", "36"], 0) == ["36", "25", "9", "34", "30"]
    with pytest.raises(ValueError, match="duplicate image ids"):
        rank_ids(["1", "1"], 0)


def test_lists_are_nested_and_describe_their_draw(tmp_path):
    small, large = tmp_path / "new" / "1.txt", tmp_path / "10.txt"
    assert write_split(small, IDS, percent=1, seed=2) == 10
    assert write_split(large, reversed(IDS), percent=10, seed=2) == 100
    assert read_split(large)[:10] == read_split(small) == tuple(rank_ids(IDS, 2)[:10])
    assert not list(small.parent.glob("*.partial"))
    header = small.read_text().splitlines()[0]
    assert header.startswith("# 1 % of 1000 images") and "seed 2, 10 ids" in header
    digest = hashlib.sha256("".join(f"{one}\n" for one in sorted(IDS)).encode()).hexdigest()
    assert header.endswith(digest)


def test_seeds_draw_independently():
    tenth = [set(rank_ids(IDS, seed)[:100]) for seed in range(3)]
    for other in tenth[1:]:
        assert 1 <= len(tenth[0] & other) <= 25  # 10 expected


def test_percentages_without_images_are_refused(tmp_path):
    for percent in (0, 101):
        with pytest.raises(ValueError, match=f"percent must be .* between 1 and 100, got {percent}"):
            write_split(tmp_path / "list.txt", IDS, percent=percent, seed=0)
    with pytest.raises(ValueError, match="1 % of 99 images selects no image"):
        write_split(tmp_path / "list.txt", IDS[:99], percent=1, seed=0)
    assert not list(tmp_path.iterdir())


def test_missing_empty_and_duplicate_lists_are_refused(tmp_path):
    path = tmp_path / "list.txt"
    with pytest.raises(FileNotFoundError, match=r"No list of image ids at .*list\.txt: give an"):
        read_split(path)
    path.write_text("# nothing\n\n")
    with pytest.raises(ValueError, match="lists no image"):
        read_split(path)
    path.write_text("1\n # a comment\n1\n")
    with pytest.raises(ValueError, match="lists 1 duplicate ids"):
        read_split(path)


def test_ids_of_files_with_uncommon_names_are_read_back(tmp_path):
    ids = ["a#1.png", "a #1.png", "a\x0b.png", "a\u2028.png", "ä b.png"]
    assert write_split(tmp_path / "list.txt", ids, percent=100, seed=0) == 5
    assert read_split(tmp_path / "list.txt") == tuple(rank_ids(ids, 0))


@pytest.mark.parametrize("one", ["a\nb.png", "a\rb.png", "#a.png", " a.png", ""])
def test_ids_that_cannot_be_a_line_are_refused(tmp_path, one):
    with pytest.raises(ValueError, match=re.escape(f"id {one!r} cannot be a line of a list")):
        write_split(tmp_path / "list.txt", ["1", one], percent=100, seed=0)
    assert not list(tmp_path.iterdir())


LISTS = ROOT / "configs/benchmarks/classification/splits"


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_committed_lists_contain_ids_of_train2014(seed):
    large, small = (read_split(LISTS / f"coco2014_{percent}pct_seed{seed}.txt") for percent in (10, 1))
    assert len(large) == 8278 and len(small) == 827 and large[:827] == small
    assert large == tuple(rank_ids(large, seed))
    # Of 82 783 uniform digests a tenth is below a tenth of their range.
    last = int(hashlib.sha256(f"{seed}:{large[-1]}".encode()).hexdigest()[:8], 16) / 16**8
    assert abs(last - 0.1) < 0.005
    header = (LISTS / f"coco2014_10pct_seed{seed}.txt").read_text().split("\n")[0]
    assert "10 % of 82783 images" in header and header.endswith(TRAIN2014)


@pytest.fixture
def run_tool(monkeypatch):
    tool = str(ROOT / "tools/dataset_converters/make_coco_splits.py")

    def run(*args):
        monkeypatch.setattr(sys, "argv", [tool, *map(str, args)])
        with pytest.raises(SystemExit) as done:
            runpy.run_path(tool, run_name="__main__")
        return done.value.code

    return run


def test_tool_writes_all_lists(run_tool, tmp_path, capsys):
    source = tmp_path / "instances_train2014.json"
    source.write_text(json.dumps({"images": [{"id": int(one), "file_name": "x.jpg"} for one in IDS]}))
    out = tmp_path / "splits"
    assert run_tool(source, "--out", out, "--percent", 1, 10, "--seeds", 0, 1, "--any-images") == 0
    names = [f"coco2014_{p}pct_seed{s}.txt" for p in (10, 1) for s in (0, 1)]
    assert sorted(path.name for path in out.iterdir()) == sorted(names)
    assert read_split(out / "coco2014_10pct_seed1.txt") == tuple(rank_ids(IDS, 1)[:100])
    assert "coco2014_1pct_seed0.txt: 10 of 1000 images" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"images": [{"id": 1, "file_name": "x.jpg"}]}', "has 1 images, train2014 has 82783"),
        ("[]", "is not a COCO json"),
        (None, "No such file"),
    ],
)
def test_tool_refuses_other_files(run_tool, tmp_path, capsys, content, message):
    source = tmp_path / "instances.json"
    if content is not None:
        source.write_text(content)
    assert run_tool(source, "--out", tmp_path / "splits") == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "splits").exists()


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_lists_from_windows_editors_are_read(tmp_path, encoding):
    (tmp_path / "list.txt").write_bytes("7\r\n# comment\r\nbär 1.jpg\r\n".encode(encoding))
    assert read_split(tmp_path / "list.txt") == ("7", "bär 1.jpg")
