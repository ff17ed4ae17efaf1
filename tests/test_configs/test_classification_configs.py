"""The classification configs: that each reads, builds, and trains at reduced size through a real Runner."""

from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.runner import Runner
from project import ROOT

import sspyr_mm.registration  # noqa: F401
from sspyr_mm.benchmarks.protocols import PROTOCOLS
from sspyr_mm.datasets.toy_scenes import generate
from sspyr_mm.engine.config import fill_dataloaders
from sspyr_mm.engine.cpu import prepare_config

FOLDER = ROOT / "configs" / "benchmarks" / "classification"
CONFIGS = sorted(set(FOLDER.glob("*.py")) - set(FOLDER.glob("*_release.py")))


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    root = tmp_path_factory.mktemp("scenes")
    generate(str(root), num_train=8, num_val=4, size=64)
    return root


def test_every_protocol_has_its_config():
    for config in filter(None, (protocol.config for protocol in PROTOCOLS)):
        assert (FOLDER.parent / config).is_file(), config


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: p.stem)
def test_header_names_its_command(path):
    assert (
        f"# Command: python tools/train.py configs/benchmarks/classification/{path.name}"
        in (path.read_text().split("_base_")[0])
    )


def reduced(path, scenes, work_dir, checkpoint):
    cfg = Config.fromfile(path)
    cfg.work_dir = str(work_dir)
    cfg.model.backbone.update(depth=18, stem_channels=8, base_channels=8)
    cfg.model.backbone.init_cfg.checkpoint = str(checkpoint)
    cfg.model.head.update(num_classes=12, in_channels=64)
    listed = Path(work_dir) / "ids.txt"
    listed.write_text("1\n2\n3\n4\n5\n6\n")
    for name, part in (("train", "train"), ("val", "val"), ("test", "val")):
        loader = cfg[f"{name}_dataloader"]
        loader.update(batch_size=2, num_workers=0)
        loader.dataset.update(data_root=str(scenes / f"annotations/instances_{part}2017.json"), split=None)
        if "image_ids" in loader.dataset:
            assert Path(loader.dataset.image_ids).parent == FOLDER / "splits"
            loader.dataset.image_ids = str(listed)
    cfg.train_cfg.update(max_epochs=1, val_interval=1)
    cfg.default_hooks.logger.interval = 1
    fill_dataloaders(cfg)
    return prepare_config(cfg)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    from mmpretrain.models import ResNet

    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "backbone.pth"
    torch.save(ResNet(18, stem_channels=8, base_channels=8).state_dict(), path)
    return path


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: p.stem)
def test_trains_an_epoch_at_reduced_size(path, scenes, tmp_path, checkpoint):
    runner = Runner.from_cfg(reduced(path, scenes, tmp_path, checkpoint))
    runner.train()
    assert runner.iter == (3 if "pct" in path.stem and "100" not in path.stem else 4)
    start = torch.load(checkpoint)
    moved = [name for name, value in runner.model.backbone.named_parameters() if not torch.equal(value, start[name])]
    if path.stem.startswith("linear"):
        assert not moved
        assert not any(m.training for m in runner.model.backbone.modules())
    else:
        assert len(moved) == len(list(runner.model.backbone.parameters()))
    metrics = runner.message_hub.get_scalar("val/multi-label/mAP")
    assert 0 <= metrics.current() <= 100


@pytest.mark.parametrize("as_list", [False, True])
def test_a_backbone_that_does_not_fit_is_refused(scenes, tmp_path, checkpoint, as_list):
    state = torch.load(checkpoint)
    torch.save({f"encoder.{name}": value for name, value in state.items()}, tmp_path / "x.pth")
    cfg = reduced(FOLDER / "linear_voc07_50e.py", scenes, tmp_path, tmp_path / "x.pth")
    if as_list:
        cfg.model.backbone.init_cfg = [cfg.model.backbone.init_cfg]
    with pytest.raises(ValueError, match="The checkpoint does not match this ResNet: 100 of 100 tensors"):
        Runner.from_cfg(cfg).train()


def test_the_authors_linear_recipe(scenes, tmp_path, checkpoint):
    path = FOLDER / "linear_coco14_100e_official.py"
    whole = Config.fromfile(path)
    assert whole.train_cfg.max_epochs == whole.param_scheduler.T_max == 100
    assert whole.param_scheduler.eta_min == 0 and whole.train_dataloader.batch_size == 128
    assert whole.optim_wrapper == dict(
        optimizer=dict(type="SGD", lr=0.1, momentum=0.9, weight_decay=1e-6), clip_grad=dict(max_norm=10)
    )
    assert [255 * x for x in (0.228, 0.224, 0.225)] == pytest.approx(whole.model.data_preprocessor.std)
    runner = Runner.from_cfg(reduced(path, scenes, tmp_path, checkpoint))
    runner.model.init_weights()
    assert (runner.model.head.fc.bias == 0.1).all()
    assert 0.008 < runner.model.head.fc.weight.std() < 0.012


def test_learning_rates_of_backbone_and_head(scenes, tmp_path, checkpoint):
    path = FOLDER / "semi_coco14_100pct_20e.py"
    runner = Runner.from_cfg(reduced(path, scenes, tmp_path, checkpoint))
    optimizer = runner.build_optim_wrapper(runner.cfg.optim_wrapper).optimizer
    rates = {}
    for group in optimizer.param_groups:
        for param in group["params"]:
            rates[param] = group["lr"]
    model = runner.model
    assert {round(rates[p], 9) for p in model.backbone.parameters()} == {0.01}
    assert {rates[p] for p in model.head.parameters()} == {0.1}
