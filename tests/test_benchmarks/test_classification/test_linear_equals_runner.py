"""The grid on cached features trains the same classifier as mmengine's runner on images."""

from pathlib import Path

import pytest
import torch
from mmengine.runner import Runner

import sspyr_mm.registration  # noqa: F401
from sspyr_mm.benchmarks.classification.linear_grid import LinearRecipe, initial_weight, train_grid
from sspyr_mm.benchmarks.classification.multi_label_data import load_data, voc07_sources
from sspyr_mm.benchmarks.networks import read_networks
from sspyr_mm.benchmarks.training.recipes import load_recipe
from sspyr_mm.checkpoints import build_backbone
from sspyr_mm.engine.config import fill_dataloaders
from sspyr_mm.engine.cpu import prepare_config
from sspyr_mm.evaluation.metrics import mean_average_precision
from sspyr_mm.features.extraction import FrozenEncoder, cached_features, centre_crop_pipeline

SIZE, EPOCHS, BATCH, RATE, SEED = 32, 8, 16, 0.1, 3


def plain_recipe(checkpoint, scenes, num_classes, work_dir):
    cfg = load_recipe("classification/linear_voc07_50e.py")
    cfg.work_dir = str(work_dir)
    cfg.model.backbone.update(depth=18, stem_channels=8, base_channels=8)
    cfg.model.backbone.init_cfg.checkpoint = checkpoint
    cfg.model.head.update(num_classes=num_classes, in_channels=64, init_cfg=None)
    cfg.randomness = dict(seed=SEED)
    for name in ("train_dataloader", "val_dataloader", "test_dataloader"):
        loader = cfg[name]
        loader.update(batch_size=BATCH, num_workers=0, persistent_workers=False)
        loader.dataset.data_root = str(Path(scenes) / "VOC2007")
        loader.dataset.pipeline = [*centre_crop_pipeline(SIZE), dict(type="PackInputs")]
    cfg.optim_wrapper.optimizer.lr = RATE
    cfg.param_scheduler.milestones = list(LinearRecipe(epochs=EPOCHS).milestones)
    cfg.train_cfg.update(max_epochs=EPOCHS, val_interval=EPOCHS)
    fill_dataloaders(cfg)
    runner = Runner.from_cfg(prepare_config(cfg))
    with torch.no_grad():
        layer = runner.model.head.fc
        layer.weight.copy_(initial_weight(64, num_classes, 0.01, seed=SEED).T)
        layer.bias.zero_()
    runner.train()
    return runner


def test_classifier_and_map_equal_those_of_the_runner(checkpoint, scenes, tmp_path):
    data = load_data("voc07", *voc07_sources(str(scenes)))
    runner = plain_recipe(checkpoint, scenes, len(data.train.classes), tmp_path / "runner")
    (network,) = read_networks([checkpoint])
    source = network.checkpoint
    encoder = FrozenEncoder(build_backbone(source), source.mean, source.std, identity=source.sha256)
    train, test = (
        cached_features(encoder, part.paths, size=SIZE, cache_dir=tmp_path, num_workers=0)
        for part in (data.train, data.test)
    )
    recipe = LinearRecipe(epochs=EPOCHS, batch_size=BATCH, learning_rates=(0.01, RATE, 1.0))
    classifiers = train_grid(train, torch.from_numpy(data.train.targets), recipe, seed=SEED)
    layer = runner.model.head.fc
    torch.testing.assert_close(classifiers.weight[:, 1].T, layer.weight, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(classifiers.bias[1], layer.bias, rtol=1e-4, atol=1e-5)
    moved = (layer.weight.T - initial_weight(64, len(data.train.classes), 0.01, seed=SEED)).abs()
    assert moved.max() > 0.05
    ours = mean_average_precision(classifiers.scores(test, 1), data.test.targets)
    theirs = runner.val_loop.run()["multi-label/mAP"]
    assert ours == pytest.approx(theirs, abs=1e-6)


def test_configs_equal_the_recipe():
    voc, coco = (load_recipe(f"classification/linear_{name}_50e.py") for name in ("voc07", "coco14"))
    recipe = LinearRecipe()
    for cfg, batch in ((voc, 32), (coco, 128)):
        assert cfg.train_cfg.max_epochs == recipe.epochs
        assert tuple(cfg.param_scheduler.milestones) == recipe.milestones
        assert cfg.train_dataloader.batch_size == batch
        optimizer = cfg.optim_wrapper.optimizer
        assert (optimizer.momentum, optimizer.weight_decay) == (recipe.momentum, recipe.weight_decay)
        for loader in (cfg.train_dataloader, cfg.val_dataloader):
            pipeline = [dict(step) for step in loader.dataset.pipeline]
            assert pipeline == [*centre_crop_pipeline(224), dict(type="PackInputs")]
    assert voc.model.backbone.frozen_stages == 4 and voc.model.backbone.norm_eval
