"""Prints the cost of a step of every method with ResNet-50, relative to MoCo v2: operations, and time on a CPU.

Run it on an idle machine: ``PYTHONPATH=tests python tests/instruments/method_cost.py``
"""

import copy
import time
from pathlib import Path
from statistics import median

import torch
from mmengine.config import Config
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import init_default_scope
from mmpretrain.registry import MODELS

import sspyr_mm.registration  # noqa: F401
from instruments.fake_step import make_inputs, step_flops
from sspyr_mm.models import SSPRL

CONFIGS = Path(__file__).parents[2] / "configs"
METHODS = ("mocov2", "maskco", "densecl", "detco", "byol", "swav", "insloc", "ssprl")
IMAGES, REPEATS = 8, 5


def build(method):
    cfg = Config.fromfile(CONFIGS / method / "r50_coco_200e.py")
    torch.manual_seed(0)
    return revert_sync_batchnorm(MODELS.build(cfg.model)).train()


def step(model, inputs):
    """Forward and backward pass, and the momentum encoder."""
    losses = model.loss(inputs)
    sum(value for name, value in losses.items() if name.startswith("loss")).backward()
    if not isinstance(model, SSPRL):
        model.finish_step(0.99)
    model.zero_grad()


def seconds(models, inputs):
    """Median time of a step of every model, which take turns."""
    times = {name: [] for name in models}
    for _ in range(REPEATS + 1):
        for name, model in models.items():
            start = time.perf_counter()
            step(model, inputs[name])
            times[name].append(time.perf_counter() - start)
    return {name: median(found[1:]) for name, found in times.items()}  # the first one warms up


def main():
    init_default_scope("mmpretrain")
    models = {method: build(method) for method in METHODS}
    work = {name: step_flops(copy.deepcopy(model), IMAGES) / IMAGES / 2e9 for name, model in models.items()}
    took = seconds(models, {name: make_inputs(model, IMAGES) for name, model in models.items()})
    print("| method | G multiply-adds per image | relative | time relative |\n|---|---|---|---|")
    for name in METHODS:
        relative = work[name] / work["mocov2"], took[name] / took["mocov2"]
        print(f"| {name} | {work[name]:.1f} | {relative[0]:.2f} | {relative[1]:.2f} |")


if __name__ == "__main__":
    main()
