"""Work of a step grows with the pixels of its patches, and with nothing faster."""

import itertools

import pytest
from mmengine.config import Config
from mmpretrain.registry import MODELS

import sspyr_mm  # noqa: F401
from sspyr_mm.speed.fake_step import step_flops

SCALES = {  # five of them: 1, 4, 9, 16 and 25 patches a view
    "s0": dict(region=224, patch=224, num_prototypes=300, alpha=1.0),
    "s1": dict(grid=2, region=314, patch=112, num_prototypes=150, alpha=0.25, beta=0.25),
    "s2": dict(grid=3, region=383, patch=96, num_prototypes=150, alpha=0.25, beta=0.25),
    "s3": dict(grid=4, region=448, patch=96, num_prototypes=150, alpha=0.25, beta=0.25),
    "s4": dict(grid=5, region=560, patch=96, num_prototypes=150, alpha=0.25, beta=0.25),
}


def flops(num_scales, *, batch=2, prototypes=None):
    pyramid = {name: dict(SCALES[name]) for name in list(SCALES)[:num_scales]}
    for name, count in (prototypes or {}).items():
        pyramid[name]["num_prototypes"] = count
    cfg = Config.fromfile("configs/ssprl/r50_coco_200e.py").model
    norm = dict(type="BN")
    model = MODELS.build(
        dict(
            type="SSPRL",
            pyramid=pyramid,
            backbone={**cfg.backbone, "norm_cfg": norm},
            neck={**cfg.neck, "norm_cfg": norm},
            head=dict(type="SSPRLHead"),
        )
    )
    return step_flops(model.train(), batch)


def pixels(num_scales):
    shown = list(SCALES.values())[:num_scales]
    return sum(scale.get("grid", 1) ** 2 * scale["patch"] ** 2 for scale in shown)


def test_linear_in_the_pixels_of_patches():
    per_pixel = [flops(count) / pixels(count) for count in range(1, 6)]
    assert per_pixel == pytest.approx([per_pixel[0]] * 5, rel=0.05)


def test_linear_in_the_batch():
    work = [flops(3, batch=size) for size in (1, 2, 4, 8)]
    steps = [b - a for a, b in itertools.pairwise(work)]
    assert steps[1] == pytest.approx(2 * steps[0], rel=1e-3)
    assert steps[2] == pytest.approx(4 * steps[0], rel=1e-3)


@pytest.mark.parametrize("grown", [["s0"], ["s1", "s2"]])
def test_linear_in_the_number_of_prototypes(grown):
    work = {count: flops(3, prototypes=dict.fromkeys(grown, count)) for count in (1000, 2000, 4000)}
    assert work[2000] - work[1000] < 0.01 * work[1000]
    assert work[4000] - work[2000] == pytest.approx(2 * (work[2000] - work[1000]), rel=1e-6)
