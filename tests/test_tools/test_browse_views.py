"""tools/browse_views.py: the sheet, and the messages about wrong input."""

import runpy
import sys

import cv2
import numpy as np
import pytest
from project import ROOT

from sspyr_mm.__main__ import main

CONFIG = ROOT / "configs/ssprl/r18_small_50e.py"


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    for i in range(3):
        cv2.imwrite(str(folder / f"{i}.png"), rng.integers(0, 256, (70, 90, 3), np.uint8))
    return folder


@pytest.fixture
def browse(monkeypatch):
    def run(*args):
        monkeypatch.setattr(sys, "argv", ["browse_views.py", *map(str, args)])
        runpy.run_path(str(ROOT / "tools/browse_views.py"), run_name="__main__")

    return run


def test_a_sheet_has_a_row_per_image_and_follows_the_seed(browse, images, tmp_path, capsys):
    sheets = []
    for number, options in enumerate(([], [], ["--seed", 1])):
        out = tmp_path / f"new/{number}.png"
        browse(CONFIG, "--data-root", images, "--num-images", 2, "--out", out, *options)
        assert f"{out}: 2 images" in capsys.readouterr().out
        sheets.append(cv2.imread(str(out)))
    assert np.array_equal(sheets[0], sheets[1])
    assert sheets[0].shape == sheets[2].shape and not np.array_equal(sheets[0], sheets[2])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--out", "views.txt"], "--out must be an image file such as views.png or views.jpg, got 'views.txt'"),
        (["--out", "views"], "--out must be an image file such as views.png or views.jpg, got 'views'"),
        (["--num-images", "0"], "--num-images: must be an integer >= 1, got '0'"),
        (["--data-root", "/no/such/folder"], "--data-root: '/no/such/folder' does not exist"),
        (["--data-root", ROOT / "requirements"], "No images in "),
        ([], "data_root data/coco/nowhere does not exist: give an existing folder"),
    ],
)  # fmt: skip
def test_wrong_input_ends_with_a_message(browse, tmp_path, monkeypatch, capsys, options, message):
    monkeypatch.chdir(tmp_path)
    at = "train_dataloader.dataset.data_root=data/coco/nowhere"
    with pytest.raises(SystemExit, match=r"^2$"):
        browse(CONFIG, *options, "--cfg-options", at)
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_missing_config_is_reported(browse, capsys):
    with pytest.raises(SystemExit, match=r"^2$"):
        browse("/no/config.py")
    assert "/no/config.py" in capsys.readouterr().err


def test_packed_shards_are_rejected(browse, images, tmp_path, capsys):
    assert main(["pack", str(images), str(tmp_path / "shards"), "--num-workers", "1"]) == 0
    with pytest.raises(SystemExit) as stopped:
        browse(CONFIG, "--data-root", tmp_path / "shards", "--out", tmp_path / "views.png")
    assert stopped.value.code == 2
    assert "shards holds packed shards: set --data-root to the folder of images" in capsys.readouterr().err
    assert not (tmp_path / "views.png").exists()
