"""Shards that are missing, cut short or changed, and folders that are away for a while."""

import json
import os
import shutil
import threading
import time
from pathlib import Path

import pytest
from damage import fill_with_zeros, flip_a_bit
from small_images import pack_images
from torch.utils.data import DataLoader

from sspyr_mm.datasets import StreamedImages
from sspyr_mm.datasets.broken import read_appended
from sspyr_mm.datasets.link import record_broken
from sspyr_mm.datasets.transforms.decoding import UnreadableImageError
from sspyr_mm.datasets.unlabelled import data_notices

NUM_IMAGES, BATCH = 61, 4
LOAD = [dict(type="mmpretrain.LoadRGBImage")]


@pytest.fixture(scope="module")
def packed(tmp_path_factory):
    """Shards of a few images each."""
    return pack_images(tmp_path_factory.mktemp("images"), NUM_IMAGES)


@pytest.fixture
def shards(packed, tmp_path):
    """A copy that a test may damage."""
    return Path(shutil.copytree(packed, tmp_path / "shards"))


def index_of(shards):
    return json.loads((shards / "index.json").read_text())["chunks"]


def without_checksums(shards):
    content = json.loads((shards / "index.json").read_text())
    for chunk in content["chunks"]:
        assert chunk.pop("crc32")
    (shards / "index.json").write_text(json.dumps(content))


def to_pipe(path):
    path.unlink()
    os.mkfifo(path)


FAULTS = {
    "missing": (Path.unlink, "is missing"),
    "truncated": (lambda path: os.truncate(path, 700), "has 700 bytes in place of"),
    "empty": (lambda path: os.truncate(path, 0), "is empty"),
    "zeroed": (fill_with_zeros, "has changed since it was packed"),
    "changed": (flip_a_bit, "has changed since it was packed"),
    "pipe": (to_pipe, "is not a regular file"),
}


def epoch_of(root, num_workers=0, *, done=0, **options):
    """Returns the index and pixels of every image of an epoch, and the data set."""
    dataset = StreamedImages(str(root), pipeline=LOAD, **options)
    loader = DataLoader(dataset, BATCH, num_workers=num_workers, drop_last=True, collate_fn=list)
    record_broken(dataset, Path(root.removeprefix("local:") if isinstance(root, str) else root, "broken"))
    layout = dict(seed=3, batch_size=BATCH, num_workers=num_workers)
    begun = dataset.start_epoch(1, **layout)
    if done:
        dataset.start_epoch(1, done=done, begun=begun, **layout)
    return [(r["sample_idx"], r["img_path"], r["img"].tobytes()) for batch in loader for r in batch], dataset


@pytest.mark.parametrize("num_workers", [0, pytest.param(2, marks=pytest.mark.slow)])
@pytest.mark.parametrize("fault", FAULTS)
def test_damaged_shard_is_reported_and_its_images_are_replaced(shards, fault, num_workers):
    whole, _ = epoch_of(shards, num_workers)
    damage, problem = FAULTS[fault]
    chunk = index_of(shards)[3]
    names = {r[1] for r in images_of(shards, 3)}
    damage(shards / chunk["filename"])
    found, _ = epoch_of(shards, num_workers)
    assert len(found) == len(whole) and len({index for index, *_ in found}) == len(found)
    for before, after in zip(whole, found, strict=True):
        if before[1] in names:
            assert after[1] not in names and after[0] > 1 << 39
        else:
            assert before == after
    reported = set(read_appended(shards / "broken", 0)[0])
    assert {(one.name, one.num_images) for one in reported} == {(f"shard {chunk['filename']}", chunk["chunk_size"])}
    assert all(one.reason.startswith(problem) for one in reported)


def images_of(shards, shard):
    """Yields index and name of each image of a shard."""
    dataset = StreamedImages(str(shards), shuffle=False, pipeline=LOAD)
    begin = sum(chunk["chunk_size"] for chunk in index_of(shards)[:shard])
    for number, results in enumerate(dataset):
        if begin <= number < begin + index_of(shards)[shard]["chunk_size"]:
            yield results["sample_idx"], results["img_path"]


@pytest.mark.parametrize("fault", ["missing", "truncated", "changed"])
@pytest.mark.parametrize("num_workers", [0, 1])
def test_damaged_shard_of_a_slow_folder_is_replaced(shards, tmp_path, fault, num_workers):
    """Shards are copied to a cache first, by a thread of litdata that must not end."""
    chunk = index_of(shards)[3]
    FAULTS[fault][0](shards / chunk["filename"])
    here, _ = epoch_of(shards, num_workers)
    there, _ = epoch_of(f"local:{shards}", num_workers, cache_dir=str(tmp_path / "cache"))
    assert there == here
    assert any(one.name == f"shard {chunk['filename']}" for one in read_appended(shards / "broken", 0)[0])


