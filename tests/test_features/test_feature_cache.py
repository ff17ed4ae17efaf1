"""Cached features: equal to computed ones, computed once, and computed again after a change."""

import os
from functools import partial

import cv2
import numpy as np
import pytest
import torch
from mmpretrain.models import ResNet
from PIL import Image
from torchvision.transforms import CenterCrop, Compose, Resize

from sspyr_mm.features import extraction as features_module
from sspyr_mm.features.extraction import CentreCrops, FrozenEncoder, Shard, cached_features

SIZE = 32


@pytest.fixture
def encoder():
    torch.manual_seed(0)
    backbone = ResNet(18, stem_channels=8, base_channels=8, norm_cfg=dict(type="BN"))
    backbone.out_indices = (3,)
    for module in backbone.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
    return FrozenEncoder(backbone, (120, 110, 100), (58, 57, 56), identity="one")


@pytest.fixture
def paths(tmp_path, monkeypatch):
    monkeypatch.setattr(features_module, "SHARD", 4)
    monkeypatch.setattr(features_module, "BATCH", 3)
    rng = np.random.default_rng(0)
    files = []
    for i in range(10):
        image = cv2.resize(rng.integers(0, 256, (6, 8, 3), np.uint8), (64 + i, 48))
        files.append(str(tmp_path / f"{i}.png"))
        cv2.imwrite(files[-1], image)
    return files


def extract(encoder, paths, tmp_path, **kwargs):
    return cached_features(encoder, paths, size=SIZE, cache_dir=tmp_path / "cache", num_workers=0, **kwargs)


def shards(tmp_path):
    return sorted((tmp_path / "cache").rglob("*.npy"))


def test_features_equal_those_of_single_images(encoder, paths, tmp_path):
    features = extract(encoder, paths, tmp_path)
    crops = CentreCrops(paths, SIZE)
    alone = torch.cat([encoder(crops[i][None]) for i in range(len(paths))])
    torch.testing.assert_close(features, alone, rtol=1e-5, atol=1e-6)
    assert features.std(0).max() > 0.01
    assert len(shards(tmp_path)) == 3
    with torch.no_grad():
        by_hand = (crops[0].float() - torch.tensor([120.0, 110, 100])[:, None, None]) / (
            torch.tensor([58.0, 57, 56])[:, None, None]
        )
        expected = encoder.backbone(by_hand[None])[-1].mean((2, 3))[0]
    torch.testing.assert_close(features[0], expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("shape", [(64, 96), (96, 64)])
def test_crops_equal_torchvision(tmp_path, shape):
    """A side of 28 is the centre of 32, as 224 is of 256."""
    image = np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8)
    Image.fromarray(image).save(tmp_path / "image.png")
    reference = Compose([Resize(32), CenterCrop(28)])(Image.fromarray(image))
    crop = CentreCrops([str(tmp_path / "image.png")], 28)[0]
    np.testing.assert_array_equal(crop.permute(1, 2, 0), np.asarray(reference))


def test_only_missing_shards_are_extracted(encoder, paths, tmp_path, monkeypatch):
    first = extract(encoder, paths, tmp_path)
    lost = shards(tmp_path)[1]
    lost.unlink()
    left_over = lost.with_name(f"{lost.name}.host.123.ab.partial")
    left_over.write_bytes(b"half")
    os.utime(left_over, (1, 1))
    living = lost.with_name(f"{lost.name}.other.123.cd.partial")  # of a concurrent run
    living.write_bytes(b"half")
    calls = []
    original = CentreCrops.__getitem__
    monkeypatch.setattr(CentreCrops, "__getitem__", lambda self, i: calls.append(i) or original(self, i))
    torch.testing.assert_close(extract(encoder, paths, tmp_path), first, rtol=0, atol=0)
    assert calls == [4, 5, 6, 7]
    assert list((tmp_path / "cache").rglob("*.partial")) == [living]
    extract(encoder, paths, tmp_path)
    assert calls == [4, 5, 6, 7]


@pytest.mark.parametrize("damage", ["empty", "cut", "header", "zeros", "a bit", "no digest", "rows", "dtype", "ndim"])
def test_damaged_shard_is_extracted_again(encoder, paths, tmp_path, damage, capsys):
    first = extract(encoder, paths, tmp_path)
    shard = shards(tmp_path)[1]
    content = shard.read_bytes()
    features = np.load(shard)
    others = {"rows": features[:3], "dtype": features.astype(np.float64), "ndim": features[..., None]}
    if damage in others:  # complete, but of another shape or type
        Shard(shard, range(4, 8)).save(others[damage])
    else:
        middle = len(content) // 2
        damaged = {
            "empty": b"",
            "cut": content[:-8],
            "header": b"\x93NUMPY",
            "zeros": content[:middle] + bytes(16) + content[middle + 16 :],
            "a bit": content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :],
            "no digest": content[:-32],
        }
        shard.write_bytes(damaged[damage])
    assert torch.equal(extract(encoder, paths, tmp_path), first)
    assert shard.read_bytes() == content
    assert f"{shard} is damaged (" in capsys.readouterr().err


