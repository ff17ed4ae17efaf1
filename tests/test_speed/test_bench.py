"""`python -m sspyr_mm bench`, for real, and what must not grow: counts, not seconds."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from sspyr_mm.__main__ import main
from sspyr_mm.cli.arguments import check_writable
from sspyr_mm.speed.images import make_images

ROOT = Path(__file__).parents[2]

KEYS = {
    *("worker_ms", "worker_ratio_vs_pil", "augment_ratio_vs_pil", "collectives_per_step"),
    *("host_syncs_per_step", "optimizer_share", "sinkhorn_share", "images_per_s"),
    *("bound_images_per_s", "release_images_per_s", "device", "versions"),
    *("files_images_per_s", "shards_images_per_s", "mmpretrain_images_per_s", "recompute_ratio"),
}


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    path = tmp_path_factory.mktemp("bench") / "bench.json"
    assert main(["bench", "--quick", "--batch-size", "4", "--json", str(path)]) == 0
    return json.loads(path.read_text())


def test_figures_are_there(found, capsys):
    assert found.keys() >= KEYS
    for key in KEYS - {"device", "versions", "host_syncs_per_step"}:
        assert found[key] > 0, key
    assert found["versions"]["torch"] and found["device"]
    assert (
        found["pixels"] == 2 * 64**2 + 2 * 4 * 40**2
        and found["swav_pixels"] == 2 * 64**2 + 6 * 27**2
    )
    assert found["config"] == "r18_small_50e" and found["batch_size"] == 4


def test_what_must_not_grow(found):
    assert found["host_syncs_per_step"] == 0
    assert found["collectives_per_step"] == 3  # one an iteration of Sinkhorn, whatever the scales
    # Two views of 60 and 60 prototypes, float64, three times.
    assert found["collective_bytes_per_step"] == 3 * 2 * (60 + 60) * 8
    # The paper's views: regions of 2 x 224, 314 and 383 px, three bytes a pixel, and a seed.
    assert found["worker_bytes"] == 3 * (2 * 224**2 + 314**2 + 383**2) + 8 <= 1.2e6
    assert found["operators_per_step"] < 2600
    assert found["allocated_mib_per_step"] < 260


def test_the_papers_optimiser_and_bfloat16_in_a_process_of_their_own(tmp_path):
    """Where no runner has set mmengine's scope, as on a command line; two images, one of which is none."""
    path, out, images = tmp_path / "small.py", tmp_path / "new/bench.json", tmp_path / "images"
    images.mkdir()
    make_images(images, 1)
    (images / "empty.jpg").touch()
    path.write_text(
        f'_base_ = "{ROOT}/configs/ssprl/r18_small_50e.py"\n'
        'optim_wrapper = dict(type="AutocastOptimWrapper", accumulative_counts=4, optimizer=dict('
        'type="ForeachLARS", lr=0.6, momentum=0.9, weight_decay=1e-6, _delete_=True))\n'
        'model = dict(recompute="scale")\n'
    )
    command = [sys.executable, "-m", "sspyr_mm", "bench", "--quick", "--config", str(path)]
    options = ["--batch-size", "2", "--images", str(images), "--json", str(out)]
    done = subprocess.run([*command, *options], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert f"Passed over 1 unreadable image(s), e.g. {images}/empty.jpg" in done.stderr
    found = json.loads(out.read_text())
    assert found["host_syncs_per_step"] == 0 and found["recompute_ratio"] is None
    assert found["release_images_per_s"] > 0 and found["mmpretrain_images_per_s"] > 0
    assert found["optimizer_share"] > 0 and found["num_images"] == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--config", "configs/_base_/schedules/adamw.py"],
            "adamw.py is no pre-training config (no train_",
        ),
        (["--json", "README.md/x.json"], "--json README.md/x.json can't be written"),
        (["--json", "configs"], "--json configs can't be written"),
    ],
)
def test_wrong_arguments_are_told_before_anything_is_measured(arguments, message, capsys):
    assert main(["bench", "--quick", *arguments]) == 2
    assert message in capsys.readouterr().err


def test_images_that_are_not_there(tmp_path, capsys):
    (tmp_path / "none").mkdir()
    given = ["--images", str(tmp_path / "none"), "--json", str(tmp_path / "new/deep/bench.json")]
    assert main(["bench", "--quick", *given]) == 2
    said = capsys.readouterr().err
    assert "No image" in said and "--json" not in said
    # Where it would have been written was tried, and left as it was.
    assert not (tmp_path / "new").exists()


def test_where_a_result_is_to_be_written_is_left_as_it_was(tmp_path):
    (tmp_path / "empty").mkdir()
    for path in ("empty/a.json", "new/../empty/a.json", "new/a.json"):
        check_writable("--json", str(tmp_path / path))
    assert [place.name for place in tmp_path.iterdir()] == ["empty"]
    with pytest.raises(OSError, match=r"--json .* can't be written .*too long"):
        check_writable("--json", str(tmp_path / "new" / ("long" * 99) / "a.json"))
    assert [place.name for place in tmp_path.iterdir()] == ["empty"]
