"""Work of a step grows with the pixels of its patches, and with nothing faster."""

import itertools

import pytest
from mmengine.config import Config

import sspyr_mm.registration  # noqa: F401
from sspyr_mm.speed.fake_step import step_flops
from sspyr_mm.speed.growth import build_grown, grown_pyramid, pixels


def flops(num_scales, *, batch=2, prototypes=None):
    model = build_grown(
        Config.fromfile("configs/ssprl/r50_coco_200e.py").model,
        grown_pyramid(num_scales, prototypes),
    )
    return step_flops(model, batch)


def test_linear_in_the_pixels_of_patches():
    per_pixel = [flops(count) / pixels(grown_pyramid(count)) for count in range(1, 6)]
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
