"""Metafiles: they list every recipe, and their figures are those of the configs and of the committed tables."""

import csv

import pytest
from mmengine.config import Config
from mmengine.fileio import load
from mmpretrain.apis import ModelHub, get_model
from project import ROOT

from sspyr_mm.checkpoints.bounded import UnfilledParameters
from sspyr_mm.models import SSPRL

MODELS = [model for file in load(ROOT / "model-index.yml")["Import"] for model in load(ROOT / file)["Models"]]
FORMER = {"configs/ssprl/r50_coco_200e_release.py"}


@pytest.fixture(scope="module", autouse=True)
def registered():
    ModelHub.register_model_index(ROOT / "model-index.yml", config_prefix=ROOT)


def test_every_recipe_is_listed_once():
    recipes = {
        str(path.relative_to(ROOT))
        for path in ROOT.glob("configs/*/*.py")
        if path.parent.name not in ("_base_", "benchmarks")
    }
    assert sorted(model["Config"] for model in MODELS) == sorted(recipes - FORMER)


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model["Name"])
def test_schedule_is_that_of_the_config(model):
    cfg, about = Config.fromfile(ROOT / model["Config"]), model["Metadata"]
    batch = cfg.auto_scale_lr.base_batch_size if cfg.get("auto_scale_lr") else cfg.train_dataloader.batch_size
    assert (about["Epochs"], about["Batch Size"]) == (cfg.train_cfg.max_epochs, batch)


# Recipes of a method with equal networks, such as those of COCO and ImageNet, are built once.
@pytest.mark.parametrize(
    "model",
    {(m["In Collection"], m["Metadata"]["Parameters"]): m for m in MODELS}.values(),
    ids=lambda model: model["Name"],
)
def test_network_is_that_of_the_config(model):
    with UnfilledParameters():
        built, about = get_model(model["Name"]), model["Metadata"]
    assert about["Parameters"] == sum(one.numel() for one in built.parameters())
    assert about["Architecture"].startswith(f"ResNet-{built.backbone.depth}")
    assert about["Architecture"].endswith("of width 16") == (built.backbone.base_channels == 16)


def test_results_are_those_of_the_committed_table():
    with open(ROOT / "docs/reproduction/table_S-B.csv", newline="") as file:
        rows = {row["system"].removesuffix(" (COCO)"): row for row in csv.DictReader(file)}
    measured = {m["In Collection"].removesuffix(" (reconstruction)"): m["Results"] for m in MODELS if "Results" in m}
    assert set(measured) == set(rows) - {"Random init"}
    for name, (result,) in measured.items():
        figures = result["Metrics"]
        assert figures["mAP"] == round(float(rows[name]["measured"]), 1)
        assert figures["95 % interval"] == round(float(rows[name]["ci95_half_width"]), 1)


def test_a_recipe_is_built_by_name():
    assert isinstance(get_model("ssprl_r18_small_50e"), SSPRL)
