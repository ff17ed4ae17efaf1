"""`evaluate` from files to figures, in real processes."""

import fcntl
import hashlib
import importlib
import json
import math
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from mmengine.config import Config
from mmpretrain.models import ResNet
from sklearn.metrics import average_precision_score

from sspyr_mm.__main__ import main
from sspyr_mm.benchmarks.base_protocol import Job, Settings
from sspyr_mm.benchmarks.classification import finetune, linear
from sspyr_mm.benchmarks.classification.linear import choose_rate
from sspyr_mm.benchmarks.classification.linear_grid import LinearRecipe
from sspyr_mm.benchmarks.classification.multi_label_data import BenchmarkData, coco_sources, load_data, voc07_sources
from sspyr_mm.benchmarks.evaluate import evaluate, evaluate_all
from sspyr_mm.benchmarks.networks import read_networks
from sspyr_mm.benchmarks.protocols import Linear, find_protocol
from sspyr_mm.benchmarks.results.table import make_rows
from sspyr_mm.benchmarks.training import process as training
from sspyr_mm.checkpoints import Selection
from sspyr_mm.datasets.splits import read_split
from sspyr_mm.datasets.toy_scenes import generate

QUICK = Settings(size=32, epochs=4)


@pytest.fixture(scope="module")
def data(scenes):
    return load_data(*coco_sources(str(scenes)))


@pytest.fixture(scope="module")
def networks(checkpoint):
    return read_networks([checkpoint], random=True)


def run(network, protocol, data, work_dir, settings=QUICK, seed=0):
    options = dict(seed=seed, work_dir=str(work_dir), settings=settings)
    return evaluate(network, find_protocol(protocol), data, **options)


def test_linear_writes_a_complete_result_once(networks, data, tmp_path, monkeypatch):
    result = run(networks[0], "linear", data, tmp_path)
    assert data.name == "coco17" and result.counts == {"train": 40, "test": 24, "classes": 12}
    assert 0 < result.value <= 100 and not result.as_published
    assert result.checkpoint["sha256"] == networks[0].checkpoint.sha256
    per_class = [v for v in result.further["AP_per_class"].values() if v is not None]
    assert result.value == pytest.approx(sum(per_class) / len(per_class))
    assert result.further["best_epoch_on_test"]["mAP"] >= result.value - 1e-9
    assert set(result.further["held_out_mAP"]) == {str(r) for r in LinearRecipe().learning_rates}
    monkeypatch.setattr(Linear, "run", None)  # nothing may be measured again
    assert run(networks[0], "linear", data, tmp_path) == result


def test_a_damaged_result_is_measured_again(networks, data, tmp_path, capsys):
    result = run(networks[0], "linear", data, tmp_path)
    (file,) = tmp_path.glob("result-*.json")
    content = file.read_text()
    file.write_text(content[:100])
    assert run(networks[0], "linear", data, tmp_path) == result
    assert file.read_text() == content
    assert f"Measured again: {file} is not a result" in capsys.readouterr().err
    file.write_text(content.replace('"seed": 0', '"seed": 1'))  # another's, under this name
    assert run(networks[0], "linear", data, tmp_path) == result
    assert file.read_text() == content


def test_results_tell_apart_what_differs(networks, data, tmp_path):
    one = run(networks[0], "linear", data, tmp_path)
    random = run(networks[1], "linear", data, tmp_path)
    other_seed = run(networks[0], "linear", data, tmp_path, seed=1)
    longer = run(networks[0], "linear", data, tmp_path, replace(QUICK, epochs=60))
    assert len({one.value, random.value, other_seed.value, longer.value}) == 4
    assert len(list(tmp_path.glob("result-*.json"))) == 4
    assert random.network == "random" and random.checkpoint["path"] is None


