"""The list of broken images of a run, and the share of them at which it stops."""

import re
import shutil
import signal

import pytest
from small_runs import ITERS, NUM_IMAGES, assert_equal, state, train, warnings_of

from sspyr_mm.datasets import UnlabelledImages
from sspyr_mm.datasets.streaming.shards import pack
from sspyr_mm.datasets.transforms.decoding import UnreadableImageError
from sspyr_mm.engine.hooks import BrokenImagesHook

PATH = "train_dataloader.dataset.data_root"
SHARE = "default_hooks.broken_images.max_share"


@pytest.fixture
def damaged(images, tmp_path):
    """The images, two of which are broken."""
    folder = tmp_path / "images"
    shutil.copytree(images, folder)
    (folder / "03.jpg").write_bytes(b"no image")
    (folder / "05.jpg").write_bytes(b"")
    return folder


def listed(work_dir):
    return sorted((work_dir / "broken_images.txt").read_text("utf-8").splitlines())


def workers(count):
    return {"train_dataloader.num_workers": count, "train_dataloader.persistent_workers": False}


@pytest.mark.parametrize("num_workers", [2, pytest.param(0, marks=pytest.mark.slow)])
def test_each_broken_image_is_listed_once(config, damaged, tmp_path, log, num_workers):
    options = {PATH: str(damaged), "train_cfg.max_epochs": 3, **workers(num_workers)}
    train(config, tmp_path, options)
    assert listed(tmp_path) == [
        f"{damaged}/03.jpg\tnot an image that can be decoded",
        f"{damaged}/05.jpg\tan empty file",
    ]
    shares = [m for m in warnings_of(log) if "cannot be read;" in m]
    assert shares[-1] == (
        f"2 of {NUM_IMAGES} images (9.09%) cannot be read; {tmp_path}/broken_images.txt lists them. Others are used "
        "instead."
    )
    assert not list(tmp_path.glob(".broken*"))


def test_resumed_run_continues_its_list(config, damaged, tmp_path, log):
    """The run equals an uninterrupted one; what is repaired stays listed and does not count."""

    def stop(runner):
        if runner.iter == ITERS + 2:
            signal.raise_signal(signal.SIGINT)

    options = {PATH: str(damaged), "train_cfg.max_epochs": 3, **workers(2)}
    whole = train(config, tmp_path / "whole", options)
    with pytest.raises(SystemExit):
        train(config, tmp_path / "stopped", options, before_train_iter=stop)
    resumed = train(config, tmp_path / "stopped", {**options, "resume": True})
    assert_equal(state(resumed), state(whole))
    assert listed(tmp_path / "stopped") == listed(tmp_path / "whole")
    (damaged / "08.jpg").write_bytes(b"no image")
    shutil.copy(damaged / "04.jpg", damaged / "03.jpg")
    log.clear()
    earlier = str(tmp_path / "stopped/epoch_1.pth")
    train(config, tmp_path / "stopped", {**options, "resume": True, "load_from": earlier})
    assert [line.partition("\t")[0][-6:] for line in listed(tmp_path / "stopped")] == ["03.jpg", "05.jpg", "08.jpg"]
    assert [m for m in warnings_of(log) if "cannot be read;" in m][-1].startswith("2 of 22 images")


def test_new_run_starts_a_new_list(config, damaged, tmp_path):
    (tmp_path / "broken_images.txt").write_text("old.jpg\tan empty file\n")
    train(config, tmp_path, {PATH: str(damaged), "train_cfg.max_epochs": 1})
    assert not any("old.jpg" in line for line in listed(tmp_path))


def test_run_with_too_many_broken_images_stops(config, damaged, tmp_path):
    for name in ("06", "07", "09"):
        (damaged / f"{name}.jpg").write_bytes(b"no image")
    options = {PATH: str(damaged), "train_cfg.max_epochs": 3}
    message = (
        rf"^[345] of {NUM_IMAGES} images \([\d.]+%\) cannot be read; {tmp_path}/broken_images\.txt lists them\. "
        r"That is more than 1\.00%: repair or remove them and resume, or allow more "
        r"\(.*broken_images\.max_share=SHARE\)$"
    )
    with pytest.raises(UnreadableImageError, match=message):
        train(config, tmp_path, options)
    assert 3 <= len(listed(tmp_path)) <= 5
    assert not list(tmp_path.glob(".broken*"))
    train(config, tmp_path, {**options, SHARE: 0.5})
    assert len(listed(tmp_path)) == 5


@pytest.mark.parametrize("num_workers", [2, pytest.param(0, marks=pytest.mark.slow)])
def test_damaged_shard_counts_as_its_images(config, images, tmp_path, num_workers):
    shards = tmp_path / "shards"
    assert not pack(UnlabelledImages(str(images)).list_images(), str(shards), shard_bytes=8000, num_workers=1)
    one = sorted(shards.glob("chunk-*.bin"))[1]
    one.write_bytes(bytes(one.stat().st_size))
    dataset = dict(type="StreamedImages", data_root=str(shards), _delete_=True)
    dataset["pipeline"] = [dict(type=t) for t in ("LoadRGBImage", "PyramidViewTransform", "PackPyramidInputs")]
    options = {"train_dataloader.dataset": dataset, "train_dataloader.sampler": None, **workers(num_workers)}
    runner = train(config, tmp_path, {**options, SHARE: 0.5})
    assert runner.iter == 3 * (NUM_IMAGES // 4)
    assert listed(tmp_path) == [f"shard {one.name}\thas changed since it was packed (its checksum differs)"]
    with pytest.raises(UnreadableImageError, match=rf"^[3-9] of {NUM_IMAGES} images "):
        train(config, tmp_path, options)


@pytest.mark.parametrize(("share", "count"), [(-0.1, 3), (1.5, 3), (0.1, 0)])
def test_impossible_limits_are_rejected(share, count):
    with pytest.raises(ValueError, match=re.escape(f"got {share}, {count}")):
        BrokenImagesHook(max_share=share, min_images=count)
