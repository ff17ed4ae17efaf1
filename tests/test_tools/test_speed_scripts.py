"""Scripts that measure precision, growth and decoding."""

import json
import math
import subprocess
import sys

import pytest
from PIL import Image
from speed_scripts import FOLDER, decoding, growth, loss_curves

from sspyr_mm.speed.inputs import make_images

SCRIPTS = {"decoding": decoding, "growth": growth, "loss_curves": loss_curves}


def run(name, *arguments):
    command = [sys.executable, str(FOLDER / f"{name}.py"), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=900)


def test_setting_passes_within_the_distance_of_two_seeds():
    seeds = [[3.0, 2.0, 1.0], [3.0, 2.5, 1.5], [3.0, 1.5, 0.5]]
    settings = {
        "same": [3.0, 2.0, 1.0],
        "as far": [3.0, 3.0, 2.0],
        "farther": [3.0, 3.0, 2.1],
        "diverged": [3.0, math.nan, math.nan],
    }
    found = loss_curves.compare(seeds, settings)
    assert found["seeds_apart"] == pytest.approx([1 / 3, 1 / 3, 2 / 3])
    assert found["settings_from_first_seed"]["same"] == 0
    assert found["passed"] == {"same": True, "as far": True, "farther": False, "diverged": False}


def test_a_setting_adds_its_options_to_the_first_seed(tmp_path, monkeypatch):
    asked = ["--data-root", "D", "--out", str(tmp_path), "--seeds", "4", "7"]
    monkeypatch.setattr(sys, "argv", ["loss_curves", *asked])
    runs = {run.name: run.options for run in loss_curves.list_runs(loss_curves.parse_args())}
    assert set(runs) >= {"seed 4", "seed 7", *loss_curves.SETTINGS}
    for name, options in loss_curves.SETTINGS.items():
        assert runs[name] == runs["seed 4"] + options


@pytest.fixture
def refuse(monkeypatch, capsys):
    """Returns what a script reports about wrong arguments before it measures anything."""

    def refuse(name, *arguments):
        monkeypatch.setattr(sys, "argv", [name, *map(str, arguments)])
        with pytest.raises(SystemExit) as stopped:
            SCRIPTS[name].main()
        assert stopped.value.code == 2
        return capsys.readouterr().err

    return refuse


@pytest.mark.parametrize(("name", "data"), [("loss_curves", "--data-root"), ("decoding", "--images"), ("growth", None)])
def test_unwritable_output_is_rejected(name, data, tmp_path, refuse):
    (tmp_path / "file").touch()
    reported = refuse(name, *([data, tmp_path] if data else []), "--out", tmp_path / "file")
    assert f"--out {tmp_path}/file/{name}.json can't be written" in reported


@pytest.mark.parametrize(("name", "data"), [("loss_curves", "--data-root"), ("growth", None)])
def test_missing_config_is_rejected(name, data, tmp_path, refuse):
    given = [data, tmp_path] if data else []
    reported = refuse(name, *given, "--out", tmp_path / "new", "--config", "nothing.py")
    assert "--config nothing.py: no such file" in reported
    assert not (tmp_path / "new").exists()


def test_equal_seeds_are_rejected(tmp_path, refuse):
    given = ("--data-root", tmp_path, "--out", tmp_path / "new", "--seeds", 0, 0)
    assert "at least two different seeds" in refuse("loss_curves", *given)
    assert not (tmp_path / "new").exists()


