"""Features of centre crops from a frozen backbone."""

import cv2
import numpy as np
import pytest
import torch
from mmpretrain.models import ResNet

from sspyr_mm.features import extract_features
from sspyr_mm.features.extraction import BATCH, CentreCrops, FrozenEncoder


def encoder(**options):
    torch.manual_seed(0)
    backbone = ResNet(18, stem_channels=8, base_channels=8)
    for module in backbone.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.normal_(module.running_mean, std=0.1)
    backbone.train()
    return FrozenEncoder(backbone, (120, 110, 100), (58, 57, 56), identity="one", **options)


def write_images(folder, count):
    paths = [str(folder / f"{index}.png") for index in range(count)]
    for index, path in enumerate(paths):
        image = np.random.default_rng(index).integers(0, 60 * (index % 4 + 1), (48, 48, 3), np.uint8)
        cv2.imwrite(path, image)
    return paths


def test_broken_labelled_image_is_an_error(tmp_path):
    (tmp_path / "broken.jpg").write_bytes(b"no image")
    with pytest.raises(ValueError, match=r"broken\.jpg: not an image that can be decoded"):
        extract_features(encoder(), [str(tmp_path / "broken.jpg")], size=16)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_features_do_not_depend_on_other_images(tmp_path, num_workers):
    paths = write_images(tmp_path, BATCH + 3)
    network = encoder()
    before = {name: buffer.clone() for name, buffer in network.named_buffers()}
    together = extract_features(network, paths, size=32, num_workers=num_workers)
    for index in (0, BATCH - 1, BATCH, BATCH + 2):
        alone = extract_features(network, paths[index : index + 1], size=32)
        torch.testing.assert_close(together[index : index + 1], alone, rtol=1e-5, atol=1e-6)
    assert together.std(0).max() > 0.01
    for name, buffer in network.named_buffers():
        assert torch.equal(buffer, before[name]), name


def test_images_are_decoded_with_the_encoders_options(tmp_path):
    deep = np.full((32, 32, 3), 100, np.uint16)
    cv2.imwrite(str(tmp_path / "deep.png"), deep)
    paths = [str(tmp_path / "deep.png")]
    found = extract_features(encoder(decoding={"value_range": (0, 100)}), paths, size=32)
    cv2.imwrite(str(tmp_path / "plain.png"), np.full((32, 32, 3), 255, np.uint8))
    assert CentreCrops(paths, 32, {"value_range": (0, 100)})[0].unique().tolist() == [255]
    plain = extract_features(encoder(), [str(tmp_path / "plain.png")], size=32)
    torch.testing.assert_close(found, plain, rtol=0, atol=0)
    assert not torch.allclose(extract_features(encoder(), paths, size=32), plain, rtol=0, atol=0)
