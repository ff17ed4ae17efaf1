"""Centre crops, and features of a frozen backbone."""

import cv2
import numpy as np
import pytest
import torch

from sspyr_mm.evaluation.features import centre_crop, extract_features, load_centre_crops
from sspyr_mm.models import SSPRL


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
        ValueError, match=r"broken\.jpg: not an image that can be decoded\. It has a label"
    ):
        load_centre_crops([str(tmp_path / "broken.jpg")], 16)


def test_batch_norm_uses_its_running_averages_and_leaves_them(tmp_path):
    """Features of an image would otherwise depend on the other images of its batch."""
    torch.manual_seed(0)
    model = SSPRL(
        dict(s0=dict(region=32, patch=32, num_prototypes=3, alpha=1.0)),
        dict(type="ResNet", depth=18, stem_channels=8, base_channels=8),
        dict(type="PyramidProjector", in_channels=64, hid_channels=8, out_channels=8),
        dict(type="SSPRLHead"),
    )
    model.train()
    paths = [str(tmp_path / f"{index}.png") for index in range(4)]
    for index, path in enumerate(paths):
        rng = np.random.default_rng(index)
        cv2.imwrite(path, rng.integers(0, 60 * (index + 1), (48, 48, 3), np.uint8))
    before = {name: buffer.clone() for name, buffer in model.backbone.named_buffers()}
    together = extract_features(model, paths, size=32)
    alone = extract_features(model.train(), paths, size=32, batch_size=1)
    torch.testing.assert_close(together, alone, rtol=1e-5, atol=1e-6)
    assert together.std(0).max() > 0.01
    for name, buffer in model.backbone.named_buffers():
        assert torch.equal(buffer, before[name]), name
