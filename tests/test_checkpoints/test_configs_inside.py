"""Settings in the config of a foreign checkpoint are used; nothing in it is executed or downloaded."""

import re

import layouts
import pytest
import torch
from mmengine.config import Config
from project import ROOT

from sspyr_mm.checkpoints import build_backbone, load_pretraining, read_backbone

RECIPES = sorted((ROOT / "configs" / "benchmarks" / "classification").glob("*.py"))


def read(content, path):
    torch.save(content, path)
    return read_backbone(path)


@pytest.mark.parametrize(
    "text",
    [
        "model=dict(data_preprocessor=dict(type='SegDataPreProcessor',mean=[1.,2.,3.],std=[4.,5.,6.],bgr_to_rgb=True))",
        "data_preprocessor=dict(mean=[1,2,3], std=[4,5,6], to_rgb=True)\nmodel=dict(type='MoCo')",
        "img_norm_cfg=dict(mean=[1,2,3], std=[4,5,6], to_rgb=True)",
    ],
)
def test_normalisation_is_read_from_the_config(text, small, tmp_path):
    content = {**layouts.mmpretrain(small), "meta": {"cfg": text}}
    checkpoint = read(content, tmp_path / "x.pth")
    assert (checkpoint.mean, checkpoint.std) == ((1, 2, 3), (4, 5, 6))


def test_networks_of_bgr_inputs_are_rejected(small, tmp_path):
    text = "data_preprocessor=dict(mean=[103.53,116.28,123.675],std=[1,1,1],bgr_to_rgb=False)"
    content = {**layouts.mmdet(small), "meta": {"cfg": text}}
    with pytest.raises(ValueError, match=r"trained on BGR inputs .*only networks of RGB inputs"):
        read(content, tmp_path / "x.pth")


NEW_STYLE = """model = dict(
    backbone=dict(depth=50, style='caffe', type='mmpretrain.models.ResNet'),
    data_preprocessor=dict(mean=[1, 2, 3], std=[4, 5, 6], %s, type='mmdet.models.DetDataPreprocessor'),
    type='mmdet.models.FasterRCNN')
optim_wrapper = dict(optimizer=dict(lr=0.1, type='torch.optim.SGD'), type='OptimWrapper')
"""


def test_config_with_types_by_module_is_read(backbone50, tmp_path):
    content = {**layouts.mmdet(backbone50), "meta": {"cfg": NEW_STYLE % "bgr_to_rgb=True"}}
    checkpoint = read(content, tmp_path / "x.pth")
    assert (checkpoint.mean, checkpoint.std) == ((1, 2, 3), (4, 5, 6))
    assert checkpoint.backbone["style"] == "caffe"
    content["meta"]["cfg"] = NEW_STYLE % "bgr_to_rgb=False"
    with pytest.raises(ValueError, match="trained on BGR inputs"):
        read(content, tmp_path / "x.pth")


def test_config_that_is_not_plain_data_causes_a_warning(small, tmp_path):
    content = {**layouts.mmdet(small), "meta": {"cfg": "import os\nmodel = dict()"}}
    with pytest.warns(UserWarning, match=r"x.pth: .*not plain data, line 1.*check that the training used none of them"):
        assert read(content, tmp_path / "x.pth").std == (58.395, 57.12, 57.375)


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_classification_configs_use_rgb(path, small, tmp_path):
    cfg = Config.fromfile(path)
    cfg.model.backbone.update(depth=18, stem_channels=8, base_channels=8)
    content = {**layouts.mmpretrain(small), "meta": {"cfg": cfg.pretty_text}}
    checkpoint = read(content, tmp_path / "x.pth")
    assert checkpoint.mean == tuple(cfg.model.data_preprocessor.mean)
    cfg.train_dataloader.dataset.pipeline[0].type = "LoadImageFromFile"
    content["meta"]["cfg"] = cfg.pretty_text
    with pytest.raises(ValueError, match="trained on BGR inputs"):
        read(content, tmp_path / "x.pth")


def test_caffe_style_is_read_from_the_config(backbone50, photograph, features50, tmp_path):
    text = "model=dict(backbone=dict(type='ResNet', depth=50, style='caffe'))"
    checkpoint = read({**layouts.mmdet(backbone50), "meta": {"cfg": text}}, tmp_path / "x.pth")
    assert checkpoint.backbone == {"type": "ResNet", "depth": 50, "style": "caffe"}
    assert not torch.allclose(build_backbone(checkpoint)(photograph)[0], features50)


def test_config_is_not_executed(backbone50, tmp_path):
    """A registry accepts the import path of any function as a type."""
    marker = tmp_path / "ran"
    for kind in ("os.mkdir", "os.system"):
        meta = {"backbone": {"type": kind, "path": str(marker), "command": f"touch {marker}"}}
        with pytest.raises(ValueError, match=re.escape(f"asks for type='{kind}', which is not a registered name")):
            read({"state_dict": backbone50, "meta": meta}, tmp_path / "x.pth")
        cfg = Config({"model": {"type": "SSPRL", "backbone": meta["backbone"]}}).pretty_text
        state = {**backbone50, "head.prototypes.s0.weight": torch.ones(2, 2)}
        with pytest.raises(ValueError, match="which is not a registered name"):
            read({"state_dict": state, "meta": {"cfg": cfg}}, tmp_path / "x.pth")
    assert not marker.exists()


HUB = {"model_name": "hf-hub:nobody/nothing"}


@pytest.mark.parametrize(
    "backbone",
    [
        {"type": "TIMMBackbone", **HUB},
        {"type": "mmpretrain.TIMMBackbone", **HUB},
        {"type": "HuggingFaceClassifier", **HUB},
        {"type": "TimmClassifier", **HUB},
        {"type": "ResNet", "depth": 50, "act_cfg": {"type": "TIMMBackbone", **HUB}},
        pytest.param({"type": "ResNet", "depth": 50, "act_cfg": {"type": "mmdet.FPN"}}, marks=pytest.mark.ops),
        {
            "type": "VisionTransformer",
            "layer_cfgs": [{"init_cfg": {"type": "Pretrained", "checkpoint": "https://nowhere"}}],
        },
    ],
    ids=str,
)
def test_nothing_is_downloaded_for_a_config(backbone, backbone50, tmp_path, monkeypatch):
    def connect(*_):
        raise AssertionError("opened a connection")

    monkeypatch.setattr("socket.socket.connect", connect)
    with pytest.raises(ValueError, match=r"asks for type=.* may download data"):
        read({"state_dict": backbone50, "meta": {"backbone": backbone}}, tmp_path / "x.pth")
    cfg = Config({"model": {"type": "SSPRL", "backbone": backbone}}).pretty_text
    torch.save({"state_dict": backbone50, "meta": {"cfg": cfg}}, tmp_path / "x.pth")
    with pytest.raises(ValueError, match=r"asks for type=.* may download data"):
        load_pretraining(tmp_path / "x.pth")