def test_shard_is_read_once(encoder, paths, tmp_path, monkeypatch):
    first = extract(encoder, paths, tmp_path)
    reads = []
    original = type(tmp_path).read_bytes
    monkeypatch.setattr(type(tmp_path), "read_bytes", lambda self: reads.append(self) or original(self))
    assert torch.equal(extract(encoder, paths, tmp_path), first)
    assert reads == shards(tmp_path)


def test_features_that_cannot_be_read_back_are_an_error(encoder, paths, tmp_path, monkeypatch):
    original = type(tmp_path).write_bytes
    monkeypatch.setattr(type(tmp_path), "write_bytes", lambda path, data: original(path, data[:-1]))
    with pytest.raises(OSError, match=r"000000_\w+\.npy, .*can't be read back .*: check the disk"):
        extract(encoder, paths, tmp_path)


def test_changed_image_encoder_or_size_gives_other_features(encoder, paths, tmp_path):
    first = extract(encoder, paths, tmp_path)
    cv2.imwrite(paths[3], np.full((48, 64, 3), 255, np.uint8))
    os.utime(paths[3], ns=(1, 1))
    second = extract(encoder, paths, tmp_path)
    assert not torch.allclose(second[3], first[3])
    torch.testing.assert_close(second[4], first[4])
    encoder.identity = "two"
    with torch.no_grad():
        encoder.backbone.conv1.weight.mul_(2)
    assert not torch.allclose(extract(encoder, paths, tmp_path), second)
    cached_features(encoder, paths, size=48, cache_dir=tmp_path / "cache", num_workers=0)
    assert sorted(len(list(folder.glob("*.npy"))) for folder in (tmp_path / "cache").iterdir()) == [3, 3, 4]


@pytest.mark.parametrize("change", ["identity", "mean", "std", "version", "decoding"])
def test_changed_encoder_or_version_has_separate_features(encoder, paths, tmp_path, monkeypatch, change):
    first = extract(encoder, paths, tmp_path)
    if change == "version":
        monkeypatch.setattr(features_module, "__version__", "99.0")
    elif change == "identity":
        encoder.identity = "two"
    elif change == "decoding":
        encoder.decoding = {"value_range": (0, 255)}
    else:
        getattr(encoder, change).mul_(2)
    second = extract(encoder, paths, tmp_path)
    assert len(list((tmp_path / "cache").iterdir())) == 2
    assert torch.equal(first, second) == (change not in ("mean", "std"))


def test_changed_image_of_equal_file_size_is_extracted_again(encoder, paths, tmp_path):
    first = extract(encoder, paths, tmp_path)
    size = os.path.getsize(paths[3])
    with open(paths[3], "rb+") as file:
        file.truncate(0)
        file.write(cv2.imencode(".png", np.full((48, 64, 3), 255, np.uint8))[1].tobytes())
        file.truncate(size)  # fills up; readers stop at the end mark
    os.utime(paths[3], ns=(1, 1))
    second = extract(encoder, paths, tmp_path)
    same = [torch.allclose(a, b) for a, b in zip(first, second, strict=True)]
    assert same == [index != 3 for index in range(10)]


class Counted(torch.nn.Module):
    """A backbone that logs the number of images it computes, in any process."""

    def __init__(self, backbone, log):
        super().__init__()
        self.backbone, self.log = backbone, log

    def forward(self, images):
        with open(self.log, "a") as file:
            file.write(f"{len(images)}\n")
        return self.backbone(images)


def test_devices_share_the_shards(encoder, paths, tmp_path, monkeypatch):
    monkeypatch.undo()  # it does not apply to other processes
    many = paths * 52  # two shards
    alone = extract(encoder, many, tmp_path)
    encoder.backbone = Counted(encoder.backbone, str(tmp_path / "log"))
    options = dict(size=SIZE, cache_dir=tmp_path / "other", devices=("cpu", "cpu"), num_workers=0)
    shared = cached_features(encoder, many, **options)
    torch.testing.assert_close(shared, alone, rtol=1e-6, atol=1e-6)
    assert sum(map(int, (tmp_path / "log").read_text().split())) == len(many)  # each image once
    assert not torch.equal(shared[0], shared[1])


def test_error_on_one_of_several_devices_is_reported(encoder, paths, tmp_path, monkeypatch):
    fork = partial(torch.multiprocessing.start_processes, start_method="fork")  # imports nothing again
    monkeypatch.setattr(torch.multiprocessing, "spawn", fork)
    for path in paths:
        with open(path, "wb") as file:
            file.write(b"no image")
    with pytest.raises(ValueError, match=r"\d\.png: not an image"):
        extract(encoder, paths, tmp_path, devices=("cpu", "cpu"))


def test_unreadable_and_missing_files_are_named(encoder, paths, tmp_path):
    features = extract(encoder, paths, tmp_path)
    with open(paths[2], "wb") as file:
        file.write(b"no image")
    with pytest.raises(ValueError, match=r"2\.png: not an image .*It cannot be skipped here"):
        extract(encoder, paths, tmp_path)
    os.remove(paths[2])
    with pytest.raises(FileNotFoundError, match=r"2\.png"):
        extract(encoder, paths, tmp_path)
    assert features.shape == (10, 64)


def test_encoder_stays_in_evaluation_mode(encoder):
    encoder.train()
    assert not any(module.training for module in encoder.modules())
    assert not any(p.requires_grad for p in encoder.parameters())
