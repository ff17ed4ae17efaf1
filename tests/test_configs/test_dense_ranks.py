"""The detection and segmentation configs on two processes with gloo: tools/dist_train.sh, as without GPUs."""

import os
import socket
import subprocess
import sys

import pytest
import torch
from project import ROOT
from small_dense import small_detector, small_fcn


def free_port():
    with socket.socket() as opened:
        opened.bind(("", 0))
        return str(opened.getsockname()[1])


MASK_RCNN = pytest.param("mask-rcnn_r50_fpn_15k", marks=pytest.mark.ops)


@pytest.mark.slow
@pytest.mark.parametrize("name", [MASK_RCNN, "fcn"])
def test_two_ranks_train_and_measure(name, scenes, backbone, tmp_path):
    cfg = small_fcn(scenes, backbone) if name == "fcn" else small_detector(name, scenes, backbone)
    cfg.train_cfg.update(max_iters=2, val_interval=2)
    cfg.default_hooks.checkpoint.interval = 2
    cfg.default_hooks.logger.interval = 1
    cfg.test_dataloader = cfg.test_cfg = cfg.test_evaluator = None
    cfg.dump(tmp_path / "config.py")
    done = subprocess.run(
        ["bash", ROOT / "tools/dist_train.sh", tmp_path / "config.py", "2", "--work-dir", tmp_path],
        capture_output=True,
        text=True,
        env={
            **os.environ,
            "PYTHON": sys.executable,
            "PORT": free_port(),
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": str(ROOT),
        },
    )
    shown = done.stdout + done.stderr
    assert done.returncode == 0, shown[-3000:]
    assert "SyncBN layers run as BN, with the statistics of each process's own batch" in shown
    assert "mIoU" in shown if name == "fcn" else "coco/segm_mAP" in shown
    assert torch.load(tmp_path / "iter_2.pth", weights_only=False)["meta"]["iter"] == 2
    images = {path.name for path in (tmp_path / "predictions").glob("*.jpg")}
    assert len(images) == 4  # of the 4 test images the first process sees 2
