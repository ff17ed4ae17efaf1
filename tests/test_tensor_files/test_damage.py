"""A flipped bit anywhere in a checkpoint is found, or changes nothing."""

import io
import re
import zipfile

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from sspyr_mm.checkpoints.formats.targets import TARGETS
from sspyr_mm.tensor_files import check_whole, read_checkpoint, safe_loading

META = {"mean": [1.0, 2.0, 3.0], "backbone": {"type": "ResNet", "depth": 50}}


def write(kind, path):
    """Writes a small checkpoint with an optimizer, or an exported one."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.BatchNorm2d(8), torch.nn.Linear(8, 4))
    optimizer = torch.optim.AdamW(model.parameters())
    for parameter in model.parameters():
        parameter.grad = torch.randn_like(parameter)
    optimizer.step()
    if kind == "safetensors":
        with open(path, "wb") as file:
            TARGETS[kind].write(model.state_dict(), META, file)
    else:
        torch.save({"state_dict": model.state_dict(), "optimizer": optimizer.state_dict(), "meta": META}, path)


def flat(value, name=""):
    if isinstance(value, dict):
        return [pair for key, one in value.items() for pair in flat(one, f"{name}/{key}")]
    if isinstance(value, (list, tuple)):
        return [pair for index, one in enumerate(value) for pair in flat(one, f"{name}/{index}")]
    return [
        (name, value.dtype, value.shape, value.numpy().tobytes()) if isinstance(value, torch.Tensor) else (name, value)
    ]


def flipped(content, bit):
    changed = bytearray(content)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


@pytest.mark.parametrize("kind", ["pth", "safetensors"])
@pytest.mark.parametrize("count", [200, pytest.param(5000, marks=pytest.mark.slow)])
def test_flipped_bits_are_found_or_harmless(kind, count, tmp_path):
    path = tmp_path / "x"
    write(kind, path)
    content, expected = path.read_bytes(), flat(read_checkpoint(path))
    refused = 0
    for bit in np.random.default_rng(0).choice(8 * len(content), count, replace=False):
        path.write_bytes(flipped(content, int(bit)))
        try:
            assert flat(read_checkpoint(path)) == expected, bit
        except ValueError as error:
            assert str(path) in str(error)
            refused += 1
    assert refused > count / 3


def test_damaged_record_is_named(tmp_path):
    path = tmp_path / "x.pth"
    write("pth", path)
    check_whole(path)
    content = path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        start = content.index(archive.read("x/data/0"))
    path.write_bytes(flipped(content, 8 * start + 3))
    for read in (check_whole, read_checkpoint, lambda p: read_checkpoint(p, allow_pickle=True)):
        with pytest.raises(ValueError, match=r"x\.pth is .* record 'x/data/0' is damaged \(Bad CRC-32"):
            read(path)


def test_record_marked_as_a_folder_is_refused(tmp_path):
    """torch reads zeros in its place."""
    path = tmp_path / "x"
    write("pth", path)
    content = path.read_bytes()
    place = content.rindex(b"x/data/0") - 8  # of the attributes, in the list at the end
    path.write_bytes(flipped(content, 8 * place + 4))
    for read in (check_whole, read_checkpoint):
        with pytest.raises(ValueError, match="record 'x/data/0' is marked as a folder"):
            read(path)


@pytest.mark.parametrize("kind", ["pth", "safetensors"])
@pytest.mark.parametrize("change", ["empty", "half", "zeros", "zeroed half"])
def test_incomplete_files_are_reported(kind, change, tmp_path):
    path = tmp_path / "x"
    write(kind, path)
    whole = path.read_bytes()
    half, rest = whole[: len(whole) // 2], bytes(len(whole) - len(whole) // 2)
    changed = {"empty": b"", "half": half, "zeros": bytes(len(whole)), "zeroed half": half + rest}
    path.write_bytes(changed[change])
    for read in (check_whole, read_checkpoint):
        with pytest.raises(ValueError, match=re.escape(str(path))):
            read(path)


def test_safetensors_of_others_need_no_checksum(tmp_path):
    save_file({"a": torch.ones(2)}, tmp_path / "x.safetensors", metadata={"format": "pt"})
    check_whole(tmp_path / "x.safetensors")
    content = (tmp_path / "x.safetensors").read_bytes()
    (tmp_path / "half").write_bytes(content[:-4])
    with pytest.raises(ValueError, match=r"half is a damaged .* the file has another size"):
        check_whole(tmp_path / "half")
    assert read_checkpoint(tmp_path / "x.safetensors")["state_dict"]["a"].sum() == 2


def test_changed_safetensors_are_reported(tmp_path):
    path = tmp_path / "x.safetensors"
    write("safetensors", path)
    content = path.read_bytes()
    path.write_bytes(flipped(content, 8 * len(content) - 20))
    for read in (check_whole, read_checkpoint):
        with pytest.raises(ValueError, match=r"x\.safetensors is a damaged .*: its checksum does not match"):
            read(path)


def test_buffers_are_checked_like_files(tmp_path):
    write("pth", tmp_path / "x.pth")
    content = (tmp_path / "x.pth").read_bytes()
    with safe_loading():
        assert flat(torch.load(io.BytesIO(content))["state_dict"])
        with pytest.raises(ValueError, match="Bad CRC-32"):
            torch.load(io.BytesIO(flipped(content, 8 * (len(content) // 2))))