def test_networks_of_one_file_have_results_of_their_own(data, tmp_path):
    state = {}
    for seed, prefix in enumerate(("one.", "two.")):
        torch.manual_seed(seed)
        model = ResNet(18, stem_channels=8, base_channels=8)
        state |= {prefix + name: value.clone() for name, value in model.state_dict().items()}
    file = tmp_path / "two.pth"
    torch.save({"state_dict": state}, file)
    results = []
    for prefix in ("one.", "two."):
        (network,) = read_networks([str(file)], select=Selection(prefix=prefix))
        results.append(run(network, "linear", data, tmp_path / "work"))
    assert results[0].value != results[1].value
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    assert [result.checkpoint["sha256"] for result in results] == [digest, digest]
    rows = make_rows(results, published=False)
    assert [row.values for row in rows] == [(result.value,) for result in results]
    assert "prefix one." in rows[0].note and "prefix two." in rows[1].note


def test_the_figure_is_scikit_learns(networks, data, tmp_path, monkeypatch):
    kept = {}
    original = linear.run_linear

    def keep(*args, **kwargs):
        kept["scores"], further = original(*args, **kwargs)
        return kept["scores"], further

    monkeypatch.setattr(linear, "run_linear", keep)
    result = run(networks[0], "linear", data, tmp_path)
    truth = data.test.targets
    assert (truth >= 0).all()
    shown = truth.sum(0) > 0
    expected = average_precision_score(truth[:, shown], kept["scores"].numpy()[:, shown])
    assert result.value == pytest.approx(100 * expected, abs=1e-7)


def test_the_rate_is_chosen_without_the_test_images(networks, data, tmp_path):
    result = run(networks[0], "linear", data, tmp_path)
    swapped = BenchmarkData(
        data.name, data.train_source, data.test_source, data.train, replace(data.test, targets=1 - data.test.targets)
    )
    other = run(networks[0], "linear", swapped, tmp_path)
    assert other.further["held_out_mAP"] == result.further["held_out_mAP"]
    assert other.further["learning_rate"] == result.further["learning_rate"]
    assert other.value != result.value


def test_too_few_images_and_rates_that_diverge():
    features, targets = torch.rand(3, 2), torch.ones(3, 1)
    with pytest.raises(ValueError, match="3 training images are too few"):
        choose_rate(features, targets, LinearRecipe(), seed=0)
    features, targets = 1e30 * torch.rand(10, 2), torch.randint(0, 2, (10, 1))
    recipe = LinearRecipe(epochs=4, learning_rates=(1.0, 3.0))
    assert all(math.isnan(v) for v in choose_rate(features, targets, recipe, seed=0).values())


def test_a_grid_of_another_protocol_is_refused_before_any_work(networks, data, tmp_path):
    runs = [(find_protocol(name), data) for name in ("linear", "asl")]
    settings = replace(QUICK, learning_rates=(0.1,))
    with pytest.raises(ValueError, match="--learning-rates is for linear, not for asl"):
        next(evaluate_all(networks, runs, [0], work_dir=str(tmp_path), settings=settings))
    assert not list(tmp_path.iterdir())


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
        (["--voc", ".", "--train-images", "."], "--train-images belongs to --train and --test"),
        (["--voc", ".", "--custom-import", "no.such"], "--custom-import no.such: ModuleNotFound"),
        (["--train", "x"], "--train and --test belong together"),
        (["--voc", "/none"], "No VOC2007 in /none"),
    ],
)
def test_command_says_what_is_wrong(checkpoint, options, message, capsys):
    assert main(["evaluate", checkpoint, *options]) == 2
    assert message in capsys.readouterr().err


OWN_BACKBONE = """
from mmpretrain.models.backbones.base_backbone import BaseBackbone
from mmpretrain.registry import MODELS
from torch import nn

class OwnNet(BaseBackbone):
    def __init__(self, width=8, init_cfg=None):
        super().__init__(init_cfg)
        self.conv = nn.Conv2d(3, width, 7, 4)

    def forward(self, x):
        return (self.conv(x),)
"""


