"""Evaluations at reduced size, in this process or by the command."""

import sys

from sspyr_mm.benchmarks.base_protocol import Settings
from sspyr_mm.benchmarks.evaluate import evaluate
from sspyr_mm.benchmarks.protocols import find_protocol

QUICK = Settings(size=32, epochs=4)


def quick_evaluate(network, protocol, data, work_dir, settings=QUICK, seed=0):
    return evaluate(network, find_protocol(protocol), data, seed=seed, work_dir=str(work_dir), settings=settings)


def evaluate_command(checkpoint, scenes, work_dir, *more):
    options = ["--coco", str(scenes), "--work-dir", str(work_dir), "--size", "32", *more]
    return [sys.executable, "-m", "sspyr_mm", "evaluate", checkpoint, *options]