@pytest.mark.slow
def test_loss_curves(tmp_path):
    images, out = tmp_path / "images", tmp_path / "out"
    images.mkdir()
    make_images(images, 16)
    asked = ("--data-root", images, "--out", out, "--seeds", 0, 1, "--settings", "channels_last")
    options = ("--cfg-options", "train_cfg.max_epochs=2", "train_dataloader.batch_size=8")
    done = run("loss_curves", *asked, *options)
    found = json.loads((out / "loss_curves.json").read_text())
    assert done.returncode == (0 if all(found["passed"].values()) else 1), done.stderr
    assert {name: len(curve) for name, curve in found["curves"].items()} == {
        "seed 0": 2,
        "seed 1": 2,
        "channels_last": 2,
    }
    assert found["steps"] == [2, 4]  # two epochs of two
    assert found["curves"]["seed 0"] != found["curves"]["seed 1"]
    # The same weights to begin with, and the same arithmetic in another order, whose rounding grows from step to step.
    first, last = (
        pytest.approx(loss, rel=rel) for loss, rel in zip(found["curves"]["seed 0"], (1e-5, 1e-3), strict=True)
    )
    assert found["curves"]["channels_last"] == [first, last]
    assert "<svg" in (out / "loss_curves.svg").read_text()
    config = next((out / "runs/channels_last").glob("*/vis_data/config.py")).read_text()
    assert "channels_last=True" in config
    # What is done is kept; what was done otherwise is not.
    times = {path: path.stat().st_mtime_ns for path in out.glob("runs/*/done.json")}
    assert run("loss_curves", *asked, *options).returncode == done.returncode
    assert {path: path.stat().st_mtime_ns for path in out.glob("runs/*/done.json")} == times
    wrong = run("loss_curves", *asked, *options, "model.head.epsilom=1")
    assert wrong.returncode == 1 and "seed 0 ended with status" in wrong.stderr


@pytest.mark.slow
def test_growth(tmp_path):
    done = run(*("growth", "--out", tmp_path, "--rounds", 1, "--batch-size", 2, "--prototypes", 40))
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "growth.json").read_text())
    sizes = {name: panel["at"] for name, panel in found["grown"].items()}
    assert sizes["images per step"] == [1, 2, 4, 6, 8]
    assert sizes["global prototypes"] == [10, 20, 30, 40]
    pixels = sizes["thousand pixels per image, S = 0 to 4"]
    assert pixels[0] == pytest.approx(2 * 0.224**2 * 1e3)
    assert pixels[2] - pixels[1] == pytest.approx(2 * 9 * 0.096**2 * 1e3)
    assert all(ms > 0 for panel in found["grown"].values() for ms in panel["ms"])
    assert "<svg" in (tmp_path / "growth.svg").read_text()
    assert done.stdout.count("off the line at most") == 3


def test_decoders_and_resizing(tmp_path, monkeypatch):
    make_images(tmp_path, 2)
    asked = ["--images", str(tmp_path), "--out", str(tmp_path / "out"), "--megapixels", "3"]
    monkeypatch.setattr(sys, "argv", ["decoding", *asked])
    monkeypatch.setattr(decoding, "WINDOWS", 2)
    decoding.main()
    found = json.loads((tmp_path / "out/decoding.json").read_text())
    assert found["images"] == 2
    for name in ("opencv", "pillow", "torchvision"):
        assert found["decoders"][name]["same_pixels"] == 1, name
    assert all(row["ms"] > 0 for row in found["decoders"].values())
    (reduced,) = found["reduced"]
    assert reduced["size"] == [2000, 1504] and reduced["reduction"] == 2
    # Of the same windows: another place, or red for blue, would be far below any filter.
    for name in ("mean_area", "least_area"):
        assert reduced[f"{name}_psnr"] > reduced[f"{name}_pillow_psnr"] - 3 > 25, name
    assert len(found["resizing"]) == len(decoding.SHRINKING)
    for factor, row in found["resizing"].items():
        assert row["psnr"] > row["pillow_psnr"] - 0.5, factor


def test_decoders_need_a_photograph(tmp_path, refuse):
    Image.new("L", (400, 400)).save(tmp_path / "grey.jpg")
    Image.new("RGB", (400, 400)).save(tmp_path / "colour.png")
    Image.new("RGB", (400, 9)).save(tmp_path / "narrow.jpg")
    reported = refuse("decoding", "--images", tmp_path, "--out", tmp_path / "out")
    assert "no upright colour JPEG" in reported
    assert not (tmp_path / "out").exists()
