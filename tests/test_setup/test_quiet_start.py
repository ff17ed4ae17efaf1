"""A run on a CPU starts without warnings of the stack; other warnings are shown."""

import logging
import os
import subprocess
import sys

import cv2
import numpy as np
from mmengine.logging import MMLogger
from project import ROOT

from sspyr_mm.compat import quiet_logger


def test_training_starts_without_warnings_of_the_stack(tmp_path):
    (tmp_path / "images").mkdir()
    for index in range(8):
        pixels = np.random.default_rng(index).integers(0, 255, (64, 64, 3), dtype=np.uint8)
        cv2.imwrite(str(tmp_path / f"images/{index}.png"), pixels)
    options = ["train_cfg.max_epochs=1", "train_dataloader.batch_size=8", "param_scheduler.0.start_factor=1.0"]
    options += ["train_dataloader.num_workers=0", "model.pyramid.s0.num_prototypes=4"]
    options += ["model.pyramid.s1.num_prototypes=4", "default_hooks.throughput.max_wait=100"]
    command = [sys.executable, "tools/train.py", "configs/ssprl/r18_quickstart.py"]
    command += ["--data-root", str(tmp_path / "images"), "--work-dir", str(tmp_path / "work")]
    done = subprocess.run(
        [*command, "--cfg-options", *options],
        cwd=ROOT,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert not done.stderr
    (line,) = done.stdout.splitlines()
    assert line.startswith("epoch 1/1 ")


def test_only_exact_texts_are_dropped():
    logger, seen = MMLogger("quiet_start"), []
    handler = logging.Handler()
    handler.emit = lambda record: seen.append(record.getMessage())
    logger.handlers = [handler]
    quiet_logger(logger)
    known = '"HardDiskBackend" is the alias of "LocalBackend" and the former will be deprecated in future.'
    for text in (known, f"{known} Again.", "another warning"):
        logger.warning(text)
    assert seen == [f"{known} Again.", "another warning"]
