"""detect.sh and segment.sh: the backbone goes in whole, options of one's own beside it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from mmpretrain.models import ResNet

ROOT = Path(__file__).resolve().parents[2]
SHOW = """#!/usr/bin/env bash
if [[ $1 == -m && $2 == sspyr_mm ]]; then exec "{python}" "$@"; fi
printf '%s\\n' "$@"
"""


@pytest.fixture
def checkpoint(tmp_path):
    torch.manual_seed(0)
    torch.save(ResNet(18, stem_channels=8, base_channels=8).state_dict(), tmp_path / "small.pth")
    return tmp_path / "small.pth"


def run(tmp_path, *arguments, **variables):
    python = tmp_path / "python"  # shows what would be trained
    python.write_text(SHOW.format(python=sys.executable))
    python.chmod(0o755)
    return subprocess.run(
        ["bash", *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={
            **os.environ,
            "PYTHON": str(python),
            "OMP_NUM_THREADS": "1",
            "PORT": "29511",
            **variables,
        },
    )


@pytest.mark.parametrize(
    ("tool", "config"),
    [
        ("detect", "mask-rcnn_r50_fpn_15k_coco14"),
        ("segment", "fcn_r50-d8_20k_voc12aug-512x512"),
    ],
)
def test_command(tool, config, checkpoint, tmp_path):
    script = ROOT / f"tools/benchmarks/{tool}.sh"
    done = run(
        tmp_path, script, checkpoint, 2, "--amp", "--cfg-options", "train_cfg.max_iters=3", "a=b"
    )
    assert done.returncode == 0, done.stderr
    shown = done.stdout.splitlines()
    backbone = f"work_dirs/{config}/small/backbone.pth"
    assert torch.load(tmp_path / backbone)["state_dict"]["conv1.weight"].shape == (8, 3, 7, 7)
    assert "--nproc_per_node=2" in shown and "--amp" in shown
    options = shown[shown.index("--cfg-options") + 1 :]
    assert options == [
        f"model.backbone.init_cfg.checkpoint={backbone}",
        "train_cfg.max_iters=3",
        "a=b",
    ]
    assert shown.count("--cfg-options") == 1


def test_the_fifth_stage_of_c4_gets_its_weights_and_slurm_is_asked(checkpoint, tmp_path):
    srun = tmp_path / "srun"
    srun.write_text('#!/usr/bin/env bash\nprintf "%s\\n" "$@"\n')
    srun.chmod(0o755)
    done = run(
        tmp_path,
        ROOT / "tools/benchmarks/detect.sh",
        checkpoint,
        CONFIG="faster-rcnn_r50-c4_24k_voc0712.py",
        PARTITION="gpus",
        PATH=f"{tmp_path}:{os.environ['PATH']}",
    )
    assert done.returncode == 0, done.stderr
    shown = done.stdout.splitlines()
    assert "--partition=gpus" in shown and "--ntasks=8" in shown
    assert shown[-2:] == [
        f"{key}.init_cfg.checkpoint=work_dirs/faster-rcnn_r50-c4_24k_voc0712/small/backbone.pth"
        for key in ("model.backbone", "model.roi_head.shared_head")
    ]


def test_a_checkpoint_that_is_none_ends_it(tmp_path):
    (tmp_path / "text.pth").write_text("no checkpoint")
    done = run(tmp_path, ROOT / "tools/benchmarks/segment.sh", tmp_path / "text.pth", 1)
    assert done.returncode == 2 and "text.pth is not a checkpoint" in done.stderr
    assert not list(tmp_path.rglob("backbone.pth"))
    done = run(tmp_path, ROOT / "tools/benchmarks/detect.sh")
    assert done.returncode == 2 and "usage: bash tools/benchmarks/detect.sh CKPT" in done.stderr
