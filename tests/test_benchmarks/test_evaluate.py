"""`evaluate` from files to figures, in real processes."""

import json
import math
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from sklearn.metrics import average_precision_score

from sspyr_mm.__main__ import main
from sspyr_mm.benchmarks import evaluate as evaluation
from sspyr_mm.benchmarks.data import BenchmarkData, coco_sources, load_data, voc07_sources
from sspyr_mm.benchmarks.evaluate import Settings, evaluate
from sspyr_mm.benchmarks.linear import choose_rate
from sspyr_mm.benchmarks.networks import read_networks
from sspyr_mm.evaluation.linear_grid import LinearRecipe

QUICK = Settings(size=32, epochs=4)


@pytest.fixture(scope="module")
def data(scenes):
    return load_data(*coco_sources(str(scenes)))


@pytest.fixture(scope="module")
def networks(checkpoint):
    return read_networks([checkpoint], random=True)


def run(network, protocol, data, work_dir, settings=QUICK, seed=0):
    return evaluate(network, protocol, data, seed=seed, work_dir=str(work_dir), settings=settings)


def test_linear_writes_a_complete_result_once(networks, data, tmp_path, monkeypatch):
    result = run(networks[0], "linear", data, tmp_path)
    assert data.name == "coco17" and result.counts == {"train": 40, "test": 24, "classes": 12}
    assert 0 < result.value <= 100 and not result.as_published
    assert result.checkpoint["sha256"] == networks[0].checkpoint.sha256
    per_class = [v for v in result.beside["AP_per_class"].values() if v is not None]
    assert result.value == pytest.approx(sum(per_class) / len(per_class))
    assert result.beside["best_epoch_on_test"]["mAP"] >= result.value - 1e-9
    assert set(result.beside["held_out_mAP"]) == {str(r) for r in LinearRecipe().learning_rates}
    monkeypatch.setattr(evaluation, "_linear", None)  # nothing may be measured again
    assert run(networks[0], "linear", data, tmp_path) == result


def test_results_tell_apart_what_differs(networks, data, tmp_path):
    one = run(networks[0], "linear", data, tmp_path)
    random = run(networks[1], "linear", data, tmp_path)
    other_seed = run(networks[0], "linear", data, tmp_path, seed=1)
    longer = run(networks[0], "linear", data, tmp_path, replace(QUICK, epochs=60))
    assert len({one.value, random.value, other_seed.value, longer.value}) == 4
    assert len(list(tmp_path.glob("result-*.json"))) == 4
    assert random.network == "random" and random.checkpoint["path"] is None


def test_the_figure_is_scikit_learns(networks, data, tmp_path, monkeypatch):
    kept = {}
    original = evaluation.run_linear

    def keep(*args, **kwargs):
        kept["scores"], beside = original(*args, **kwargs)
        return kept["scores"], beside

    monkeypatch.setattr(evaluation, "run_linear", keep)
    result = run(networks[0], "linear", data, tmp_path)
    truth = data.test.targets
    assert (truth >= 0).all()
    shown = truth.sum(0) > 0
    expected = average_precision_score(truth[:, shown], kept["scores"].numpy()[:, shown])
    assert result.value == pytest.approx(100 * expected, abs=1e-7)


def test_the_rate_is_chosen_without_the_test_images(networks, data, tmp_path):
    result = run(networks[0], "linear", data, tmp_path)
    swapped = BenchmarkData(
        data.name,
        data.train_source,
        data.test_source,
        data.train,
        replace(data.test, targets=1 - data.test.targets),
    )
    other = run(networks[0], "linear", swapped, tmp_path)
    assert other.beside["held_out_mAP"] == result.beside["held_out_mAP"]
    assert other.beside["learning_rate"] == result.beside["learning_rate"]
    assert other.value != result.value


def test_too_few_images_and_rates_that_diverge():
    features, targets = torch.rand(3, 2), torch.ones(3, 1)
    with pytest.raises(ValueError, match="3 training images are too few"):
        choose_rate(features, targets, LinearRecipe(), seed=0)
    only = choose_rate(features, targets, LinearRecipe(learning_rates=(0.1,)), seed=0)
    assert list(only) == [0.1]
    features, targets = 1e30 * torch.rand(10, 2), torch.randint(0, 2, (10, 1))
    recipe = LinearRecipe(epochs=4, learning_rates=(1.0, 3.0))
    assert all(math.isnan(v) for v in choose_rate(features, targets, recipe, seed=0).values())


def test_data_are_found_or_the_message_says_where(scenes, tmp_path):
    train, test = voc07_sources(str(scenes))
    assert (train.split, test.split) == ("trainval", "test")
    assert load_data("voc07", train, test).counts["classes"] == 12
    with pytest.raises(FileNotFoundError, match=r"No VOC2007 in .*prepare_voc07\.py"):
        voc07_sources(str(tmp_path))
    with pytest.raises(FileNotFoundError, match=r"No COCO in .*prepare_coco\.py"):
        coco_sources(str(tmp_path))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "No data: give --voc DIR"),
        (["--train", "x"], "--train and --test belong together"),
        (["--voc", "/none"], "No VOC2007 in /none"),
    ],
)
def test_command_says_what_is_wrong(checkpoint, options, message, capsys):
    assert main(["evaluate", checkpoint, *options]) == 2
    assert message in capsys.readouterr().err


def test_another_architectures_checkpoint_is_refused(scenes, tmp_path, capsys):
    torch.save({"conv1.weight": torch.zeros(8, 3, 7, 7)}, tmp_path / "part.pth")
    arguments = ["evaluate", str(tmp_path / "part.pth"), "--coco", str(scenes)]
    assert main(arguments) == 2
    assert "part.pth" in capsys.readouterr().err


def command(checkpoint, scenes, work_dir, *more):
    options = ["--coco", str(scenes), "--work-dir", str(work_dir), "--size", "32", *more]
    return [sys.executable, "-m", "sspyr_mm", "evaluate", checkpoint, *options]


def figure(work_dir):
    (file,) = Path(work_dir).glob("result-*.json")
    return json.loads(file.read_text())["value"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "sign"),
    [
        (["--protocol", "linear", "--epochs", "2000"], "features/*/000000.npy"),
        (["--protocol", "asl", "--epochs", "6"], "asl-*/final/epoch_2.pth"),
    ],
    ids=["linear", "asl"],
)
def test_killed_and_started_again_it_ends_with_the_same_figure(
    checkpoint, scenes, tmp_path, options, sign
):
    whole = command(checkpoint, scenes, tmp_path / "whole", *options)
    subprocess.run(whole, check=True, capture_output=True)
    broken = command(checkpoint, scenes, tmp_path / "broken", *options)
    process = subprocess.Popen(broken, start_new_session=True)
    deadline = time.monotonic() + 300
    while not list((tmp_path / "broken").glob(sign)):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert not list((tmp_path / "broken").glob("result-*.json"))
    subprocess.run(broken, check=True, capture_output=True)
    assert figure(tmp_path / "broken") == figure(tmp_path / "whole")