@pytest.mark.parametrize("fault", ["truncated", "empty", "zeroed", "changed"])
def test_damaged_copy_in_the_cache_is_fetched_again(shards, tmp_path, fault):
    root, options = f"local:{shards}", dict(cache_dir=str(tmp_path / "cache"))
    whole, _ = epoch_of(root, **options)
    (copy,) = (tmp_path / "cache").rglob(index_of(shards)[2]["filename"])
    FAULTS[fault][0](copy)
    assert epoch_of(root, **options)[0] == whole
    assert not (shards / "broken").exists()


@pytest.mark.parametrize("num_workers", [0, 1, pytest.param(2, marks=pytest.mark.slow)])
def test_interrupted_epoch_with_damage_continues_exactly(shards, num_workers):
    """A damaged shard, and, in shards without checksums, damaged images."""
    without_checksums(shards)
    fill_with_zeros(shards / index_of(shards)[3]["filename"])
    for chunk in index_of(shards)[5:8]:
        data = bytearray((shards / chunk["filename"]).read_bytes())
        data[-300:] = bytes(300)  # the last image, which keeps its name
        (shards / chunk["filename"]).write_bytes(data)
    whole, _ = epoch_of(shards, num_workers)
    for done in range(1, NUM_IMAGES // BATCH, 2 if num_workers else 1):
        assert epoch_of(shards, num_workers, done=done)[0] == whole[done * BATCH :], done
    reasons = {one.reason for one in read_appended(shards / "broken", 0)[0]}
    assert any("cannot be parsed" in reason for reason in reasons)
    assert any("PNG image that is truncated, damaged" in reason for reason in reasons) or len(reasons) > 1


def test_shards_without_checksums_are_read_and_reported(shards, packed):
    without_checksums(shards)
    found, dataset = epoch_of(shards)
    assert found == epoch_of(packed)[0]
    (notice,) = data_notices(dataset)
    assert notice.startswith(f"{shards} was packed without checksums: changed bytes in a shard are not detected.")
    assert data_notices(StreamedImages(str(packed))) == []


def test_all_shards_damaged_is_an_error(shards):
    for chunk in index_of(shards):
        flip_a_bit(shards / chunk["filename"])
    with pytest.raises(UnreadableImageError, match=r"cannot be read: see 'Skipped"):
        epoch_of(shards)


def take_away(folder, seconds):
    """Renames a folder for some time."""
    away = folder.rename(folder.with_name("away"))
    threading.Thread(target=lambda: (time.sleep(seconds), away.rename(folder))).start()


@pytest.mark.parametrize("kind", ["in_place", "fetched"])
def test_folder_that_is_away_for_a_while_is_waited_for(shards, tmp_path, log, kind):
    root, options = str(shards), {}
    if kind == "fetched":
        root, options = f"local:{shards}", dict(cache_dir=str(tmp_path / "cache"))
    whole, _ = epoch_of(str(shards))
    dataset = StreamedImages(root, pipeline=LOAD, **options)
    dataset.start_epoch(1, seed=3, batch_size=BATCH, num_workers=0)
    take_away(shards, 1.5)
    found = [(r["sample_idx"], r["img_path"], r["img"].tobytes()) for r in dataset]
    assert found[: len(whole)] == whole
    assert sum("waiting up to 60 s for it" in record.getMessage() for record in log) == 1
    assert sum("can be read again" in record.getMessage() for record in log) == 1
    assert not any("Skipped" in record.getMessage() for record in log)


def test_folder_that_stays_away_is_an_error_after_one_wait(shards, tmp_path, log):
    dataset = StreamedImages(str(shards), pipeline=LOAD, wait_s=0.2)
    shards.rename(tmp_path / "away")
    with pytest.raises(UnreadableImageError, match=r"shards cannot be read \(No such file or directory\), also after"):
        list(dataset)
    assert sum("waiting up to" in record.getMessage() for record in log) == 1
    assert not shards.exists()


def test_folder_that_goes_away_within_an_epoch_is_waited_for(shards, log):
    whole, _ = epoch_of(str(shards))
    dataset = StreamedImages(str(shards), pipeline=LOAD)
    dataset.start_epoch(1, seed=3, batch_size=BATCH, num_workers=0)
    found = []
    for number, results in enumerate(dataset):
        found.append((results["sample_idx"], results["img_path"], results["img"].tobytes()))
        if number == 20:
            take_away(shards, 1.5)
    assert found[: len(whole)] == whole
    assert sum("can be read again" in record.getMessage() for record in log) == 1
    assert not any("Skipped" in record.getMessage() for record in log)
