"""Evaluations at reduced size, in this process or by the command."""

import sys

from commands import run

from sspyr_mm.benchmarks.base_protocol import Settings
from sspyr_mm.benchmarks.evaluate import evaluate
from sspyr_mm.benchmarks.protocols import find_protocol

QUICK = Settings(size=32, epochs=4)


def quick_evaluate(network, protocol, data, work_dir, settings=QUICK, seed=0):
    return evaluate(network, find_protocol(protocol), data, seed=seed, work_dir=str(work_dir), settings=settings)


class WorkerInProcess:
    """Stands in for the ``subprocess.Popen`` of a training worker; a process of its own imports the stack again."""

    def __init__(self, command, *, stdout, **_):
        done = run(*(word for word in command[1:] if word != "--exit-on-eof"), check=False)
        stdout.write(done.stdout + done.stderr)
        stdout.flush()
        self.returncode = done.returncode

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def wait(self):
        return self.returncode


def evaluate_command(checkpoint, scenes, work_dir, *more):
    options = ["--coco", str(scenes), "--work-dir", str(work_dir), "--size", "32", *more]
    return [sys.executable, "-m", "sspyr_mm", "evaluate", checkpoint, *options]
