"""`evaluate` from files to results."""

import hashlib
import importlib
import json
import os
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from mmpretrain.models import ResNet
from quick_evaluate import QUICK, evaluate_command, quick_evaluate

from sspyr_mm.__main__ import main
from sspyr_mm.benchmarks.classification.linear_grid import LinearRecipe
from sspyr_mm.benchmarks.evaluate import evaluate_all
from sspyr_mm.benchmarks.networks import read_networks
from sspyr_mm.benchmarks.protocols import Linear, find_protocol
from sspyr_mm.benchmarks.results.rows import make_rows
from sspyr_mm.checkpoints import Selection
from sspyr_mm.datasets.toy_scenes import generate


def test_linear_writes_a_complete_result_once(networks, data, tmp_path, monkeypatch):
    result = quick_evaluate(networks[0], "linear", data, tmp_path)
    assert data.name == "coco17" and result.counts == {"train": 40, "test": 24, "classes": 12}
    assert 0 < result.value <= 100 and not result.as_published
    assert result.checkpoint["sha256"] == networks[0].checkpoint.sha256
    per_class = [v for v in result.further["AP_per_class"].values() if v is not None]
    assert result.value == pytest.approx(sum(per_class) / len(per_class))
    assert result.further["best_epoch_on_test"]["mAP"] >= result.value - 1e-9
    assert set(result.further["held_out_mAP"]) == {str(r) for r in LinearRecipe().learning_rates}
    monkeypatch.setattr(Linear, "run", None)  # nothing may be measured again
    assert quick_evaluate(networks[0], "linear", data, tmp_path) == result


def test_damaged_result_is_measured_again(networks, data, tmp_path, capsys):
    result = quick_evaluate(networks[0], "linear", data, tmp_path)
    (file,) = tmp_path.glob("result-*.json")
    content = file.read_text()
    file.write_text(content[:100])
    assert quick_evaluate(networks[0], "linear", data, tmp_path) == result
    assert file.read_text() == content
    assert f"{file} is not a result" in capsys.readouterr().err
    file.write_text(content.replace('"seed": 0', '"seed": 1'))  # of another seed
    assert quick_evaluate(networks[0], "linear", data, tmp_path) == result
    assert file.read_text() == content


def test_network_seed_and_settings_have_separate_results(networks, data, tmp_path):
    one = quick_evaluate(networks[0], "linear", data, tmp_path)
    random = quick_evaluate(networks[1], "linear", data, tmp_path)
    other_seed = quick_evaluate(networks[0], "linear", data, tmp_path, seed=1)
    longer = quick_evaluate(networks[0], "linear", data, tmp_path, replace(QUICK, epochs=60))
    assert len({one.value, random.value, other_seed.value, longer.value}) == 4
    assert len(list(tmp_path.glob("result-*.json"))) == 4
    assert random.network == "random" and random.checkpoint["path"] is None


def test_networks_of_one_file_have_separate_results(data, tmp_path):
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
        results.append(quick_evaluate(network, "linear", data, tmp_path / "work"))
    assert results[0].value != results[1].value
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    assert [result.checkpoint["sha256"] for result in results] == [digest, digest]
    rows = make_rows(results, published=False)
    assert [row.values for row in rows] == [(result.value,) for result in results]
    assert "prefix one." in rows[0].note and "prefix two." in rows[1].note


def test_setting_of_another_protocol_is_refused_before_any_work(networks, data, tmp_path):
    runs = [(find_protocol(name), data) for name in ("linear", "asl")]
    settings = replace(QUICK, learning_rates=(0.1,))
    with pytest.raises(ValueError, match="--learning-rates is for linear, not for asl"):
        next(evaluate_all(networks, runs, [0], work_dir=str(tmp_path), settings=settings))
    assert not list(tmp_path.iterdir())


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
def test_wrong_data_options_are_reported(checkpoint, options, message, capsys):
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


