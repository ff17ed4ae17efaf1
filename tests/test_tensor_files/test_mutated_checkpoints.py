"""Randomly changed checkpoints are read, or refused with a clear error."""

import io
import zipfile

import pytest
import torch
from mutations import count_refusals
from pretrained_files import NARROW, pretrain

from sspyr_mm.checkpoints import export_backbone, read_backbone

COUNTS = [15, pytest.param(600, marks=pytest.mark.slow)]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A checkpoint of pre-training, and its backbone in other formats."""
    folder = tmp_path_factory.mktemp("files")
    pretrain(folder / "x.pth", {**NARROW, "stem_channels": 4, "base_channels": 4}, 32)
    export_backbone(folder / "x.pth", folder / "x.safetensors", target="safetensors")
    export_backbone(folder / "x.pth", folder / "x.pkl", target="detectron2")
    content = torch.load(folder / "x.pth")
    torch.save(content, folder / "old.pth", _use_new_zipfile_serialization=False)
    return folder


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("name", ["x.pth", "old.pth", "x.safetensors", "x.pkl"])
def test_mutated_checkpoints(name, count, files, tmp_path):
    path = tmp_path / name
    content = (files / name).read_bytes()
    assert count_refusals(lambda: read_backbone(path), path.write_bytes, content, count)


@pytest.mark.parametrize("count", COUNTS)
def test_mutated_pickles_in_whole_archives(count, files, tmp_path):
    """With correct checksums."""
    with zipfile.ZipFile(files / "x.pth") as archive:
        records = {name: archive.read(name) for name in archive.namelist()}

    def write(data):
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as archive:
            for name, record in records.items():
                archive.writestr(name, data if name.endswith("/data.pkl") else record)
        (tmp_path / "x.pth").write_bytes(buffer.getvalue())

    content = next(data for name, data in records.items() if name.endswith("/data.pkl"))
    assert count_refusals(lambda: read_backbone(tmp_path / "x.pth"), write, content, count)


@pytest.mark.parametrize("count", COUNTS)
def test_mutated_headers_of_safetensors(count, files, tmp_path):
    """With correct lengths, and no checksum."""
    whole = (files / "x.safetensors").read_bytes()
    end = 8 + int.from_bytes(whole[:8], "little")
    content = whole[8:end].replace(b"sspyr_mm_sha256", b"none")

    def write(data):
        (tmp_path / "x.safetensors").write_bytes(len(data).to_bytes(8, "little") + data + whole[end:])

    assert count_refusals(lambda: read_backbone(tmp_path / "x.safetensors"), write, content, count)
