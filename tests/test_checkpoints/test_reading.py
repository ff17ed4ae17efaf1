"""Damaged and unsafe files are rejected; numpy arrays, logs and safetensors are read."""

import argparse
import hashlib
import json
import os
import pickle
import types
from pathlib import Path, PurePosixPath

import numpy as np
import pytest
import torch
from backbone_checks import assert_identical
from layouts import Call
from mmengine.logging import HistoryBuffer, MessageHub
from safetensors.torch import save_file

from sspyr_mm.checkpoints import inspect_checkpoint, read_backbone, read_checkpoint


@pytest.mark.parametrize("zipped", [True, False])
def test_code_is_rejected_and_not_executed(zipped, tmp_path):
    content = {"state_dict": {"a": torch.ones(1)}, "extra": Call(os.mkdir, str(tmp_path / "ran"))}
    path = tmp_path / "x.pth"
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    match = r"x.pth needs arbitrary pickle.*nothing was executed.*--allow-pickle"
    for read in (read_checkpoint, read_backbone, inspect_checkpoint):
        with pytest.raises(ValueError, match=match):
            read(path)
    assert not (tmp_path / "ran").exists()
    read_checkpoint(path, allow_pickle=True)
    assert (tmp_path / "ran").exists()


@pytest.mark.parametrize("zipped", [True, False])
def test_rejected_class_is_named(zipped, backbone50, tmp_path):
    path = tmp_path / "x.pth"
    content = {"state_dict": backbone50, "args": types.SimpleNamespace(lr=1)}
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(ValueError, match=r"arbitrary pickle \(types.SimpleNamespace\)"):
        read_backbone(path)
    assert_identical(read_backbone(path, allow_pickle=True).state_dict, backbone50)


@pytest.mark.parametrize("zipped", [True, False])
def test_settings_of_training_scripts_are_dropped(zipped, tmp_path):
    settings = argparse.Namespace(lr=0.1, out=Path("/x"))
    content = {"state_dict": {"a": torch.ones(1)}, "args": settings, "out": Path("/y")}
    torch.save(content, tmp_path / "x", _use_new_zipfile_serialization=zipped)
    found = read_checkpoint(tmp_path / "x")
    assert set(found) == set(content) and torch.equal(found["state_dict"]["a"], torch.ones(1))
    assert not isinstance(found["args"], argparse.Namespace)
    assert not isinstance(found["out"], PurePosixPath)


def test_builtins_other_than_getattr_are_rejected(tmp_path, capsys):
    content = {"state_dict": {"a": torch.ones(1)}, "extra": Call(print, "ran")}
    torch.save(content, tmp_path / "x")
    with pytest.raises(ValueError, match=r"needs arbitrary pickle \((builtins\.)?print\)"):
        read_checkpoint(tmp_path / "x")
    assert "ran" not in capsys.readouterr().out


@pytest.mark.parametrize("kind", ["zip", "old", "safetensors"])
@pytest.mark.parametrize("share", [0.0, 0.001, 0.5, 0.999])
def test_truncated_files_are_reported(kind, share, tmp_path):
    path = tmp_path / "x.pth"
    state = {"conv1.weight": torch.randn(64, 3, 7, 7), "bn1.weight": torch.ones(64)}
    if kind == "safetensors":
        save_file(state, path)
    else:
        torch.save({"state_dict": state}, path, _use_new_zipfile_serialization=kind == "zip")
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(ValueError, match=r"x.pth is (not a checkpoint.*damaged|a damaged .saf|empty)") as error:
        read_checkpoint(path)
    assert "weights_only" not in str(error.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "x is empty: "),
        (pickle.dumps({"a": np.zeros(9)})[:-40], "is not a checkpoint of tensors and plain values"),
        (b"\xff" * 8 + b"{" + b"x" * 99, "is not a checkpoint of tensors and plain values"),
        (b"\x10" + b"\0" * 7 + b"{" + b"x" * 99, "is a damaged .safetensors file"),
    ],
)
def test_damaged_files_are_reported(content, message, tmp_path):
    (tmp_path / "x").write_bytes(content)
    with pytest.raises(ValueError, match=message):
        read_checkpoint(tmp_path / "x")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([torch.ones(1)], "holds a list, not a dict"),
        ({"epoch": 1, "args": {"lr": 1}}, "hold no tensors.* entries are epoch, args"),
        ({"state_dict": {}}, "hold no tensors"),
        ({"model": {"a": np.array([{}, 1], dtype=object)}}, "a is an array that can't be converted to a tensor"),
    ],
)
def test_checkpoints_without_weights_are_rejected(content, message, tmp_path):
    torch.save(content, tmp_path / "x")
    with pytest.raises(ValueError, match=message):
        read_backbone(tmp_path / "x")


def test_missing_file_is_reported(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"No checkpoint at nowhere.pth: pass a .pth file"):
        read_backbone("nowhere.pth")
    with pytest.raises(FileNotFoundError, match=rf"{tmp_path.name} is a folder: pass a \.pth file"):
        read_backbone(tmp_path)


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("dtype", ["f4", "f8", "f2", "i8", "u1", "?"])
def test_numpy_arrays_and_numbers_are_read(dtype, zipped, tmp_path):
    array = np.arange(6).reshape(2, 3).astype(dtype)
    content = {"model": {"a": array}, "best": np.float64(0.5), "name": np.str_("x")}
    torch.save(content, tmp_path / "x", _use_new_zipfile_serialization=zipped)
    found = read_checkpoint(tmp_path / "x")
    assert found["model"]["a"].dtype == array.dtype and (found["model"]["a"] == array).all()
    assert found["best"] == 0.5


def test_message_hub_is_dropped(tmp_path):
    hub = MessageHub.get_instance("test_reading")
    hub.update_scalars({"loss": {"value": 1.0, "count": 1}, "lr": np.float32(0.1)})
    hub.update_info("image", np.zeros((2, 2), np.uint8))
    assert isinstance(hub.log_scalars["loss"], HistoryBuffer)
    content = {"state_dict": {"a": torch.ones(1)}, "message_hub": hub.state_dict()}
    torch.save(content, tmp_path / "x")
    assert list(read_checkpoint(tmp_path / "x")) == ["state_dict"]


def test_safetensors_are_detected_by_content(backbone50, tmp_path):
    path = tmp_path / "x.pth"
    save_file({k: v.contiguous() for k, v in backbone50.items()}, path, metadata={"format": "pt"})
    checkpoint = read_backbone(path)
    assert checkpoint.source == "plain"
    assert_identical(checkpoint.state_dict, backbone50)


def test_inspection_of_a_foreign_file(backbone50, tmp_path):
    path = tmp_path / "x.pth"
    state = {**backbone50, "fc.weight": torch.ones(10, 2048), "fc.bias": torch.ones(10)}
    torch.save({"state_dict": state, "epoch": 7, "arch": "resnet50"}, path)
    found = inspect_checkpoint(path)
    assert json.loads(json.dumps(found))["backbone"] == {"type": "ResNet", "depth": 50}
    assert found["architecture"] == "ResNet(depth=50)"
    assert (found["num_tensors"], found["num_parameters"]) == (318, 23_508_032)
    assert found["other_tensors"] == {"fc": 2} and found["other_entries"] == ["arch", "epoch"]
    assert (found["epoch"], found["iter"], found["patch"]) == (7, None, None)
    assert found["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