def test_a_backbone_of_ones_own_in_its_own_module(scenes, tmp_path, monkeypatch, capsys):
    """Also in the process that fine-tunes; a folder's name is no template, whatever is in it."""
    (tmp_path / "own_backbones.py").write_text(OWN_BACKBONE)
    (tmp_path / "registered_elsewhere.py").write_text(
        "import own_backbones\nfrom mmpretrain.registry import MODELS\n"
        "MODELS.register_module(module=own_backbones.OwnNet)\n"
    )
    state = {"conv.weight": torch.randn(8, 3, 7, 7) / 10, "conv.bias": torch.zeros(8)}
    torch.save({"state_dict": state, "meta": {"backbone": {"type": "OwnNet"}}}, tmp_path / "o.pth")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    work_dir = tmp_path / "{{ fileDirname }}"
    line = command(str(tmp_path / "o.pth"), scenes, work_dir, "--epochs", "1")
    line += ["--protocol", "linear", "asl"]
    done = subprocess.run(line, capture_output=True, text=True)
    assert done.returncode == 2 and "OwnNet: import your module with --custom-import" in done.stderr
    line += ["--custom-import", "registered_elsewhere"]
    done = subprocess.run(line, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    results = [json.loads(file.read_text()) for file in work_dir.glob("result-*.json")]
    assert sorted(result["protocol"] for result in results) == ["asl", "linear"]
    settings = next(r for r in results if r["protocol"] == "asl")["settings"]
    assert settings["epochs"] == 1 and settings["size"] == 32 and settings["batch"] == 128
    assert settings["optimizer"] == {"type": "Adam", "lr": 2e-4, "weight_decay": 1e-4}


def test_other_code_is_another_network(data, tmp_path, monkeypatch):
    """And a plain module is measured, but not fine-tuned."""
    module = tmp_path / "plain_backbone.py"
    code = OWN_BACKBONE.replace("BaseBackbone)", "nn.Module)").replace("__init__(init_cfg)", "__init__()")
    module.write_text(code + "\nMODELS.register_module(name='PlainNet', module=OwnNet)\n")
    monkeypatch.syspath_prepend(tmp_path)
    importlib.import_module("plain_backbone")
    state = {"conv.weight": torch.randn(8, 3, 7, 7) / 10, "conv.bias": torch.zeros(8)}
    path = tmp_path / "plain.pth"
    torch.save({"state_dict": state, "meta": {"backbone": {"type": "PlainNet"}}}, path)
    networks = read_networks([str(path)], random=True, custom_imports=["plain_backbone"])
    first = run(networks[0], "linear", data, tmp_path)
    run(networks[1], "linear", data, tmp_path)
    assert first.checkpoint["code"].keys() == {"plain_backbone"}
    with pytest.raises(ValueError, match="OwnNet can't be fine-tuned: it must be a BaseModule"):
        run(networks[0], "asl", data, tmp_path)
    module.write_text(module.read_text() + "# another version\n")
    second = run(networks[0], "linear", data, tmp_path)
    assert second.checkpoint["code"] != first.checkpoint["code"]
    assert len(list(tmp_path.glob("result-*.json"))) == 3
    assert len(list((tmp_path / "features").iterdir())) == 6  # train and test each


def test_protocols_nobody_asked_for_are_left_out_where_images_are_few(checkpoint, tmp_path, capsys):
    generate(str(tmp_path / "few"), num_train=5, num_val=4, size=64)
    line = ["evaluate", checkpoint, "--coco", str(tmp_path / "few"), "--work-dir", str(tmp_path)]
    line += ["--size", "32", "--epochs", "1"]
    assert main([*line, "--protocol", "linear", "semi1"]) == 2
    assert "1 % of 5 training images is 0, too few" in capsys.readouterr().err
    assert not list(tmp_path.glob("result-*")) and not list(tmp_path.glob("features"))
    measured = []
    with pytest.MonkeyPatch.context() as patch:

        def measure(network, protocol, data, **options):
            measured.append(protocol.name)
            return SimpleNamespace(line="")

        patch.setattr("sspyr_mm.benchmarks.evaluate.evaluate", measure)
        patch.setattr("sspyr_mm.cli.evaluate._draw_predictions", lambda results, work_dir: None)
        patch.setattr("sspyr_mm.benchmarks.results.table.make_rows", lambda results: [])
        assert main(line) == 0
    assert measured == ["linear", "semi100", "asl"]
    shown = capsys.readouterr().err
    assert "coco17 semi1 is skipped: 1 % of 5" in shown and "coco17 semi10 is skipped" in shown


def test_images_that_choose_the_rates_must_show_something(data):
    empty = replace(data.train, targets=0 * data.train.targets)
    nothing = replace(data, train=empty)
    with pytest.raises(ValueError, match=r"The 8 of 40 training images that choose .* no class"):
        find_protocol("semi100").check_data(nothing, 0)


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"multi-label/mAP": null}'])
def test_damaged_metrics_are_measured_again(content, tmp_path, monkeypatch, capsys):
    metrics = tmp_path / "metrics.json"
    metrics.write_text(content)
    written = '{"multi-label/mAP": 5.0}'
    monkeypatch.setattr(training, "_train", lambda *_: metrics.write_text(written))
    cfg = Config(dict(work_dir=str(tmp_path)))
    assert training.run_config(cfg, 1) == {"multi-label/mAP": 5.0}
    assert f"{metrics} is damaged" in capsys.readouterr().err


