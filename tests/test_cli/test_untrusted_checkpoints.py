"""Commands build only this package's own data set from a checkpoint, and load nothing that its config names."""

import os
import pickle
import resource
from contextlib import suppress

import pytest
import torch
from layouts import Call
from mmengine.config import Config
from PIL import Image
from pretrained_files import NARROW, pretrain

from sspyr_mm.__main__ import main
from sspyr_mm.benchmarks.networks import random_network
from sspyr_mm.checkpoints import load_pretraining, read_backbone


@pytest.fixture
def images(tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    for number in range(8):
        Image.effect_noise((160, 160), 60).convert("RGB").save(folder / f"{number}.png")
    return folder


def test_health_builds_no_data_set_of_the_checkpoint(images, tmp_path, capsys):
    payload = pickle.dumps({"metainfo": {}, "data_list": [], "x": Call(os.mkdir, str(tmp_path / "ran"))})
    (tmp_path / "x.pkl").write_bytes(payload)
    dataset = {"_delete_": True, "type": "mmpretrain.BaseDataset", "ann_file": str(tmp_path / "x.pkl"), "pipeline": []}
    pretrain(tmp_path / "x.pth", NARROW, 64, train_dataloader={"dataset": dataset})
    assert main(["health", str(tmp_path / "x.pth"), "--images", str(images), "--num-images", "8"]) in (0, 1)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[:2]] == ["s0", "s1"] and "8 patches" in lines[0]
    assert not (tmp_path / "ran").exists()


def test_health_needs_images(capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["health", "x.pth"])
    assert "the following arguments are required: --images" in capsys.readouterr().err


@pytest.mark.parametrize("where", ["init_cfg", "backbone.init_cfg", "neck.init_cfg", "head.init_cfg", "pretrained"])
@pytest.mark.parametrize("form", ["dict", "list", "nested", "override"])
def test_no_file_that_a_config_names_is_loaded(where, form, tmp_path):
    torch.save({"state_dict": {}, "x": Call(os.mkdir, str(tmp_path / "ran"))}, tmp_path / "evil.pth")
    init = {"type": "Pretrained", "checkpoint": str(tmp_path / "evil.pth")}
    override = {"type": "Constant", "layer": "Conv2d", "val": 0, "override": {**init, "name": "conv1"}}
    value = {"dict": init, "list": [init], "nested": [[init]], "override": [override]}[form]
    pretrain(tmp_path / "x.pth", NARROW, 64)
    content = torch.load(tmp_path / "x.pth")
    cfg = Config.fromstring(content["meta"]["cfg"], ".py")
    cfg.merge_from_dict({f"model.{where}": init["checkpoint"] if where == "pretrained" else value})
    content["meta"]["cfg"] = cfg.pretty_text
    torch.save(content, tmp_path / "x.pth")
    random_network(read_backbone(tmp_path / "x.pth"))
    try:
        load_pretraining(tmp_path / "x.pth")[1].init_weights()
    except ValueError as error:
        assert "which may download data" in str(error)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("where", ["", "backbone.", "neck.", "head.", "head.assigner.", "backbone.norm_cfg."])
@pytest.mark.parametrize(
    ("key", "value"), [("_scope_", "evil_package"), ("type", "mmevil.Network"), ("type", "evil_package.Network")]
)
def test_no_package_that_a_config_names_is_imported(where, key, value, tmp_path, monkeypatch):
    """mmengine imports the package of an unknown scope, also from the current folder."""
    for name in ("evil_package", "mmevil"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text(f"import os; os.mkdir({str(tmp_path / 'ran')!r})")
    monkeypatch.syspath_prepend(tmp_path)
    pretrain(tmp_path / "x.pth", NARROW, 64)
    content = torch.load(tmp_path / "x.pth")
    cfg = Config.fromstring(content["meta"]["cfg"], ".py")
    cfg.model.backbone.norm_cfg = {"type": "BN"}
    cfg.model.head.setdefault("assigner", {"type": "SinkhornAssigner"})
    cfg.merge_from_dict({f"model.{where}{key}": value})
    content["meta"]["cfg"] = cfg.pretty_text
    torch.save(content, tmp_path / "x.pth")
    with pytest.raises(ValueError, match=value):
        load_pretraining(tmp_path / "x.pth")
    with suppress(ValueError):  # it builds the backbone alone
        read_backbone(tmp_path / "x.pth")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("scope", ["mmdet", "mmseg"])
def test_network_of_another_registry_is_not_built(scope, tmp_path):
    """BertModel of mmdet downloads its weights."""
    pretrain(tmp_path / "x.pth", NARROW, 64)
    content = torch.load(tmp_path / "x.pth")
    cfg = Config.fromstring(content["meta"]["cfg"], ".py")
    cfg.model.backbone = {"type": "BertModel", "_scope_": scope, "name": "attacker/repo"}
    content["meta"]["cfg"] = cfg.pretty_text
    torch.save(content, tmp_path / "x.pth")
    with pytest.raises(ValueError, match="may download data"):
        load_pretraining(tmp_path / "x.pth")


def test_config_that_inherits_from_the_installed_package_is_read(tmp_path):
    """mmengine notes the scope of an inherited config in each of its dicts."""
    pretrain(tmp_path / "x.pth", NARROW, 64)
    content = torch.load(tmp_path / "x.pth")
    cfg = Config.fromstring(content["meta"]["cfg"], ".py")
    for part in (cfg.model, cfg.model.backbone, cfg.model.neck, cfg.model.head):
        part["_scope_"] = "sspyr_mm"
    content["meta"]["cfg"] = cfg.pretty_text
    torch.save(content, tmp_path / "x.pth")
    load_pretraining(tmp_path / "x.pth")
    read_backbone(tmp_path / "x.pth")


@pytest.mark.parametrize(
    "options",
    [
        {"model.pyramid.s0.num_prototypes": 1_000_000},
        {"model.pyramid.s0.queue_length": 1_000_000},
        {"model.backbone.base_channels": 4096},
        {"model.neck.hid_channels": 100_000},
        {
            "model.backbone": {
                "_delete_": True,
                "type": "ConvNeXt",
                "arch": {"depths": [1] * 4, "channels": [20_000] * 4},
            }
        },
        {
            "model.backbone": {
                "_delete_": True,
                "type": "ConvNeXt",
                "arch": {"depths": [50_000] * 4, "channels": [1] * 4},
            }
        },
    ],
    ids=lambda options: f"{options}"[:40],
)
def test_network_that_is_larger_than_its_file_is_not_built(options, tmp_path):
    pretrain(tmp_path / "x.pth", NARROW, 64)
    content = torch.load(tmp_path / "x.pth")
    cfg = Config.fromstring(content["meta"]["cfg"], ".py")
    cfg.merge_from_dict(options)
    content["meta"]["cfg"] = cfg.pretty_text
    torch.save(content, tmp_path / "x.pth")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ValueError, match="much larger than the tensors of the file"):
        load_pretraining(tmp_path / "x.pth")
    if "model.backbone" in next(iter(options)):
        with pytest.raises(ValueError, match="much larger than the tensors of the file"):
            read_backbone(tmp_path / "x.pth")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300_000  # KiB
