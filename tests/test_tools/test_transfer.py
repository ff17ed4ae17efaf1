"""detect.sh and segment.sh train a complete backbone, with further options of train.py."""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from commands import run
from mmengine.config import Config
from mmpretrain.models import ConvNeXt, ResNet
from project import ROOT

from sspyr_mm.benchmarks.dense.transfer import write_transfer_config

FCN = "mmsegmentation/fcn_r50-d8_20k_voc12aug-512x512"
SHOW = """#!/usr/bin/env bash
if [[ $1 == *transfer_config.py ]]; then {transfer}; fi
printf '%s\\n' "$@"
"""


def save(path):
    """A small network with a normalisation of its own."""
    backbone = dict(type="ResNet", depth=18, stem_channels=8, base_channels=8)
    state = ResNet(18, stem_channels=8, base_channels=8).state_dict()
    meta = dict(backbone=backbone, mean=[4.0, 5.0, 6.0], std=[1.0, 2.0, 3.0])
    path.parent.mkdir(exist_ok=True)
    torch.save({"state_dict": state, "meta": meta}, path)


@pytest.fixture
def checkpoint(tmp_path):
    torch.manual_seed(0)
    save(tmp_path / "small.pth")
    return tmp_path / "small.pth"


def run_script(tmp_path, *arguments, transfer=f'exec "{sys.executable}" "$@"', **variables):
    python = tmp_path / "python"  # shows what would be trained
    python.write_text(SHOW.format(transfer=transfer))
    python.chmod(0o755)
    return subprocess.run(
        ["bash", *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHON": str(python), "OMP_NUM_THREADS": "1", "PORT": "29511", **variables},
    )


def run_script_in_two_parts(tmp_path, *arguments, **variables):
    """Writes the config in this process, from the arguments that the script passes."""
    passed = tmp_path / "passed"
    note = f"printf '%s\\n' \"$@\" >{passed}; echo nothing; exit"
    assert run_script(tmp_path, *arguments, transfer=note, **variables).returncode == 0
    path = run(*passed.read_text().splitlines(), cwd=tmp_path).stdout.strip()
    return run_script(tmp_path, *arguments, transfer=f"echo '{path}'; exit", **variables)


def written_config(shown):
    """The config that would be trained."""
    (path,) = {line for line in shown if line.endswith(".py") and "work_dirs" in line}
    return Path(path), Config.fromfile(path)


@pytest.mark.parametrize(
    ("tool", "images"),
    [("detect", 16), ("segment", 16)],
)
def test_a_config_of_the_checkpoint_is_trained(tool, images, checkpoint, tmp_path):
    script = ROOT / f"tools/benchmarks/{tool}.sh"
    given = {"WORK_DIR": str(tmp_path / "work_dirs of, mine")} if tool == "detect" else {}
    done = run_script_in_two_parts(tmp_path, script, checkpoint, 2, "--amp", "--cfg-options", "a=b", **given)
    assert done.returncode == 0, done.stderr
    shown = done.stdout.splitlines()
    assert "--nproc_per_node=2" in shown and shown[-3:] == ["--amp", "--cfg-options", "a=b"]
    path, cfg = written_config(shown)
    digest = hashlib.sha256(checkpoint.read_bytes()).hexdigest()[:8]
    default = tmp_path / f"work_dirs/{FCN.partition('/')[2]}/small-{digest}"
    assert path.parent == Path(given.get("WORK_DIR", default))
    assert shown[shown.index("--work-dir") + 1] == str(path.parent)
    backbone = cfg.model.backbone
    assert torch.load(backbone.init_cfg.checkpoint)["state_dict"]["conv1.weight"].shape[0] == 8
    assert backbone.type == "ResNet" and backbone.depth == 18 and backbone.base_channels == 8
    assert backbone.norm_cfg.type == "SyncBN"
    assert cfg.model.data_preprocessor.std == [1.0, 2.0, 3.0]
    if tool == "detect":
        assert cfg.model.neck.in_channels == [8, 16, 32, 64]
    else:
        assert cfg.model.decode_head.in_channels == 64
    # All images that the learning rate is for.
    assert cfg.train_dataloader.batch_size * 2 == images == cfg.auto_scale_lr.base_batch_size


def test_checkpoints_of_one_name_have_their_own_folders(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folders = set()
    for seed in (1, 2):
        torch.manual_seed(seed)
        save(tmp_path / f"{seed}" / "epoch_200.pth")
        config = ROOT / f"configs/benchmarks/{FCN}.py"
        folders.add(Path(write_transfer_config(str(config), f"{seed}/epoch_200.pth", num_processes=1)).parent)
    assert len(folders) == 2


@pytest.mark.slow
def test_c4_loads_layer4_and_is_submitted_to_slurm(tmp_path):
    srun = tmp_path / "srun"
    srun.write_text('#!/usr/bin/env bash\nprintf "%s\\n" "$@"\n')
    srun.chmod(0o755)
    torch.save(ResNet(50).state_dict(), tmp_path / "r50.pth")
    config = str(ROOT / "configs/benchmarks/mmdetection/faster-rcnn_r50-c4_24k_voc0712.py")
    options = dict(CONFIG=config, PARTITION="gpus", PATH=f"{tmp_path}:{os.environ['PATH']}")
    script = ROOT / "tools/benchmarks/detect.sh"
    done = run_script(tmp_path, script, tmp_path / "r50.pth", "--resume", **options)
    assert done.returncode == 0, done.stderr
    shown = done.stdout.splitlines()
    assert "--partition=gpus" in shown and "--ntasks=8" in shown and shown[-1] == "--resume"
    model = written_config(shown)[1].model
    start = model.backbone.init_cfg.checkpoint
    assert start == model.roi_head.shared_head.init_cfg.checkpoint and Path(start).is_file()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "segment.sh: a checkpoint is missing\n\nFCN on VOC"),
        (["--resume"], "segment.sh: the checkpoint comes first, got --resume"),
        (["small.pth", "zero"], "segment.sh: PROCESSES must be a number >= 1, got zero"),
        (["none.pth"], "none.pth does not exist"),
    ],
)
def test_wrong_arguments_are_reported_before_anything_is_written(arguments, message, checkpoint, tmp_path):
    done = run_script(tmp_path, ROOT / "tools/benchmarks/segment.sh", *arguments)
    assert done.returncode == 2 and message in done.stderr
    assert not (tmp_path / "work_dirs").exists()


