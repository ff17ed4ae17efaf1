"""Centre crops for features."""

import numpy as np
import pytest

from sspyr_mm.evaluation.features import centre_crop, load_centre_crops


@pytest.mark.parametrize("shape", [(50, 80), (80, 50), (9, 300), (16, 16)])
def test_centre_crop_takes_the_middle(shape):
    image = np.zeros((*shape, 3), np.uint8)
    image[..., 0] = np.linspace(0, 250, shape[0]).round().astype(np.uint8)[:, None]
    image[..., 1] = np.linspace(0, 250, shape[1]).round().astype(np.uint8)[None]
    crop = centre_crop(image, 32)
    assert crop.shape == (32, 32, 3)
    assert np.abs(crop[..., :2].mean((0, 1)) - 125).max() < 5
    short = int(np.argmin(shape))
    assert np.ptp(crop[..., short]) == pytest.approx(250 * 224 / 256, abs=25)


def test_broken_image_of_a_labelled_set_is_an_error(tmp_path):
    (tmp_path / "broken.jpg").write_bytes(b"no image")
    with pytest.raises(
        ValueError, match=r"broken\.jpg is not an image that can be decoded: mend it"
    ):
        load_centre_crops([str(tmp_path / "broken.jpg")], 16)
