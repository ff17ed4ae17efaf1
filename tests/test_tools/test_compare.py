"""Other implementations in the comparison: their views, and a step that trains."""

import json
import sys

import numpy as np
import pytest
import torch
from mmengine.config import Config
from PIL import Image
from speed_scripts import compare, official_step, pillow_views, swav
from torch.utils.data import default_collate
from torchvision.transforms.functional import to_tensor

from sspyr_mm.models import SSPRL
from sspyr_mm.pyramid import PyramidSpec
from sspyr_mm.speed.inputs import PyramidPipeline, make_images
from sspyr_mm.speed.training import Setting

PYRAMID = dict(
    s0=dict(region=32, patch=32, num_prototypes=5, alpha=1.0, area=(0.14, 1.0)),
    s1=dict(region=45, grid=2, patch=16, num_prototypes=4, alpha=0.25, beta=0.25),
    s2=dict(region=50, grid=3, patch=12, num_prototypes=3, alpha=0.5, beta=0.75),
)
SPEC = PyramidSpec.from_config(PYRAMID)
METHODS = {"official": compare.train_official, "mmpretrain": swav.mmpretrain_swav, "lightly": swav.lightly_swav}


@pytest.fixture
def setting(tmp_path):
    cfg, paths = Config.fromfile("configs/ssprl/r18_small_50e.py"), make_images(tmp_path, 4)
    cpu = torch.device("cpu")
    return Setting(cfg, cpu, batch_size=4, num_workers=0, paths=paths, rounds=1, calls=1)


def make(name, setting):
    """A method, a batch of it, and the backbone that the step trains."""
    if name == "lightly":
        pytest.importorskip("lightly")
    if name == "official":  # its step hides the model
        setting.build = lambda **changes: made.append(Setting.build(setting, **changes)) or made[0]
    made = []
    method = METHODS[name](setting)
    model = made[0] if made else method.step.args[0]
    return method, method.collate([method.pipeline(path) for path in setting.paths]), model


def test_sides_and_pixels_of_swavs_paper():
    assert swav.scaled_sides(224) == (224, 96) and swav.scaled_sides(64) == (64, 27)
    assert swav.view_pixels((224, 96)) == 2 * 224**2 + 6 * 96**2


def test_mmpretrains_pipeline_makes_eight_views(tmp_path):
    (path,) = make_images(tmp_path, 1)
    views = swav.mmpretrain_pipeline()(path)["inputs"]
    assert [tuple(v.shape[1:]) for v in views] == [(224, 224)] * 2 + [(96, 96)] * 6


@pytest.fixture
def ramp(tmp_path):
    image = np.zeros((100, 100, 3), np.uint8)
    image[..., 0] = np.arange(100) * 2
    Image.fromarray(image).save(tmp_path / "ramp.png")
    return str(tmp_path / "ramp.png")


def test_pillow_makes_the_same_views(ramp):
    pillow = pillow_views.PillowPipeline(SPEC)
    patches = pillow(ramp)
    assert [p.shape[-1] for p in patches] == [32] * 2 + [16] * 8 + [12] * 18  # 28 patches
    assert all(p.shape == (3, p.shape[-1], p.shape[-1]) for p in patches)
    ours = PyramidPipeline(SPEC)(ramp)["inputs"]
    assert {k: tuple(v.shape) for k, v in ours.items() if k != "seed"} == dict(
        s0=(2, 32, 32, 3), s1=(1, 45, 45, 3), s2=(1, 50, 50, 3)
    )
    # Without augmentation: patch m of both views comes from the same cell, left of the next cell.
    pillow.augment = to_tensor
    red = [float(p[0].mean()) for p in pillow(ramp)[2:10]]
    assert max(red[0::2]) < min(red[1::2])


def test_augmentation_is_measured_per_image(setting, monkeypatch):
    def wall_ms(functions, **options):
        assert options["num_threads"] == 1 and len(functions["pillow"]()) == 2 * 28  # 28 patches per image
        return {name: 6.0 * bool(function()) for name, function in functions.items()}

    monkeypatch.setattr(compare, "wall_ms", wall_ms)
    assert compare.measure_augmentation(SPEC, setting, 2) == {"ours_augment_ms": 3.0, "pillow_augment_ms": 3.0}


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("last", [True, False])
def test_all_have_the_configs_precision_and_memory_format(setting, name, last):
    setting.cfg.optim_wrapper.type = "AutocastOptimWrapper"
    setting.cfg.model.channels_last = last
    method, batch, model = make(name, setting)
    seen = []
    model.backbone.layer1.register_forward_hook(lambda module, given, result: seen.append(result))
    method.step(batch)
    assert {x.dtype for x in seen} == {torch.bfloat16}
    channels_last = [x.is_contiguous(memory_format=torch.channels_last) for x in seen]
    assert all(channels_last) == last


def trained(step, batch, parameters):
    before = [p.detach().clone() for p in parameters]
    step(batch)
    return all(not torch.equal(a, b) for a, b in zip(before, parameters, strict=True))


