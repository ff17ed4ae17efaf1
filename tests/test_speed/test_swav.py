"""What others' SwAV is timed with: their views, and a step that trains."""

import pytest
import torch
from mmengine.config import Config
from torch.utils.data import default_collate

import sspyr_mm.registration  # noqa: F401
from sspyr_mm.speed.images import make_images
from sspyr_mm.speed.setting import Setting
from sspyr_mm.speed.swav import (
    lightly_swav,
    mmpretrain_config,
    mmpretrain_swav,
    scaled_sides,
    view_pixels,
)
from sspyr_mm.speed.training import measure_release

CPU = torch.device("cpu")


class KeptSetting(Setting):
    """Keeps what would be timed."""

    def build(self, **changes):
        self.built = super().build(**changes)
        return self.built

    def images_per_s(self, *measured):
        self.measured = measured
        return 1.0


@pytest.fixture
def setting(tmp_path):
    cfg = Config.fromfile("configs/ssprl/r18_small_50e.py")
    return KeptSetting(
        cfg, CPU, batch_size=4, num_workers=0, paths=make_images(tmp_path, 4), rounds=1
    )


def test_views_of_the_paper():
    assert scaled_sides(224) == (224, 96) and scaled_sides(64) == (64, 27)
    assert view_pixels((224, 96)) == 2 * 224**2 + 6 * 96**2


def seen_by(layer, step, batch):
    """Type and memory format of what a layer gives in a step."""
    seen = []
    handle = layer.register_forward_hook(lambda module, given, result: seen.append(result))
    step(batch)
    handle.remove()
    return {x.dtype for x in seen}, all(
        x.is_contiguous(memory_format=torch.channels_last) for x in seen
    )


@pytest.mark.parametrize("name", ["mmpretrain", "lightly", "release"])
@pytest.mark.parametrize("last", [True, False])
def test_all_have_the_configs_precision_and_memory_format(setting, name, last):
    setting.cfg.optim_wrapper.type = "AutocastOptimWrapper"
    setting.cfg.model.channels_last = last
    if name == "release":
        measure_release(setting)
        (pipeline, collate, step), layer = setting.measured, setting.built.backbone.layer1
    else:
        if name == "lightly":
            pytest.importorskip("lightly")
        made = {"mmpretrain": mmpretrain_swav, "lightly": lightly_swav}[name](setting)
        pipeline, collate, step = made.pipeline, made.collate, made.step
        layer = step.args[0].backbone.layer1
    batch = collate([pipeline(path) for path in setting.paths])
    assert seen_by(layer, step, batch) == ({torch.bfloat16}, last)


def trained(step, batch, parameters):
    before = [p.detach().clone() for p in parameters]
    step(batch)
    return all(not torch.equal(a, b) for a, b in zip(before, parameters, strict=True))


def test_mmpretrains_step_trains_the_configs_backbone(setting):
    swav = mmpretrain_swav(setting)
    batch = swav.collate([swav.pipeline(path) for path in setting.paths])
    assert [tuple(v.shape) for v in batch["inputs"]] == [(4, 3, 64, 64)] * 2 + [(4, 3, 27, 27)] * 6
    model = swav.step.args[0]
    assert model.backbone.base_channels == 16 and type(model.backbone).__name__ == "ResNet"
    assert model.head.loss_module.prototypes.weight.shape == (60, 64)
    assert trained(swav.step, batch, [model.backbone.conv1.weight, *model.neck.parameters()])
    # Built from the config it ships, whose numbers are left alone otherwise.
    assert (
        swav.step.args[1].optimizer.defaults["lr"] == mmpretrain_config().optim_wrapper.optimizer.lr
    )


def test_lightlys_step_trains_the_configs_backbone(setting):
    pytest.importorskip("lightly")
    swav = lightly_swav(setting)
    batch = default_collate([swav.pipeline(path) for path in setting.paths])
    assert [tuple(v.shape) for v in batch] == [(4, 3, 64, 64)] * 2 + [(4, 3, 27, 27)] * 6
    model = swav.step.args[0]
    assert trained(swav.step, batch, [model.backbone.conv1.weight, *model.projector.parameters()])
