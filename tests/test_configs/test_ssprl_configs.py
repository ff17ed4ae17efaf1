"""Every shipped recipe: what it states, that it builds, and that it trains at reduced size through a real Runner."""

import re

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmengine.runner import Runner
from mmpretrain.registry import MODELS
from project import ROOT
from small_recipes import SMALL_BACKBONE, small_run

import sspyr_mm.registration  # noqa: F401
from sspyr_mm.checkpoints.bounded import UnfilledParameters
from sspyr_mm.engine.cpu import prepare_config
from sspyr_mm.pyramid import PyramidSpec

RENAMED = sorted((ROOT / "configs").rglob("*_release.py"))
CONFIGS = sorted(set((ROOT / "configs" / "ssprl").glob("*.py")) - set(RENAMED))


def load(name):
    return Config.fromfile(ROOT / "configs" / "ssprl" / f"{name}.py")


def prototypes(name):
    return [s.num_prototypes for s in PyramidSpec.from_config(load(name).model.pyramid).scales]


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: p.stem)
def test_header_names_its_command(path):
    header = path.read_text().split("_base_")[0]
    assert "# Command: " in header
    assert path.name in header or "quickstart.sh" in header


def test_the_readme_lists_every_config_as_it_is():
    text = (ROOT / "configs/ssprl/README.md").read_text()
    rows = [line.split("|")[1:-1] for line in text.splitlines() if line.startswith("| `")]
    assert sorted(row[0].strip(" `") for row in rows) == [path.name for path in CONFIGS]
    for name, _, row, images, command in rows:
        path = ROOT / "configs/ssprl" / name.strip(" `")
        cfg, header = Config.fromfile(path), path.read_text().split("_base_")[0]
        gpus, batch = map(int, images.split("x"))
        assert batch == cfg.train_dataloader.batch_size, name
        if "dist_train" in command:
            assert f"{path.name} {gpus}" in header and command.strip(" `").endswith(f" {gpus}")
        if (scaling := cfg.get("auto_scale_lr")) and "official" not in name:
            assert gpus * batch == scaling.base_batch_size, name
        for figure in re.findall(r"\d\d\.\d", row):
            assert figure in header, (name, figure)


@pytest.mark.parametrize("path", RENAMED, ids=lambda p: p.stem)
def test_a_former_config_name_warns_and_reads_the_new_config(path):
    new = path.with_name(path.name.replace("release", "official"))
    with pytest.warns(DeprecationWarning, match=f"use {new.name} instead"):
        cfg = Config.fromfile(path)
    assert cfg.to_dict() == Config.fromfile(new).to_dict()


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: p.stem)
def test_trains_two_iterations_at_reduced_size(path, photographs, tmp_path):
    cfg = Config.fromfile(path)
    cfg.merge_from_dict({**small_run(photographs, tmp_path), **SMALL_BACKBONE})
    for name, scale in cfg.model.pyramid.items():
        if scale is not None:
            # At 16 px layer4 is left with 1 x 1: oneDNN's weight gradients of strided bfloat16 convolutions whose
            # input is narrower than the stride hold uninitialised memory.
            scale.update(region=24 * scale.grid, patch=24)
            if scale.get("multi_crop"):
                scale.multi_crop.patch = 24
            assert name in ("s0", "s1", "s2")
    prepare_config(cfg)
    runner = Runner.from_cfg(cfg)
    before = {k: v.clone() for k, v in runner.model.named_parameters()}
    runner.train()
    assert runner.iter == 2
    after = dict(runner.model.named_parameters())
    held = {k for k in before if k.startswith(("head.prototypes", "head.correlation"))}
    unmoved = {k for k in before if torch.equal(after[k], before[k])}
    if path.stem.endswith("official"):
        # The first 648 iterations leave prototypes and correlation learners alone, up to the rounding of
        # their normalisation, and nothing else.
        for name in held:
            torch.testing.assert_close(after[name], before[name], atol=2e-7, rtol=0)
        unmoved -= held
    assert not unmoved
    assert (tmp_path / "epoch_1.pth").is_file()


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: p.stem)
def test_model_builds_at_full_size(path):
    cfg = Config.fromfile(path)
    init_default_scope("mmpretrain")
    with UnfilledParameters():
        model = MODELS.build(cfg.model)
    assert [s.num_prototypes for s in model.pyramid.scales] == prototypes(path.stem)
    dumped = Config.fromstring(cfg.pretty_text, ".py")
    assert PyramidSpec.from_config(dumped.model.pyramid) == model.pyramid