def test_a_worker_that_was_told_to_end_is_no_failure(tmp_path):
    ended = [sys.executable, "-c", "import os, signal; os.kill(os.getpid(), signal.SIGTERM)"]
    with open(tmp_path / "lock", "w") as lock, pytest.raises(KeyboardInterrupt):
        training._train(tmp_path, ended, lock.fileno())


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
    ("options", "sign", "whole_group"),
    [
        (["--protocol", "linear", "--epochs", "2000"], "features/*/000000.npy", True),
        (["--protocol", "asl", "--epochs", "6"], "asl-*/final/epoch_2.pth", True),
        (["--protocol", "asl", "--epochs", "40"], "asl-*/final/epoch_2.pth", False),
    ],
    ids=["linear", "asl", "asl, the command alone"],
)
def test_killed_and_started_again_it_ends_with_the_same_figure(
    checkpoint, scenes, tmp_path, options, sign, whole_group
):
    whole = command(checkpoint, scenes, tmp_path / "whole", *options)
    subprocess.run(whole, check=True, capture_output=True)
    broken = command(checkpoint, scenes, tmp_path / "broken", *options)
    process = subprocess.Popen(broken, start_new_session=True)
    deadline = time.monotonic() + 300
    while not list((tmp_path / "broken").glob(sign)):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    if whole_group:
        os.killpg(process.pid, signal.SIGKILL)
    else:
        process.kill()
        (lock,) = (tmp_path / "broken").glob("asl-*/final/lock")
        with lock.open() as file:  # which the process that trains gives free
            fcntl.flock(file, fcntl.LOCK_EX)
        assert not lock.with_name("metrics.json").exists()
    process.wait()
    assert not list((tmp_path / "broken").glob("result-*.json"))
    subprocess.run(broken, check=True, capture_output=True)
    assert figure(tmp_path / "broken") == figure(tmp_path / "whole")


