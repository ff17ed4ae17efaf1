"""Threads: the tests are small, and pools of threads only get in each other's way."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch

torch.set_num_threads(1)
