"""Prints the time that each hook takes, as a share of a run: ``python tests/instruments/hook_cost.py CONFIG IMAGES``.

Trains on the images in one process, without saving, and times every call of a hook and of what it attaches to the
model and the optimizer. Further arguments are --cfg-options.
"""

import sys
import tempfile
import time
from collections import Counter
from functools import wraps

from mmengine.config import Config, DictAction

from sspyr_mm.engine import TrainingRunner
from sspyr_mm.engine.config import fill_dataloaders
from sspyr_mm.engine.hooks import HealthHook
from sspyr_mm.engine.step_guard import StepGuard

ATTACHED = {
    StepGuard: ("DivergenceHook", ("_note_losses", "_before_optimizer", "_after_optimizer")),
    HealthHook: ("HealthHook", ("_record_gradients",)),
}
STAGES = ("before_train_iter", "after_train_iter", "before_train_epoch", "after_train_epoch", "before_train")
WARM_UP = 5  # iterations


class Clock:
    """Time in calls, by name."""

    def __init__(self):
        self.seconds = Counter()

    def timed(self, name, function):
        @wraps(function)
        def call(*args, **kwargs):
            start = time.perf_counter()
            try:
                return function(*args, **kwargs)
            finally:
                self.seconds[name] += time.perf_counter() - start

        return call


def measure(config, images, options):
    """Iterations, their time, and the time of each hook."""
    clock, began = Clock(), {}
    for owner, (name, methods) in ATTACHED.items():
        for method in methods:
            setattr(owner, method, clock.timed(name, getattr(owner, method)))
    cfg = Config.fromfile(config)
    cfg.merge_from_dict({"train_dataloader.dataset.data_root": images, "default_hooks.checkpoint.interval": 10**6})
    cfg.merge_from_dict(options)
    fill_dataloaders(cfg)
    with tempfile.TemporaryDirectory() as cfg.work_dir:
        runner = TrainingRunner.from_cfg(cfg)
        for hook in runner.hooks:
            for stage in STAGES:
                setattr(hook, stage, clock.timed(type(hook).__name__, getattr(hook, stage)))

        original = runner.call_hook

        def call_hook(stage, **kwargs):
            if stage == "before_train_iter" and runner.iter == WARM_UP:
                clock.seconds.clear()
                began["at"] = time.perf_counter()
            original(stage, **kwargs)
            if stage == "after_train_epoch":
                began["end"] = time.perf_counter()

        runner.call_hook = call_hook
        runner.train()
    return runner.iter - WARM_UP, began["end"] - began["at"], clock.seconds


def main():
    config, images, *options = sys.argv[1:]
    parsed = {key: DictAction._parse_iterable(value) for key, value in (one.split("=", 1) for one in options)}
    iterations, total, seconds = measure(config, images, parsed)
    print(f"{iterations} iterations of {1000 * total / iterations:.0f} ms")
    for name, spent in seconds.most_common():
        print(f"{name:24} {1000 * spent / iterations:8.2f} ms {100 * spent / total:7.2f} %")


if __name__ == "__main__":
    main()
