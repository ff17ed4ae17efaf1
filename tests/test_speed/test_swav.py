"""What others' SwAV is timed with: their views, and a step that trains."""

import pytest
import torch
from mmengine.config import Config
from torch.utils.data import default_collate

import sspyr_mm  # noqa: F401
from sspyr_mm.speed.images import make_images
from sspyr_mm.speed.swav import (
    lightly_swav,
    mmpretrain_config,
    mmpretrain_swav,
    scaled_sides,
    view_pixels,
)

CPU = torch.device("cpu")


@pytest.fixture
def cfg():
    return Config.fromfile("configs/ssprl/r18_small_50e.py")


@pytest.fixture
def paths(tmp_path):
    return make_images(tmp_path, 4)


def test_views_of_the_paper():
    assert scaled_sides(224) == (224, 96) and scaled_sides(64) == (64, 27)
    assert view_pixels((224, 96)) == 2 * 224**2 + 6 * 96**2


def trained(step, batch, parameters):
    before = [p.detach().clone() for p in parameters]
    step(batch)
    return all(not torch.equal(a, b) for a, b in zip(before, parameters, strict=True))


def test_mmpretrains_step_trains_the_configs_backbone(cfg, paths):
    swav = mmpretrain_swav(cfg, CPU)
    batch = swav.collate([swav.pipeline(path) for path in paths])
    assert [tuple(v.shape) for v in batch["inputs"]] == [(4, 3, 64, 64)] * 2 + [(4, 3, 27, 27)] * 6
    model = swav.step.args[0]
    assert model.backbone.base_channels == 16 and type(model.backbone).__name__ == "ResNet"
    assert model.head.loss_module.prototypes.weight.shape == (60, 64)
    assert trained(swav.step, batch, [model.backbone.conv1.weight, *model.neck.parameters()])
    # Built from the config it ships, whose numbers are left alone otherwise.
    assert (
        swav.step.args[1].optimizer.defaults["lr"] == mmpretrain_config().optim_wrapper.optimizer.lr
    )


def test_lightlys_step_trains_the_configs_backbone(cfg, paths):
    pytest.importorskip("lightly")
    swav = lightly_swav(cfg, CPU)
    batch = default_collate([swav.pipeline(path) for path in paths])
    assert [tuple(v.shape) for v in batch] == [(4, 3, 64, 64)] * 2 + [(4, 3, 27, 27)] * 6
    model = swav.step.args[0]
    assert trained(swav.step, batch, [model.backbone.conv1.weight, *model.projector.parameters()])
