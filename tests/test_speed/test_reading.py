"""Files and shards are read by the same pipeline, all of them, for real."""

import pytest

from sspyr_mm.pyramid import PyramidSpec
from sspyr_mm.speed import reading
from sspyr_mm.speed.images import make_images

SPEC = PyramidSpec.from_config(
    dict(s0=dict(region=32, patch=32, num_prototypes=5, alpha=1.0, area=(0.14, 1.0)))
)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_files_and_shards(tmp_path, monkeypatch, num_workers):
    paths, drained = make_images(tmp_path, 6), []

    def drain(loader):
        seen = list(loader)
        drained.append(sorted(sample["data_samples"].img_path for sample in seen))
        assert all(tuple(s["inputs"]["s0"].shape) == (2, 32, 32, 3) for s in seen)
        return len(seen)

    monkeypatch.setattr(reading, "_drain", drain)
    found = reading.measure_reading(SPEC, paths, num_workers=num_workers, rounds=2)
    assert all(value > 0 for value in found.values())
    files = sorted(paths)
    names = [path.rpartition("/")[2] for path in files]
    assert (
        drained.count(files) == drained.count(names) - 1 == 3
    )  # warming up, and two epochs of each


def test_without_litdata(tmp_path, monkeypatch):
    monkeypatch.setattr(reading.importlib.util, "find_spec", lambda name: None)
    found = reading.measure_reading(SPEC, make_images(tmp_path, 2), num_workers=0, rounds=1)
    assert found["files_images_per_s"] > 0 and found["shards_images_per_s"] is None
