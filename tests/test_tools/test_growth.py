"""Work of a step grows with the pixels of its patches, and with nothing faster."""

import pytest
from instruments.fake_step import step_flops
from mmengine.config import Config
from speed_scripts import growth


def flops(num_scales, *, batch=2, prototypes=None):
    """Of ResNet-18, which is built faster than the config's ResNet-50."""
    model = Config.fromfile("configs/ssprl/r50_coco_200e.py").model
    model.backbone.depth, model.neck.in_channels = 18, 512
    pyramid = growth.grown_pyramid(num_scales, prototypes)
    return step_flops(growth.build_grown(model, pyramid), batch)


def test_linear_in_the_pixels_of_patches():
    pixels = [growth.count_pixels(growth.grown_pyramid(count)) for count in (1, 3, 5)]
    per_pixel = [flops(count) / pixels[index] for index, count in enumerate((1, 3, 5))]
    assert per_pixel == pytest.approx([per_pixel[0]] * 3, rel=0.05)


def test_linear_in_the_batch():
    one, two, four = (flops(3, batch=size) for size in (1, 2, 4))
    assert four - two == pytest.approx(2 * (two - one), rel=1e-3)


@pytest.mark.parametrize("grown", [["s0"], ["s1", "s2"]])
def test_linear_in_the_number_of_prototypes(grown):
    one, two, four = (flops(3, prototypes=dict.fromkeys(grown, count)) for count in (1000, 2000, 4000))
    assert two - one < 0.02 * one
    assert four - two == pytest.approx(2 * (two - one), rel=1e-6)