@pytest.mark.parametrize(
    ("config", "checkpoint_name", "processes", "message"),
    [
        (FCN, "small.pth", 3, "16 images per step, which the learning rate is for, cannot be divided among 3"),
        ("none", "small.pth", 1, "none.py does not exist"),
        (FCN, "text.pth", 1, "text.pth is a text file, not a checkpoint"),
        (FCN, "convnext.pth", 1, "is for ResNets; convnext.pth is a ConvNeXt"),
        ("mmdetection/faster-rcnn_r50-c4_24k_voc0712", "small.pth", 1, "for a ResNet-50, got a ResNet-18"),
    ],
)
def test_no_config_is_written_for_wrong_inputs(config, checkpoint_name, processes, message, checkpoint, tmp_path):
    (tmp_path / "text.pth").write_text("no checkpoint")
    network = {"state_dict": ConvNeXt("atto").state_dict()}
    torch.save(network | {"meta": {"backbone": dict(type="ConvNeXt", arch="atto")}}, tmp_path / "convnext.pth")
    done = run(
        *("tools/benchmarks/transfer_config.py", ROOT / f"configs/benchmarks/{config}.py", tmp_path / checkpoint_name),
        *(processes, "--work-dir", tmp_path / "work_dirs"),
        check=False,
    )
    assert done.returncode == 2 and message in done.stderr.replace(f"{tmp_path}/", "")
    assert not (tmp_path / "work_dirs").exists()


def test_help(tmp_path):
    done = run_script(tmp_path, ROOT / "tools/benchmarks/detect.sh", "--help")
    assert done.returncode == 0 and "bash tools/benchmarks/detect.sh CKPT [PROCESSES]" in done.stdout
