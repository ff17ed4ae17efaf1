"""Loading of image files, and reports of broken ones."""

import logging
import os
import re
import threading
import time

import cv2
import numpy as np
import pytest
import torch
from encoded_images import encode, smooth_image
from mmengine.logging import MMLogger

from sspyr_mm.datasets import LoadRGBImage, UnlabelledImages
from sspyr_mm.datasets.finding import waiting
from sspyr_mm.datasets.transforms.decoding import UnreadableImageError


def test_image_and_shapes_are_added_to_the_sample(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(encode(smooth_image(), "PNG"))
    given = dict(img_path=str(path), sample_idx=3)
    results = LoadRGBImage()(given)
    np.testing.assert_array_equal(results.pop("img"), smooth_image())
    shapes = dict(ori_shape=(48, 64), img_shape=(48, 64))
    assert results == dict(img_path=str(path), sample_idx=3, **shapes)
    assert given == dict(img_path=str(path), sample_idx=3)


def test_broken_file_is_reported_and_skipped(tmp_path, log):
    path = tmp_path / "broken.jpg"
    path.write_bytes(encode(smooth_image(), "JPEG")[:200])
    assert LoadRGBImage()(dict(img_path=str(path))) is None
    (record,) = log
    assert record.levelno == logging.WARNING
    assert f"Skipped {path}: a JPEG image that is truncated, damaged or" in record.getMessage()


def test_broken_and_missing_files_are_reported_once(tmp_path, log):
    (tmp_path / "broken.jpg").write_bytes(b"no image")
    load = LoadRGBImage()
    for name in ("broken.jpg", "gone.jpg") * 3:
        assert load(dict(img_path=str(tmp_path / name))) is None
    assert [record.getMessage().count("broken.jpg") for record in log] == [1, 0]


class Files(torch.utils.data.Dataset):
    """Loads files, and returns the number of log records of each."""

    def __init__(self, paths):
        self.paths, self.load = paths, LoadRGBImage()

    def __len__(self):
        return len(self.paths)

    def __getitem__(self, index):
        logger = MMLogger.get_instance("test_datasets")
        counts = []
        handler = logging.Handler()
        handler.emit = counts.append
        logger.addHandler(handler)
        self.load(dict(img_path=self.paths[index]))
        logger.removeHandler(handler)
        return len(counts)


def test_workers_and_epochs_report_a_file_once(tmp_path, log):
    (tmp_path / "broken.jpg").write_bytes(b"no image")
    loader = torch.utils.data.DataLoader(Files([str(tmp_path / "broken.jpg")] * 4), num_workers=2)
    assert sum(int(count) for _ in range(2) for count in loader) == 1


def test_names_that_are_not_utf_8_are_printed(tmp_path, log):
    path = os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9\n.jpg")
    with open(path, "wb") as file:
        file.write(b"no image")
    assert LoadRGBImage()(dict(img_path=path)) is None
    log[0].getMessage().encode("utf-8")
    assert f"{tmp_path}/caf\\udce9\\n.jpg: not an image" in log[0].getMessage()


@pytest.mark.parametrize("make", [os.mkfifo, lambda path: os.symlink("/dev/zero", path)])
def test_pipes_and_devices_are_refused(tmp_path, log, make):
    make(tmp_path / "endless.jpg")
    assert LoadRGBImage()(dict(img_path=str(tmp_path / "endless.jpg"))) is None
    assert "endless.jpg: a pipe, socket or device" in log[0].getMessage()


def test_large_files_are_not_opened(tmp_path, log):
    data = encode(smooth_image(), "PNG")
    (tmp_path / "a.png").write_bytes(data)
    with open(tmp_path / "sparse.png", "wb") as file:
        file.truncate(1 << 40)
    sample = dict(img_path=str(tmp_path / "a.png"))
    assert LoadRGBImage(max_bytes=len(data))(sample) is not None
    assert LoadRGBImage(max_bytes=len(data) - 1)(sample) is None
    assert LoadRGBImage()(dict(img_path=str(tmp_path / "sparse.png"))) is None
    assert f"a.png: {len(data)} bytes, more than the limit of {len(data) - 1}" in log[0].getMessage()
    assert "sparse.png: 1099511627776 bytes, more than the limit of 1000000000" in log[1].getMessage()


@pytest.mark.parametrize("target", ["/proc/kmsg", "/proc/self/status", "/proc/self/environ"])
def test_endless_files_of_proc_are_not_read(tmp_path, log, target):
    """They are regular files of size 0."""
    if not os.path.exists(target):
        pytest.skip(f"no {target}")
    (tmp_path / "a.png").symlink_to(target)
    assert LoadRGBImage()(dict(img_path=str(tmp_path / "a.png"))) is None
    assert re.search("a.png: (an empty file|Operation not permitted|Permission denied)", log[0].getMessage())


def take_away(folder, seconds):
    """Renames a folder for some time."""
    away = folder.rename(folder.with_name("away"))
    threading.Thread(target=lambda: (time.sleep(seconds), away.rename(folder))).start()


@pytest.mark.parametrize("num_workers", [0, 2])
def test_folder_that_is_away_for_a_while_is_waited_for(tmp_path, log, num_workers):
    folder = tmp_path / "images"
    folder.mkdir()
    for index in range(8):
        (folder / f"{index}.png").write_bytes(encode(smooth_image(seed=index), "PNG"))
    dataset = UnlabelledImages(folder, pipeline=[LoadRGBImage()])
    take_away(folder, 1.5)
    found = list(torch.utils.data.DataLoader(dataset, batch_size=None, num_workers=num_workers))
    assert [results["img_path"] for results in found] == [f"{folder}/{index}.png" for index in range(8)]
    if not num_workers:
        first, second = (record.getMessage() for record in log)
        assert first == f"{folder} cannot be read (No such file or directory); waiting up to 60 s for it."
        assert second == f"{folder} can be read again."


def test_folder_that_stays_away_is_waited_for_once(tmp_path, log):
    for name in "ab":
        (tmp_path / name).mkdir()
    (tmp_path / "there.png").write_bytes(encode(smooth_image(), "PNG"))
    load = LoadRGBImage(wait_s=0.05)
    slept = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(waiting.time, "sleep", slept.append)
        patch.setattr(waiting.time, "monotonic", lambda: sum(slept))
        for name in ("c/1.png", "c/2.png", "d/1.png", "there.png", "c/3.png"):
            load(dict(img_path=str(tmp_path / name)))
        assert slept == [0.05]
        load(dict(img_path=str(tmp_path / "d/2.png")))  # after a successful read
        assert slept == [0.05, 0.05]
        slept.clear()
        assert LoadRGBImage()(dict(img_path=str(tmp_path / "e/1.png"))) is None
        assert slept == [1, 2, 4, 8, 16, 29]
    with pytest.raises(ValueError, match=r"wait_s must be >= 0 seconds, got -1; the default is 60"):
        LoadRGBImage(wait_s=-1)


def test_missing_file_of_a_present_folder_is_broken_at_once(tmp_path, log):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(waiting.time, "sleep", lambda _: pytest.fail("waited"))
        assert LoadRGBImage()(dict(img_path=str(tmp_path / "gone.png"))) is None


@pytest.mark.parametrize(
    ("level", "spread", "kind"), [(0, 1, "constant"), (90, 1, "constant"), (0, 15, "nearly black")]
)
def test_first_image_without_content_is_reported(tmp_path, log, level, spread, kind):
    load = LoadRGBImage()
    for name, value in (("bright", 40), ("flat", spread), ("another", spread)):
        image = np.full((32, 40, 3), level, np.uint8)
        image[5:9, 7:20] += value
        cv2.imwrite(str(tmp_path / f"{name}.png"), image)
        assert load(dict(img_path=str(tmp_path / f"{name}.png"))) is not None
    assert [record.getMessage().partition(";")[0] for record in log] == [f"{tmp_path}/flat.png is {kind}"]


def test_invalid_options_are_refused():
    with pytest.raises(ValueError, match=r"value_range must be .*got \(5, 5\)"):
        LoadRGBImage(value_range=(5, 5))
    with pytest.raises(ValueError, match="max_pixels must be a number >= 1, got 0"):
        LoadRGBImage(max_pixels=0)


def test_missing_file_is_reported_and_skipped(tmp_path, log):
    path = tmp_path / "gone.jpg"
    assert LoadRGBImage()(dict(img_path=str(path))) is None
    assert f"Skipped {path}: " in log[0].getMessage()
    assert "No such file" in log[0].getMessage()


def test_broken_or_missing_file_with_a_label_is_an_error(tmp_path, log):
    load = LoadRGBImage(skip_broken=False)
    path = tmp_path / "broken.jpg"
    path.write_bytes(encode(smooth_image(), "JPEG")[:200])
    for problem in ("a JPEG image that is truncated", "No such file"):
        with pytest.raises(
            UnreadableImageError, match=f"^{re.escape(str(path))}: {problem}.*It cannot be skipped here"
        ):
            load(dict(img_path=str(path)))
        path.unlink(missing_ok=True)
    assert not log


def test_files_of_another_backend_are_read(tmp_path):
    """``backend_args`` select a backend of mmengine's file client, here one that has a single file."""
    from mmengine.fileio import BaseStorageBackend, register_backend

    class Names(BaseStorageBackend):
        def get(self, filepath):
            return {"remote": encode(smooth_image(), "PNG")}[filepath]

        def get_text(self, filepath):
            raise NotImplementedError

    register_backend("names_of_test_loading", Names, force=True)
    load = LoadRGBImage(backend_args=dict(backend="names_of_test_loading"))
    np.testing.assert_array_equal(load(dict(img_path="remote"))["img"], smooth_image())
