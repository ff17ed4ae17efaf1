"""The log: losses are read from the device once per line; throughput and waiting are reported."""

import functools
import time

import pytest
import torch
from instruments.counters import OperatorCounter
from mmcv.transforms import BaseTransform
from small_runs import BATCH, ITERS, make_runner, train, warnings_of

from sspyr_mm.engine.hooks import ThroughputHook, divergence_hook
from sspyr_mm.engine.step_guard import StepGuard

INTERVAL = 3  # lines after iterations 3 and, since an epoch of 5 ends there, 5
NAMES = [f"{kind}_{scale}" for kind in ("loss_pyr", "ce_ratio") for scale in ("s0", "s1")]
NAMES += ["loss", "loss_cross_s1"]


def histories(runner):
    scalars = runner.message_hub.log_scalars
    return {name: scalars[f"train/{name}"].data[0].tolist() for name in NAMES}


def test_history_of_losses_equals_mmengine(config, tmp_path):
    found = []
    for kind in ("DeferredRuntimeInfoHook", "RuntimeInfoHook"):
        options = {"default_hooks.runtime_info.type": kind, "default_hooks.logger.interval": INTERVAL}
        found.append(histories(train(config, tmp_path / kind, options)))
    assert found[0] == found[1]
    assert {len(values) for values in found[0].values()} == {3 * ITERS}


def test_checkpoint_between_two_lines_contains_the_whole_history(config, tmp_path):
    def save(runner):
        if runner.iter == 1:
            runner.save_checkpoint(str(tmp_path), "between.pth")

    runner = train(config, tmp_path, {"default_hooks.logger.interval": INTERVAL}, after_train_iter=save)
    saved = torch.load(tmp_path / "between.pth", weights_only=False)["message_hub"]
    kept = saved["log_scalars"]["train/loss"].data[0].tolist()
    assert len(kept) == 2 and kept == histories(runner)["loss"][:2]


@pytest.mark.parametrize(("kind", "reads"), [("DeferredRuntimeInfoHook", 0), ("RuntimeInfoHook", len(NAMES))])
def test_steps_do_not_synchronise_with_the_device(config, tmp_path, monkeypatch, kind, reads):
    """All that a runner does from one step to the next, with the shipped hooks.

    The one read is that of the verdict on the previous step, which a GPU has copied to the host by then.
    """
    monkeypatch.setattr(divergence_hook, "StepGuard", functools.partial(StepGuard, deferred=True))
    counter, waits = OperatorCounter(), []

    def begin(runner):
        if runner.iter == ITERS + 1:  # in the second epoch, when the optimizer has its buffers
            counter.__enter__()

    def end(runner):
        if runner.iter == ITERS + 1:
            counter.__exit__(None, None, None)
            waits.append(counter.counts)

    options = {
        "default_hooks.runtime_info.type": kind,
        "default_hooks.logger.interval": INTERVAL,
        # On a CPU, torch's optimizers read their step counts from tensors; no device waits for them.
        "optim_wrapper.optimizer.type": "ForeachLARS",
    }
    train(config, tmp_path, options, before_train_iter=begin, after_train_iter=end)
    (counts,) = waits
    assert counts.operators["aten.convolution"] > 30  # the step was counted
    assert counts.host_syncs.total() == reads + 1


class SlowTransform(BaseTransform):
    """Takes 0.1 s per image."""

    def transform(self, results):
        time.sleep(0.1)
        return results


@pytest.mark.parametrize(("interval", "times"), [(2, 2), pytest.param(50, 2, marks=pytest.mark.slow)])
def test_waiting_for_data_is_reported(config, tmp_path, log, interval, times):
    """In two epochs; if an epoch has one line only, not in the first epoch, in which workers start."""
    runner = make_runner(config, tmp_path, {"default_hooks.logger.interval": interval})
    runner.train_dataloader.dataset.pipeline.transforms.insert(1, SlowTransform())
    runner.train()
    warned = [text for text in warnings_of(log) if "Training waits for images" in text]
    assert len(warned) == times
    assert "Workers: 0, cores: " in warned[0] and "num_workers" in warned[0]
    scalars = runner.message_hub.log_scalars
    assert scalars["train/data_wait"].current() > 10
    per_step = scalars["train/time"].mean(ITERS % interval)  # of the last line
    assert scalars["train/images_per_s"].current() == pytest.approx(BATCH / per_step)


def test_training_that_does_not_wait_is_not_reported(config, tmp_path, log):
    options = {"default_hooks.logger.interval": 2}
    runner = train(config, tmp_path, options, before_train_iter=lambda runner: time.sleep(0.5))
    assert not [text for text in warnings_of(log) if "waits for images" in text]
    assert 0 < runner.message_hub.get_scalar("train/data_wait").current() < 10


def test_max_wait_out_of_range_is_rejected():
    with pytest.raises(ValueError, match=r"max_wait must be in \(0, 100\] percent, got 0"):
        ThroughputHook(max_wait=0)