def test_paper_recipe():
    cfg = load("r50_coco_200e")
    spec = PyramidSpec.from_config(cfg.model.pyramid)
    geometry = [(s.grid, s.region, s.patch, s.area) for s in spec.scales]
    assert geometry == [(1, 224, 224, (0.14, 1.0)), (2, 314, 112, (0.6, 1.0)), (3, 383, 96, (0.6, 1.0))]
    assert [s.num_prototypes for s in spec.scales] == [300, 150, 150]
    assert [s.alpha for s in spec.scales] == [1, 0.25, 0.25]
    assert [s.beta for s in spec.scales] == [0, 0.25, 0.25]
    assert [s.shared_region for s in spec.scales] == [False, True, True]
    assert cfg.model.head.variant == "paper"
    assert cfg.model.head.temperature == 0.1
    assert cfg.model.head.swapped_loss == dict(type="SwappedPredictionLoss")
    assert cfg.model.head.cross_scale_loss == dict(type="CrossScaleLoss", loss_weight=1.0)
    assert cfg.model.head.assigner.to_dict() == dict(type="SinkhornAssigner", epsilon=0.05, num_iterations=3)
    assert (cfg.model.neck.hid_channels, cfg.model.neck.out_channels) == (2048, 128)
    optimizer = cfg.optim_wrapper.optimizer
    assert (optimizer.type, optimizer.lr, optimizer.weight_decay) == ("ForeachLARS", 0.6, 1e-6)
    assert (optimizer.momentum, optimizer.trust_coefficient) == (0.9, 0.001)
    (scheduler,) = cfg.param_scheduler
    assert scheduler.type == "CosineAnnealingLR" and scheduler.convert_to_iter_based
    assert optimizer.lr * scheduler.eta_min_ratio == pytest.approx(0.0006)
    assert cfg.train_cfg.max_epochs == 200
    assert 8 * cfg.train_dataloader.batch_size == cfg.auto_scale_lr.base_batch_size == 128


def test_official_recipe():
    cfg = load("r50_coco_200e_official")
    spec = PyramidSpec.from_config(cfg.model.pyramid)
    assert cfg.model.head.variant == "official"
    assert [s.queue_length for s in spec.scales] == [1920, 5000, 5000]
    crops = spec.scales[0].multi_crop
    assert (crops.num_views, crops.patch, crops.area) == (6, 96, (0.05, 0.14))
    assert cfg.default_hooks.queue.start_epoch == 80
    assert cfg.default_hooks.freeze_prototypes.num_iters == 648
    assert cfg.model.data_preprocessor.std == pytest.approx((58.14, 57.12, 57.375))
    assert (cfg.optim_wrapper.type, cfg.optim_wrapper.dtype) == ("AmpOptimWrapper", "float16")
    assert 2 * cfg.train_dataloader.batch_size == cfg.auto_scale_lr.base_batch_size == 128


def test_imagenet_recipe():
    cfg = load("r50_in1k_100e")
    assert cfg.train_cfg.max_epochs == 100
    assert 8 * cfg.train_dataloader.batch_size == cfg.auto_scale_lr.base_batch_size == 256


@pytest.mark.parametrize(
    ("name", "counts"),
    [
        ("r50_coco_200e_2scales_k3000_k1500", [3000, 1500]),
        ("r50_coco_200e_2scales_k300_k1500", [300, 1500]),
        ("r50_coco_200e_2scales", [300, 300]),
        ("r50_coco_200e_2scales_k300_k150", [300, 150]),
        ("r50_coco_200e_1scale", [300]),
        ("r50_coco_200e_2scales_shared", [300, 300]),
    ],
)
def test_two_scale_recipes(name, counts):
    cfg = load(name)
    spec = PyramidSpec.from_config(cfg.model.pyramid)
    assert [s.num_prototypes for s in spec.scales] == counts
    assert [(s.alpha, s.beta) for s in spec.scales[1:]] == [(0.5, 0.5)] * (len(counts) - 1)
    assert cfg.model.head.get("shared_prototypes", False) == name.endswith("shared")