def test_two_runs_in_one_folder_are_refused(networks, data, tmp_path, monkeypatch):
    monkeypatch.setattr(training, "_ORPHANS", 0.3)

    def meanwhile(folder, command, lock):
        message = rf"Another run \(process {os.getpid()} on .*\) is training in .*final"
        with pytest.raises(ValueError, match=message):
            training.run_config(Config(dict(work_dir=str(folder))), 1)
        (folder / "metrics.json").write_text('{"multi-label/mAP": NaN}')

    monkeypatch.setattr(training, "_train", meanwhile)
    with pytest.raises(ValueError, match="Training diverged on all of the images"):
        run(networks[0], "asl", data, tmp_path)


def test_pairs_of_rates_that_diverge_are_left_out(networks, data, tmp_path, monkeypatch):
    asked = []

    def pretend(cfg, num_processes):
        asked.append((cfg.optim_wrapper.optimizer.lr, Path(cfg.work_dir).name))
        if cfg.optim_wrapper.optimizer.lr == 0.1:
            return {"multi-label/mAP": math.nan}
        figures = {f"multi-label/AP_{name}": 50.0 for name in data.test.classes}
        return {"multi-label/mAP": 10.0 + cfg.optim_wrapper.optimizer.lr, **figures}

    monkeypatch.setattr(finetune, "run_config", pretend)
    result = run(networks[0], "semi100", data, tmp_path)
    assert len(asked) == 10 and asked[-1] == (0.01, "final")
    assert result.further["head_rate"] == 0.01
    assert result.settings["optimizer"] == {"type": "SGD", "momentum": 0.9, "weight_decay": 1e-4}
    assert list(result.further["held_out_mAP"].values()).count(None) == 3
    held, kept = (set(read_split(next(tmp_path.glob("semi100-*")) / f"{name}.txt")) for name in ("held_out", "kept"))
    assert len(held) == 8 and len(kept) == 32 and not held & kept
    monkeypatch.setattr(finetune, "run_config", lambda *_: {"multi-label/mAP": math.nan})
    with pytest.raises(ValueError, match="diverged with every pair"):
        run(networks[1], "semi100", data, tmp_path)


def test_a_worker_that_diverges_says_so(networks, data, tmp_path):
    (tmp_path / "x").mkdir()
    ids = tmp_path / "x" / "ids.txt"
    ids.write_text("\n".join(data.train.image_ids[:8]))
    folder = str(tmp_path / "x")
    job = Job(networks[0], data, 0, str(tmp_path), folder, Settings(32, 2))
    torch.save(networks[0].checkpoint.state_dict, finetune._weights(job))
    cfg = finetune.make_config(find_protocol("semi100"), job, folder, str(ids), (data.test_source, None), (1e9, 1e9))
    figures = training.run_config(cfg, 1)
    assert list(figures) == ["multi-label/mAP"] and math.isnan(figures["multi-label/mAP"])
    assert not list((tmp_path / "x").glob("*.pth"))


@pytest.mark.parametrize(
    "option",
    [
        ["--name", "a/b"],
        ["--name", "coco14"],
        ["--learning-rates", "-1"],
        ["--learning-rates", "nan"],
        ["--cfg-options", "text"],
    ],
)
def test_options_that_can_not_be(checkpoint, option, capsys):
    assert main(["evaluate", checkpoint, *option]) == 2
    assert f"{option[0]} must " in capsys.readouterr().err


def test_a_seed_that_can_not_be(checkpoint, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["evaluate", checkpoint, "--seeds", "-1"])
    assert "--seeds: must be an integer" in capsys.readouterr().err


@pytest.mark.slow
def test_ctrl_c_lets_the_worker_save(checkpoint, scenes, tmp_path):
    arguments = command(checkpoint, scenes, tmp_path, "--protocol", "asl", "--epochs", "400")
    process = subprocess.Popen(
        arguments,
        start_new_session=True,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    deadline = time.monotonic() + 300
    while not list(tmp_path.glob("asl-*/final/epoch_2.pth")):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGINT)
    assert "run the same command again" in process.communicate(timeout=120)[1]
    assert process.returncode == 130
    assert list(tmp_path.glob("asl-*/final/interrupted.pth"))