def test_mmpretrains_step_trains_the_configs_backbone(setting):
    method, batch, model = make("mmpretrain", setting)
    assert [tuple(v.shape) for v in batch["inputs"]] == [(4, 3, 64, 64)] * 2 + [(4, 3, 27, 27)] * 6
    assert model.backbone.base_channels == 16 and type(model.backbone).__name__ == "ResNet"
    assert model.head.loss_module.prototypes.weight.shape == (60, 64)
    assert trained(method.step, batch, [model.backbone.conv1.weight, *model.neck.parameters()])
    # Built from the config it ships, whose numbers are left alone otherwise.
    shipped = swav.mmpretrain_config().optim_wrapper.optimizer
    assert method.step.args[1].optimizer.defaults["lr"] == shipped.lr


def test_lightlys_step_trains_the_configs_backbone(setting):
    method, batch, model = make("lightly", setting)
    assert method.collate is default_collate
    assert [tuple(v.shape) for v in batch] == [(4, 3, 64, 64)] * 2 + [(4, 3, 27, 27)] * 6
    weights = [model.backbone.conv1.weight, *model.projector.parameters()]
    assert trained(method.step, batch, weights)


def test_views_of_the_official_step_are_stacked_by_scale(tmp_path):
    (path,) = make_images(tmp_path, 1)
    pipeline = pillow_views.PillowPipeline(SPEC)
    patches = pipeline(path)
    stacked = official_step.stack_views([patches, pipeline(path)], SPEC)
    assert {k: tuple(v.shape) for k, v in stacked.items()} == dict(
        s0=(2, 2, 1, 3, 32, 32), s1=(2, 2, 4, 3, 16, 16), s2=(2, 2, 9, 3, 12, 12)
    )
    assert torch.equal(stacked["s2"][1, 0, 8], patches[27])
    assert torch.equal(stacked["s1"][0, 0, 1], patches[3])


def test_the_official_step_has_the_losses_of_the_official_variant():
    torch.manual_seed(0)
    group = dict(type="GN", num_groups=2)
    backbone = dict(type="ResNet", depth=18, stem_channels=8, base_channels=8, norm_cfg=group)
    neck = dict(type="PyramidProjector", in_channels=64, hid_channels=8, out_channels=8)
    head = dict(type="SSPRLHead", variant="official")
    model = SSPRL(PYRAMID, backbone, {**neck, "norm_cfg": group}, head)
    model.init_weights()
    patches = {g.name: torch.randn(2, 6, g.num_patches, 3, g.patch, g.patch) for g in SPEC.groups}
    wanted = {n: v.item() for n, v in model.loss(patches).items() if n.startswith("loss")}
    start = {name: p.detach().clone() for name, p in model.named_parameters()}
    found = official_step.OfficialStep(model)(patches)
    order = ["pyr_s0", "pyr_s1", "cross_s1", "pyr_s2", "cross_s2"]
    assert found == pytest.approx([wanted[f"loss_{name}"] for name in order], abs=1e-5)
    assert all(not torch.equal(p, start[n]) for n, p in model.named_parameters() if "bias" not in n)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_loaders_read_all_images_from_files_and_shards(tmp_path, monkeypatch, num_workers):
    pytest.importorskip("litdata")
    paths, drained = make_images(tmp_path, 6), []

    def drain(loader):
        seen = list(loader)
        drained.append(sorted(sample["data_samples"].img_path for sample in seen))
        assert all(tuple(s["inputs"]["s0"].shape) == (2, 32, 32, 3) for s in seen)
        return len(seen)

    monkeypatch.setattr(compare, "drain", drain)
    found = compare.measure_loaders(SPEC, paths, num_workers=num_workers, rounds=1)
    assert found["files_images_per_s"] > 0 and found["shards_images_per_s"] > 0
    files = sorted(paths)
    names = [path.rpartition("/")[2] for path in files]
    # One epoch of shards is counted, two of each warm up, one is timed.
    assert drained.count(files) == 3 and drained.count(names) == 4


def test_loaders_without_litdata(tmp_path, monkeypatch):
    monkeypatch.setattr(compare.importlib.util, "find_spec", lambda name: None)
    found = compare.measure_loaders(SPEC, make_images(tmp_path, 2), num_workers=0, rounds=1)
    assert found.keys() == {"files_images_per_s"} and found["files_images_per_s"] > 0


def test_methods_that_do_not_fit_a_config_are_left_out(setting):
    every = {"ours", "official", "mmpretrain", *["lightly"] * compare.has_lightly()}
    assert compare.list_methods(setting).keys() == every
    setting.cfg.model.pyramid.s0.multi_crop = dict(num_views=6, patch=32)
    setting.cfg.model.backbone.type = "VisionTransformer"
    assert compare.list_methods(setting).keys() == {"ours"}


@pytest.mark.slow
def test_compare(tmp_path, monkeypatch):
    asked = ["--quick", "--batch-size", "2", "--num-workers", "1", "--out", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", ["compare", *asked])
    compare.main()
    found = json.loads((tmp_path / "compare.json").read_text())
    assert found["pixels"] == 2 * 64**2 + 2 * 4 * 40**2
    assert found["swav_pixels"] == 2 * 64**2 + 6 * 27**2
    for name in ("ours", "official", "mmpretrain"):
        assert found[f"{name}_images_per_s"] > 0, name
    for name in ("ours", "pillow", "mmpretrain"):
        assert found[f"{name}_worker_ms"] > 0, name