def test_custom_backbone_is_evaluated_and_fine_tuned(scenes, tmp_path, monkeypatch, capsys):
    """The worker imports its module, and a work dir with braces is not a config template."""
    (tmp_path / "own_backbones.py").write_text(OWN_BACKBONE)
    (tmp_path / "registered_elsewhere.py").write_text(
        "import own_backbones\nfrom mmpretrain.registry import MODELS\n"
        "MODELS.register_module(module=own_backbones.OwnNet)\n"
    )
    state = {"conv.weight": torch.randn(8, 3, 7, 7) / 10, "conv.bias": torch.zeros(8)}
    torch.save({"state_dict": state, "meta": {"backbone": {"type": "OwnNet"}}}, tmp_path / "o.pth")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    work_dir = tmp_path / "{{ fileDirname }}"
    line = evaluate_command(str(tmp_path / "o.pth"), scenes, work_dir, "--epochs", "5")
    line += ["--protocol", "linear", "asl"]  # five steps of asl: a warm-up of one step would divide by zero
    assert main(line[3:]) == 2
    assert "OwnNet: import your module with --custom-import" in capsys.readouterr().err
    line += ["--custom-import", "registered_elsewhere"]
    assert main(line[3:]) == 0, capsys.readouterr().err
    results = [json.loads(file.read_text()) for file in work_dir.glob("result-*.json")]
    assert sorted(result["protocol"] for result in results) == ["asl", "linear"]
    settings = next(r for r in results if r["protocol"] == "asl")["settings"]
    assert settings["epochs"] == 5 and settings["size"] == 32 and settings["batch"] == 128
    assert settings["optimizer"] == {"type": "Adam", "lr": 2e-4, "weight_decay": 1e-4}


def test_changed_backbone_code_is_another_network(data, tmp_path, monkeypatch):
    """A module that is not a BaseModule can be probed, but not fine-tuned."""
    module = tmp_path / "plain_backbone.py"
    code = OWN_BACKBONE.replace("BaseBackbone)", "nn.Module)").replace("__init__(init_cfg)", "__init__()")
    module.write_text(code + "\nMODELS.register_module(name='PlainNet', module=OwnNet)\n")
    monkeypatch.syspath_prepend(tmp_path)
    importlib.import_module("plain_backbone")
    state = {"conv.weight": torch.randn(8, 3, 7, 7) / 10, "conv.bias": torch.zeros(8)}
    path = tmp_path / "plain.pth"
    torch.save({"state_dict": state, "meta": {"backbone": {"type": "PlainNet"}}}, path)
    networks = read_networks([str(path)], random=True, custom_imports=["plain_backbone"])
    first = quick_evaluate(networks[0], "linear", data, tmp_path)
    quick_evaluate(networks[1], "linear", data, tmp_path)
    assert first.checkpoint["code"].keys() == {"plain_backbone"}
    with pytest.raises(ValueError, match="OwnNet can't be fine-tuned: it must be a BaseModule"):
        quick_evaluate(networks[0], "asl", data, tmp_path)
    module.write_text(module.read_text() + "# another version\n")
    second = quick_evaluate(networks[0], "linear", data, tmp_path)
    assert second.checkpoint["code"] != first.checkpoint["code"]
    assert len(list(tmp_path.glob("result-*.json"))) == 3
    assert len(list(tmp_path.glob("features/*/*.npy"))) == 6  # train and test each


def test_default_protocols_are_skipped_if_images_are_too_few(checkpoint, tmp_path, capsys):
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
        patch.setattr("sspyr_mm.benchmarks.results.rows.make_rows", lambda results: [])
        assert main(line) == 0
    assert measured == ["linear", "semi100", "asl"]
    shown = capsys.readouterr().err
    assert "coco17 semi1 is skipped: 1 % of 5" in shown and "coco17 semi10 is skipped" in shown
    assert "1 network(s), 1 seed(s): coco17 linear, coco17 semi100, coco17 asl\n--protocol NAME" in shown


def test_checkpoint_without_a_whole_network_is_refused(scenes, tmp_path, capsys):
    torch.save({"conv1.weight": torch.zeros(8, 3, 7, 7)}, tmp_path / "part.pth")
    arguments = ["evaluate", str(tmp_path / "part.pth"), "--coco", str(scenes)]
    assert main(arguments) == 2
    assert "part.pth" in capsys.readouterr().err


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
def test_invalid_option_values_are_refused(checkpoint, option, capsys):
    assert main(["evaluate", checkpoint, *option]) == 2
    assert f"{option[0]} must " in capsys.readouterr().err


def test_negative_seed_is_refused(checkpoint, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["evaluate", checkpoint, "--seeds", "-1"])
    assert "--seeds: must be an integer" in capsys.readouterr().err
