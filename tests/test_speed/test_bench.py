"""``python -m sspyr_mm bench``, and counts of a step that must not grow."""

import json
from collections import OrderedDict

import pytest
import torch
from instruments.counters import OperatorCounter
from mmengine.config import Config
from mmengine.registry import DefaultScope
from project import ROOT

import sspyr_mm.registration  # noqa: F401
from sspyr_mm.__main__ import main
from sspyr_mm.cli.arguments import check_writable
from sspyr_mm.speed.inputs import PyramidPipeline, collate, make_images
from sspyr_mm.speed.training import Setting, make_step, measure_training

R18 = f"{ROOT}/configs/ssprl/r18_small_50e.py"
POSITIVE = {
    *("worker_ms", "decode_ms", "worker_bytes", "augment_ms", "images_per_s", "step_ms"),
    *("step_images_per_s", "bound_images_per_s", "augment_share", "sinkhorn_share"),
    *("optimizer_share", "recompute_ratio", "num_workers", "num_threads"),
}


def test_figures_of_a_config_and_a_folder(tmp_path, monkeypatch, capsys):
    """As in a new process, where no runner has set the scope of mmengine; one of two images is unreadable."""
    monkeypatch.setattr(DefaultScope, "_instance_dict", OrderedDict())
    path, out, images = tmp_path / "small.py", tmp_path / "new/bench.json", tmp_path / "images"
    images.mkdir()
    make_images(images, 1)
    (images / "empty.jpg").touch()
    path.write_text(
        f'_base_ = "{R18}"\n'
        'optim_wrapper = dict(type="AmpOptimWrapper", accumulative_counts=4, optimizer=dict('
        'type="ForeachLARS", lr=0.6, momentum=0.9, weight_decay=1e-6, _delete_=True))\n'
    )
    options = ["--batch-size", "2", "--images", str(images), "--json", str(out)]
    assert main(["bench", "--quick", "--config", str(path), *options]) == 0
    printed = capsys.readouterr()
    assert f"Skipped 1 unreadable image(s), e.g. {images}/empty.jpg" in printed.err
    found = json.loads(out.read_text())
    assert {key for key in POSITIVE if not found[key] > 0} == set()
    assert (found["config"], found["batch_size"], found["num_images"]) == ("small", 2, 1)
    assert found["versions"]["torch"] and found["device"] in printed.out
    # The paper's views: regions of 2 x 224, 314 and 383 px, three bytes per pixel, and a seed.
    assert found["worker_bytes"] == 3 * (2 * 224**2 + 314**2 + 383**2) + 8
    assert "1,036,919 bytes" in printed.out


@pytest.fixture
def setting(tmp_path):
    paths, cpu = make_images(tmp_path, 2), torch.device("cpu")
    return Setting(Config.fromfile(R18), cpu, batch_size=4, num_workers=0, paths=paths, rounds=1, calls=1)


def test_counts_of_a_step_do_not_grow(setting):
    _, wrapper, step = make_step(setting)
    pipeline = PyramidPipeline(setting.spec)
    batch = collate([pipeline(path) for path in 2 * setting.paths])
    step(batch)  # creates the optimizer's state
    # Step counts of torch's optimizers are on the host.
    on_host = [state["step"] for state in wrapper.optimizer.state.values() if "step" in state]
    with OperatorCounter(on_host=on_host) as counter:
        step(batch)
    assert counter.counts.host_syncs.total() == 0
    assert 1000 < counter.counts.operators.total() < 2600
    assert 20 < counter.counts.allocated / 2**20 < 46


def test_recompute_ratio_is_none_if_the_config_recomputes(setting):
    setting.cfg.model.recompute = "scale"
    setting.batch_size = 2
    found = measure_training(setting)
    assert found["recompute_ratio"] is None and found["peak_memory_gib"] is None
    assert found["step_images_per_s"] == pytest.approx(2e3 / found["step_ms"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--config", "configs/_base_/schedules/adamw.py"], "adamw.py is not a pre-training config (no train_"),
        (["--json", "README.md/x.json"], "--json README.md/x.json can't be written"),
        (["--json", "configs"], "--json configs can't be written"),
    ],
)
def test_wrong_arguments_are_reported_before_anything_is_measured(arguments, message, capsys):
    assert main(["bench", "--quick", *arguments]) == 2
    assert message in capsys.readouterr().err


def test_folder_without_images_is_reported(tmp_path, capsys):
    (tmp_path / "none").mkdir()
    given = ["--images", str(tmp_path / "none"), "--json", str(tmp_path / "new/deep/bench.json")]
    assert main(["bench", "--quick", *given]) == 2
    reported = capsys.readouterr().err
    assert "No image" in reported and "--json" not in reported
    # The check that the result can be written has left no folder.
    assert not (tmp_path / "new").exists()


def test_check_writable_leaves_no_files(tmp_path):
    (tmp_path / "empty").mkdir()
    for path in ("empty/a.json", "new/../empty/a.json", "new/a.json"):
        check_writable("--json", str(tmp_path / path))
    assert [place.name for place in tmp_path.iterdir()] == ["empty"]
    with pytest.raises(OSError, match=r"--json .* can't be written .*too long"):
        check_writable("--json", str(tmp_path / "new" / ("long" * 99) / "a.json"))
    assert [place.name for place in tmp_path.iterdir()] == ["empty"]
