"""Runs that are broken on purpose are named by the verdict on their health; a healthy one is fine."""

import re

import cv2
import numpy as np
import pytest
import torch
from mmpretrain.registry import TASK_UTILS
from project import ROOT
from small_runs import train, warnings_of

from sspyr_mm.datasets.toy_scenes import generate
from sspyr_mm.models import SinkhornAssigner

pytestmark = pytest.mark.slow

CONFIG = """
_base_ = "{root}/configs/{base}"
model = dict({model})
train_dataloader = dict(batch_size=32, num_workers=0, persistent_workers=False, dataset=dict(data_root="{data}"))
train_cfg = dict(max_epochs=20)
default_hooks = dict(
    checkpoint=dict(interval=1000), health=dict(type="HealthHook", interval=20, patience=60, table_interval=160)
)
"""


SSPRL = ("ssprl/r18_toy_scenes_40e.py", "pyramid=dict(s0=dict(region=48, patch=48), s1=dict(region=72, patch=24))")


@TASK_UTILS.register_module()
class NearestAssigner(SinkhornAssigner):
    """Codes without the constraint that all prototypes are used equally."""

    def assign_many(self, scores):
        return [torch.softmax(100 * one.double(), dim=1).float() for one in scores]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Folders of 256 images: scenes, images of one colour, copies of one scene."""
    folder = tmp_path_factory.mktemp("data")
    generate(folder / "s", num_train=256, num_val=1, size=(96, 96), seed=0)
    scenes = folder / "s/train2017"
    first = next(iter(sorted(scenes.iterdir())))
    for name in ("flat", "copies"):
        (folder / name).mkdir()
    for number in range(256):
        cv2.imwrite(str(folder / f"flat/{number:03}.jpg"), np.full((96, 96, 3), 128, np.uint8))
        (folder / f"copies/{number:03}.jpg").write_bytes(first.read_bytes())
    return {"scenes": scenes, "flat": folder / "flat", "copies": folder / "copies"}


NO_AUGMENTATION = {
    **{f"model.data_preprocessor.{name}_prob": 0.0 for name in ("flip", "jitter", "gray", "blur")},
    **{f"model.pyramid.{scale}.area": (1.0, 1.0) for scale in ("s0", "s1")},
}
RUNS = {
    "healthy": ("scenes", {}, {}),
    "epsilon too high": ("scenes", {"model.head.assigner.epsilon": 0.5}, {"s0": "stuck", "s1": "stuck"}),
    "learning rate x 100": ("scenes", {"optim_wrapper.optimizer.lr": 0.3}, {"s0": "collapsed", "s1": "collapsed"}),
    "images of one colour": ("flat", {}, {"features": "blank images"}),
    "no augmentation": ("scenes", NO_AUGMENTATION, {"s0": "equal views"}),
    "queue of 8 epochs": ("scenes", {"model.pyramid.s0.queue_length": 2048}, {"s0": "old queue"}),
    "codes without Sinkhorn": ("scenes", {"model.head.assigner.type": "NearestAssigner"}, {"s0": "few prototypes"}),
    "copies of one image": ("copies", {}, {"s1": "position"}),
}


def signs(base, model, data, options, folder, log):
    """The signs that a run warns of, by group, and its last table."""
    (folder / "config.py").write_text(CONFIG.format(root=ROOT, base=base, model=model, data=data))
    train(folder / "config.py", folder / "run", options)
    warned = [re.match(r"Health of (\w+): ([a-z ]+) for ", m) for m in warnings_of(log)]
    (table,) = [message for _, message in log if message.startswith("Health at iteration 160")]
    print(table)  # for docs/health.md
    return {match[1]: match[2] for match in warned if match}, table


@pytest.mark.parametrize("name", RUNS)
def test_broken_run_is_named(name, folders, tmp_path, log):
    data, options, expected = RUNS[name]
    found, table = signs(*SSPRL, folders[data], options, tmp_path, log)
    assert expected.items() <= found.items() if expected else not found
    assert [line for line in expected if f"broken, {expected[line]}" not in table] == []


@pytest.mark.parametrize("padding", ["zeros", "circular"])
def test_positions_that_solve_the_dense_term_are_named(padding, folders, tmp_path, log):
    """Each position of the map has one embedding, whatever the image, if zero padding gives the position away."""
    conv = f"backbone=dict(conv_cfg=dict(type='Conv2d', padding_mode='{padding}')), head=dict(queue_length=64)"
    found, table = signs("densecl/r18_small.py", conv, folders["scenes"], {}, tmp_path, log)
    assert found.get("dense") == ("position" if padding == "zeros" else None)
    assert ("broken, position" in table) == (padding == "zeros")


@pytest.mark.parametrize("method", ["mocov2", "byol"])
def test_healthy_run_of_another_method_is_fine(method, folders, tmp_path, log):
    model = "head=dict(queue_length=64)" if method == "mocov2" else ""
    found, table = signs(f"{method}/r18_small.py", model, folders["scenes"], {}, tmp_path, log)
    assert not found and "  main      fine  " in table
