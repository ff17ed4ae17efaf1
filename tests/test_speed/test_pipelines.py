"""What is compared makes the same views, and takes the same step."""

import numpy as np
import pytest
import torch
from mmengine.config import Config
from PIL import Image

from sspyr_mm.models import SSPRL
from sspyr_mm.pyramid import PyramidSpec
from sspyr_mm.speed import timing
from sspyr_mm.speed.images import find_images, make_images
from sspyr_mm.speed.pipelines import Ours, PlainPipeline
from sspyr_mm.speed.release_step import ReleaseStep, stack_views
from sspyr_mm.speed.swav import mmpretrain_pipeline

PYRAMID = dict(
    s0=dict(region=32, patch=32, num_prototypes=5, alpha=1.0, area=(0.14, 1.0)),
    s1=dict(region=45, grid=2, patch=16, num_prototypes=4, alpha=0.25, beta=0.25),
    s2=dict(region=50, grid=3, patch=12, num_prototypes=3, alpha=0.5, beta=0.75),
)
SPEC = PyramidSpec.from_config(PYRAMID)


@pytest.fixture
def ramp(tmp_path):
    image = np.zeros((100, 100, 3), np.uint8)
    image[..., 0] = np.arange(100) * 2
    Image.fromarray(image).save(tmp_path / "ramp.png")
    return str(tmp_path / "ramp.png")


def test_both_pipelines_make_the_same_views(ramp):
    plain = PlainPipeline(SPEC)
    patches = plain(ramp)
    assert [p.shape[-1] for p in patches] == [32] * 2 + [16] * 8 + [12] * 18  # 28 patches
    assert all(p.shape == (3, p.shape[-1], p.shape[-1]) for p in patches)
    ours = Ours(SPEC)(ramp)["inputs"]
    assert {k: tuple(v.shape) for k, v in ours.items() if k != "seed"} == dict(
        s0=(2, 32, 32, 3), s1=(1, 45, 45, 3), s2=(1, 50, 50, 3)
    )
    # Without colours and flips: patch m of both views comes from the same cell, left of the next one's.
    photometric = plain.photometric
    photometric.jitter = photometric.gray = photometric.flip = lambda patch: patch
    patches = plain(ramp)
    red = [float(p[0].mean()) for p in patches[2:10]]
    assert max(red[0::2]) < min(red[1::2])
    stacked = stack_views([patches, plain(ramp)], SPEC)
    assert {k: tuple(v.shape) for k, v in stacked.items()} == dict(
        s0=(2, 2, 1, 3, 32, 32), s1=(2, 2, 4, 3, 16, 16), s2=(2, 2, 9, 3, 12, 12)
    )
    assert torch.equal(stacked["s2"][1, 0, 8], patches[27])
    assert torch.equal(stacked["s1"][0, 0, 1], patches[3])


def test_mmpretrains_pipeline_makes_eight_views(tmp_path):
    (path,) = make_images(tmp_path, 1)
    assert Image.open(path).size == (640, 480)
    views = mmpretrain_pipeline()(path)["inputs"]
    assert [tuple(v.shape[1:]) for v in views] == [(224, 224)] * 2 + [(96, 96)] * 6


def test_the_plain_step_has_the_release_variants_losses():
    torch.manual_seed(0)
    group = dict(type="GN", num_groups=2)
    backbone = dict(type="ResNet", depth=18, stem_channels=8, base_channels=8, norm_cfg=group)
    neck = dict(type="PyramidProjector", in_channels=64, hid_channels=8, out_channels=8)
    head = dict(type="SSPRLHead", variant="release")
    model = SSPRL(PYRAMID, backbone, {**neck, "norm_cfg": group}, head)
    model.init_weights()
    patches = {g.name: torch.randn(2, 6, g.num_patches, 3, g.patch, g.patch) for g in SPEC.groups}
    wanted = {n: v.item() for n, v in model.loss(patches).items() if n.startswith("loss")}
    start = {name: p.detach().clone() for name, p in model.named_parameters()}
    found = ReleaseStep(model)(patches)
    order = ["pyr_s0", "pyr_s1", "cross_s1", "pyr_s2", "cross_s2"]
    assert found == pytest.approx([wanted[f"loss_{name}"] for name in order], abs=1e-5)
    assert all(not torch.equal(p, start[n]) for n, p in model.named_parameters() if "bias" not in n)


def test_things_are_timed_in_turn(monkeypatch):
    calls, clock = [], iter([0, 1, 1, 3, 3, 9, 0, 4, 4, 9, 9, 11, *range(100)])
    monkeypatch.setattr(timing, "process_time", lambda: next(clock))
    functions = {name: lambda item, name=name: calls.append(item + name) for name in "ab"}
    medians = timing.cpu_ms(functions, ["x", "y", "z"], block=3)
    assert calls == ["xa", "xa", "ya", "za", "xb", "xb", "yb", "zb"]
    assert medians == dict(a=2000, b=4000)
    calls.clear()
    timing.cpu_ms(functions, ["x", "y", "z"], block=2)
    assert calls == ["xa", "xa", "ya", "xb", "xb", "yb", "za", "za", "zb", "zb"]


def test_the_first_call_does_not_count(monkeypatch):
    clock = iter([0, 0, 0, 1, 1, 3, 3, 6, 6, 8])  # the first two have no end
    monkeypatch.setattr(timing, "perf_counter", lambda: next(clock))
    functions = {"a": lambda: None, "b": lambda: None}
    found = timing.wall_ms(functions, rounds=2, device=torch.device("cpu"))
    assert found == dict(a=2000, b=2000)


def test_images_of_ones_own(tmp_path):
    for index in range(3):
        Image.fromarray(np.full((48, 64, 3), 99, np.uint8)).save(tmp_path / f"{index}.jpg")
    assert len(find_images(str(tmp_path), 2)) == 2
    with pytest.raises((ValueError, FileNotFoundError), match="nothing"):
        find_images(str(tmp_path / "nothing"), 2)


def test_large_photographs_are_decoded_as_in_training(tmp_path):
    """At a quarter of their size, where regions have no use for more."""
    pixels = np.random.default_rng(0).integers(0, 256, (30, 40, 3), dtype=np.uint8)
    path = str(tmp_path / "large.jpg")
    Image.fromarray(pixels).resize((4000, 3000)).save(path)
    spec = PyramidSpec.from_config(Config.fromfile("configs/ssprl/r50_coco_200e.py").model.pyramid)
    assert Ours(spec).decode(path).shape == (750, 1000, 3)
