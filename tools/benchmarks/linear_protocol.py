"""Times the linear protocol: ``python tools/benchmarks/linear_protocol.py CHECKPOINT --voc DIR``.

Compares mmengine's runner with ``linear_voc07_50e.py``, which trains one learning rate, with the whole grid as
``evaluate`` trains it, including feature extraction. Prints the mAP of both at that rate, which must agree.
"""

from __future__ import annotations

import argparse
import logging
import tempfile
import time
from pathlib import Path

import torch
from mmengine.runner import Runner

import sspyr_mm.registration  # noqa: F401
from sspyr_mm.benchmarks.classification.linear_grid import LinearRecipe, initial_weight, train_grid
from sspyr_mm.benchmarks.classification.multi_label_data import BenchmarkData, load_data, voc07_sources
from sspyr_mm.benchmarks.networks import Network, read_networks
from sspyr_mm.benchmarks.training.recipes import load_recipe
from sspyr_mm.engine.config import fill_dataloaders
from sspyr_mm.engine.cpu import prepare_config
from sspyr_mm.evaluation.metrics import mean_average_precision
from sspyr_mm.features.extraction import cached_features, centre_crop_pipeline


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", help="backbone to measure")
    parser.add_argument("--voc", required=True, metavar="DIR", help="VOC2007 or a folder above it")
    parser.add_argument("--size", type=int, default=224, help="side of the crops in pixels")
    parser.add_argument("--epochs", type=int, default=50)
    parser.add_argument("--rate", type=float, default=0.1, help="learning rate of the runner")
    return parser.parse_args()


def run_plain(network: Network, data: BenchmarkData, recipe: LinearRecipe, args: argparse.Namespace) -> float:
    """Returns the mAP of mmengine's runner."""
    channels = network.encoder()(torch.zeros(1, 3, args.size, args.size)).shape[1]
    with tempfile.TemporaryDirectory() as folder:
        weights = Path(folder) / "backbone.pth"
        torch.save(network.checkpoint.state_dict, weights)
        cfg = load_recipe("classification/linear_voc07_50e.py")
        cfg.work_dir = folder
        frozen = dict(frozen_stages=4, norm_eval=True)
        pretrained = dict(type="Pretrained", checkpoint=str(weights))
        cfg.model.backbone = {**network.checkpoint.backbone, **frozen, "init_cfg": pretrained}
        cfg.model.data_preprocessor.update(mean=list(network.checkpoint.mean), std=list(network.checkpoint.std))
        cfg.model.head.update(num_classes=len(data.train.classes), in_channels=channels, init_cfg=None)
        for loader in (cfg.train_dataloader, cfg.val_dataloader, cfg.test_dataloader):
            loader.num_workers = 2
            loader.dataset.data_root = data.train_source.source
            loader.dataset.pipeline = [*centre_crop_pipeline(args.size), dict(type="PackInputs")]
        cfg.optim_wrapper.optimizer.lr = args.rate
        cfg.param_scheduler.milestones = list(recipe.milestones)
        cfg.train_cfg.update(max_epochs=args.epochs, val_interval=args.epochs)
        fill_dataloaders(cfg)
        runner = Runner.from_cfg(prepare_config(cfg))
        with torch.no_grad():
            layer = runner.model.head.fc
            layer.weight.copy_(initial_weight(*layer.weight.T.shape, recipe.init_std, seed=0).T)
            layer.bias.zero_()
        runner.train()
        return runner.message_hub.get_scalar("val/multi-label/mAP").current()


def run_grid(network: Network, data: BenchmarkData, recipe: LinearRecipe, size: int) -> list[float]:
    """Returns the mAP of every learning rate."""
    with tempfile.TemporaryDirectory() as folder:
        train, test = (
            cached_features(network.encoder(), part.paths, size=size, cache_dir=folder)
            for part in (data.train, data.test)
        )
    classifiers = train_grid(train, torch.from_numpy(data.train.targets), recipe)
    return [
        mean_average_precision(classifiers.scores(test, index), data.test.targets)
        for index in range(len(recipe.learning_rates))
    ]


def main() -> None:
    args = parse_args()
    logging.disable(logging.INFO)
    (network,) = read_networks([args.checkpoint])
    data = load_data("voc07", *voc07_sources(args.voc))
    recipe = LinearRecipe(epochs=args.epochs)
    if args.rate not in recipe.learning_rates:
        raise SystemExit(f"--rate must be one of the grid, {recipe.learning_rates}")
    start = time.perf_counter()
    figures = run_grid(network, data, recipe, args.size)
    grid_seconds = time.perf_counter() - start
    start = time.perf_counter()
    plain = run_plain(network, data, recipe, args)
    plain_seconds = time.perf_counter() - start
    rates = len(recipe.learning_rates)
    print(f"{len(data.train.paths)} + {len(data.test.paths)} images, {args.epochs} epochs")
    print(f"runner, one rate    {plain_seconds:8.1f} s   mAP {plain:.3f}")
    print(
        f"grid, {rates} rates       {grid_seconds:8.1f} s   mAP {figures[recipe.learning_rates.index(args.rate)]:.3f}"
    )
    print(f"the runner would take {rates * plain_seconds / grid_seconds:.0f} x as long for the grid")


if __name__ == "__main__":
    main()
