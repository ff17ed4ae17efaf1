"""Hooks in real runs: mmengine's Runner, files on disk, a width-8 ResNet-18, a handful of iterations."""

import itertools
import logging
import math
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.dataset import ConcatDataset, RepeatDataset
from mmengine.hooks import Hook
from mmengine.runner import Runner

from sspyr_mm.datasets import PyramidViewTransform, UnlabelledImages, set_epoch, set_pyramid
from sspyr_mm.engine.hooks import (
    FreezePrototypesHook,
    InterruptHook,
    LossWatchHook,
    QueueHook,
    data_hooks,
    loss_watch_hook,
)
from sspyr_mm.engine.hooks.data_check_hook import batch_messages, size_messages
from sspyr_mm.engine.launch import fill_dataloaders
from sspyr_mm.pyramid import PyramidSpec

ROOT = Path(__file__).parents[2]
NUM_IMAGES, BATCH = 22, 4
ITERS = NUM_IMAGES // BATCH  # of an epoch; two images are left over

CONFIG = """
_base_ = [
    "{root}/configs/_base_/models/ssprl_r18_small.py",
    "{root}/configs/_base_/datasets/unlabelled.py",
    "{root}/configs/_base_/schedules/adamw.py",
    "{root}/configs/_base_/ssprl_runtime.py",
]
model = dict(
    pyramid=dict(
        s0=dict(region=32, patch=32, num_prototypes=6, queue_length=8),
        s1=dict(region=52, patch=24, num_prototypes=5, queue_length=30),
    ),
    backbone=dict(stem_channels=8, base_channels=8),
    neck=dict(in_channels=64, hid_channels=16, out_channels=8),
)
train_dataloader = dict(
    batch_size={batch},
    num_workers=0,
    persistent_workers=False,
    pin_memory=False,
    dataset=dict(data_root="{data}"),
)
train_cfg = dict(max_epochs=3)
default_hooks = dict(logger=dict(interval=1), checkpoint=dict(interval=1, max_keep_ckpts=-1))
"""


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    for index in range(NUM_IMAGES):
        coarse = rng.integers(0, 256, (6, 8, 3), dtype=np.uint8)
        cv2.imwrite(str(folder / f"{index:02}.jpg"), cv2.resize(coarse, (80, 60)))
    return folder


@pytest.fixture(scope="module")
def config(images, tmp_path_factory):
    path = tmp_path_factory.mktemp("config") / "config.py"
    path.write_text(CONFIG.format(root=ROOT, data=images, batch=BATCH))
    return path


_numbers = itertools.count()


class Calls(Hook):
    """Calls functions of the runner; after everything but the hooks that save."""

    priority = "LOWEST"

    def __init__(self, **functions):
        self.functions = functions

    def before_train_epoch(self, runner):
        self._call("before_train_epoch", runner)

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        self._call("before_train_iter", runner)

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        self._call("after_train_iter", runner)

    def _call(self, stage, runner):
        if stage in self.functions:
            self.functions[stage](runner)


def make_runner(config, work_dir, options=None, without=None, **functions):
    """A runner of the config, ``without`` a hook; ``functions`` are called at the stages they are named after."""
    cfg = Config.fromfile(config)
    cfg.merge_from_dict(options or {})
    if without:
        cfg.default_hooks.pop(without)
    cfg.work_dir = str(work_dir)
    # The default name changes once a second; runs of one name share their message hub.
    cfg.experiment_name = f"test_hooks_{next(_numbers)}"
    fill_dataloaders(cfg)
    runner = Runner.from_cfg(cfg)
    runner.register_hook(Calls(**functions))
    return runner


def train(config, work_dir, options=None, **arguments):
    runner = make_runner(config, work_dir, options, **arguments)
    try:
        runner.train()
    finally:
        loader = getattr(runner._train_loop, "dataloader", None)
        if getattr(loader, "_iterator", None) is not None:
            # Collected in one cycle with the runner, it would wait five seconds for each worker.
            loader._iterator._shutdown_workers()
    return runner


def state(runner):
    return {name: value.clone() for name, value in runner.model.state_dict().items()}


def assert_equal(first, second):
    assert list(first) == list(second)
    different = [name for name in first if not torch.equal(first[name], second[name])]
    assert not different


@pytest.fixture
def log():
    """Messages of all runners from now on, with their level."""
    records = []

    class Keep(logging.Handler):
        def emit(self, record):
            records.append((record.levelno, record.getMessage()))

    handler = Keep()
    original = Runner.build_logger

    def build_logger(self, *args, **kwargs):
        logger = original(self, *args, **kwargs)
        logger.addHandler(handler)
        return logger

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Runner, "build_logger", build_logger)
        yield records


def warnings_of(records):
    return [message for level, message in records if level == logging.WARNING]


# ---- prototypes


@pytest.mark.parametrize(("variant", "num_frozen"), [("paper", 5), ("release", 2)])
def test_frozen_targets_do_not_move_by_a_bit_and_then_do(config, tmp_path, variant, num_frozen):
    seen = []

    def look(runner):
        head = runner.model.head
        assert all(p.requires_grad for p in runner.model.parameters())
        targets = torch.cat([p.detach().flatten() for p in head.target_parameters()])
        others = [*runner.model.backbone.parameters(), *runner.model.neck.parameters()]
        seen.append((targets, [p.detach().clone() for p in others]))

    options = {
        "model.head.variant": variant,
        "train_cfg.max_epochs": 2,
        "default_hooks.freeze": dict(type="FreezePrototypesHook", num_iters=num_frozen),
    }
    steps = []

    def start(runner):
        if runner.iter == 0:
            # Run after the freeze's: torch forbids hooks to come and go while they are run.
            runner.optim_wrapper.optimizer.register_step_pre_hook(lambda *_: steps.append(1))
        look(runner)

    train(config, tmp_path, options, before_train_iter=start, after_train_iter=look)
    assert len(steps) == 2 * ITERS
    assert len(seen) == 2 * 2 * ITERS
    for iteration in range(2 * ITERS):
        before, after = seen[2 * iteration], seen[2 * iteration + 1]
        assert torch.equal(before[0], after[0]) == (iteration < num_frozen), iteration
        moved = [not torch.equal(a, b) for a, b in zip(before[1], after[1], strict=True)]
        assert all(moved) or iteration == 0  # the warm-up starts at almost nothing


def test_a_freeze_counts_steps_where_gradients_are_accumulated(config, tmp_path):
    seen = []

    def look(runner):
        seen.append(torch.cat([p.flatten() for p in runner.model.head.target_parameters()]))

    options = {
        "train_cfg.max_epochs": 2,
        "optim_wrapper.accumulative_counts": 2,
        "default_hooks.freeze": dict(type="FreezePrototypesHook", num_iters=2),
    }
    train(config, tmp_path, options, before_train_iter=look)
    # Steps end iterations 1, 3, 5 and 7; the first two of them are frozen.
    torch.testing.assert_close(seen[5], seen[0], rtol=0, atol=2e-7)
    assert not torch.allclose(seen[6], seen[0], atol=1e-5)


@pytest.mark.parametrize("num_frozen", [0, 20])
def test_frozen_gradients_do_not_count_in_the_norm_that_is_clipped(config, tmp_path, num_frozen):
    norms = []

    def attach(runner):
        if runner.iter:
            return

        def compare(optimizer, *_):
            grads = [
                p.grad.flatten()
                for g in optimizer.param_groups
                for p in g["params"]
                if p.grad is not None
            ]
            found = runner.message_hub.get_scalar("train/grad_norm").current()
            norms.append((found, torch.cat(grads).norm().item()))

        runner.optim_wrapper.optimizer.register_step_pre_hook(compare)

    options = {
        "train_cfg.max_epochs": 1,
        "optim_wrapper.clip_grad": dict(max_norm=1e9),  # measures, and leaves them as they are
        "default_hooks.freeze": dict(type="FreezePrototypesHook", num_iters=num_frozen),
    }
    train(config, tmp_path, options, before_train_iter=attach)
    assert len(norms) == ITERS
    for found, expected in norms:
        assert found == pytest.approx(expected, rel=1e-5)


def test_nothing_is_frozen_by_default_and_not_less(config, tmp_path):
    assert FreezePrototypesHook().num_iters == 0
    with pytest.raises(ValueError, match=r"num_iters must be >= 0, got -1; 0 freezes nothing"):
        FreezePrototypesHook(-1)


@pytest.mark.parametrize("variant", ["paper", "release"])
def test_prototypes_are_of_unit_length_after_every_step(config, tmp_path, variant):
    norms = {"C": [], "g": []}

    def look(runner):
        head = runner.model.head
        norms["C"] += [m.weight.norm(dim=1) - 1 for m in head.prototypes.values()]
        norms["g"] += [m.linear.weight.norm(dim=1) - 1 for m in head.correlation.values()]

    options = {"model.head.variant": variant, "train_cfg.max_epochs": 1}
    train(config, tmp_path / "with", options, after_train_iter=look)
    assert torch.cat(norms["C"]).abs().max() < 1e-6
    g = torch.cat(norms["g"]).abs().max()
    assert g < 1e-6 if variant == "release" else g > 0.01  # the paper's g is a plain linear layer
    norms["C"].clear()
    train(config, tmp_path / "off", options, without="normalize_prototypes", after_train_iter=look)
    assert torch.cat(norms["C"]).abs().max() > 1e-4  # the hook does something


# ---- queues


def test_queues_start_at_their_epoch(config, tmp_path):
    pushed = []

    def look(runner):
        queues = runner.model.head.queues
        pushed.append({name: q.num_pushed for name, q in queues.items()})
        if runner.epoch < 1:
            assert not any(q.embeddings.any() for q in queues.values())

    options = {
        "train_cfg.max_epochs": 2,
        "default_hooks.queue": dict(type="QueueHook", start_epoch=1),
    }
    train(config, tmp_path, options, after_train_iter=look)
    assert pushed[:ITERS] == [dict(s0=0, s1=0)] * ITERS
    assert pushed[ITERS:] == [dict(s0=BATCH * n, s1=4 * BATCH * n) for n in range(1, ITERS + 1)]


def test_queues_start_at_once_without_the_hook(config, tmp_path):
    runner = train(config, tmp_path, {"train_cfg.max_epochs": 1})
    assert runner.model.head.queues["s0"].num_pushed == BATCH * ITERS
    assert QueueHook().start_epoch == 0


# ---- the watch on the losses


def test_a_run_stuck_at_ln_k_is_reported_with_the_remedy(config, tmp_path, log):
    options = {
        "train_cfg.max_epochs": 2,
        "model.head.assigner.epsilon": 50.0,  # codes are uniform
        "model.head.temperature": 10.0,  # and so are predictions
        "default_hooks.loss_watch": dict(type="LossWatchHook", patience=4, interval=2),
    }
    train(config, tmp_path, options)
    found = [m for m in warnings_of(log) if m.startswith("The loss of ")]
    # Ten iterations: reported after 4 and once more after 8.
    assert [m.split()[3] for m in found] == ["s0", "s1"] * 2
    assert re.search(
        r"^The loss of s0 has stood at ln K for 4 iterations \(ratio (0\.99\d|1\.0\d\d)\): its codes are "
        r"uniform and nothing is learned there\. Set model\.head\.assigner\.epsilon lower \(now 50; 0\.01 "
        r"say\), use AdamW with lr 0\.003 .*See docs/small_batches\.md\.$",
        found[0],
    )


def test_a_run_that_is_not_stuck_is_not_reported(config, tmp_path, log):
    options = {
        "train_cfg.max_epochs": 3,
        "default_hooks.loss_watch": dict(type="LossWatchHook", patience=4, interval=1),
    }
    train(config, tmp_path, options)
    assert not [m for m in warnings_of(log) if m.startswith("The loss of ")]


def watched(ratios, monkeypatch, **arguments):
    """Iterations (from 1) at whose end a warning was given."""
    hook = LossWatchHook(**{"interval": 1, **arguments})
    warned = []
    head = SimpleNamespace(assigner=SimpleNamespace(epsilon=0.05))
    monkeypatch.setattr(loss_watch_hook, "head_of", lambda _: head)
    for iteration, ratio in enumerate(ratios):
        logger = SimpleNamespace(warning=lambda _, n=iteration: warned.append(n + 1))
        runner = SimpleNamespace(iter=iteration, logger=logger)
        outputs = {"loss": torch.tensor(3.0), "ce_ratio_s0": torch.tensor(ratio)}
        hook.after_train_iter(runner, 0, outputs=outputs)
    return warned


def test_when_a_stuck_loss_is_reported(monkeypatch):
    assert watched([1.0] * 12, monkeypatch, patience=5) == [5, 10]
    assert watched([0.98] * 12, monkeypatch, patience=5) == []
    # One look below the threshold starts the count anew.
    assert watched([1.0] * 4 + [0.9] + [1.0] * 7, monkeypatch, patience=5) == [10]
    assert watched([0.5] * 6 + [0.995] * 6, monkeypatch, patience=5) == [11]
    assert watched([0.95] * 5, monkeypatch, patience=5, threshold=0.9) == [5]
    # Confident and wrong, as at the start: not at ln K, and a lower epsilon is not the remedy.
    assert watched([2.5] * 8, monkeypatch, patience=5) == []
    assert watched([1.5, 1.2, 1.05] + [1.005] * 6, monkeypatch, patience=5) == [8]
    assert watched([1.0] * 12, monkeypatch, patience=6, interval=3) == [6, 12]


def test_a_diverged_run_is_told_apart_from_a_stuck_one(monkeypatch):
    said = []
    runner = SimpleNamespace(iter=49, logger=SimpleNamespace(warning=said.append))
    LossWatchHook(interval=50).after_train_iter(
        runner, 0, outputs={"ce_ratio_s1": torch.tensor(math.nan)}
    )
    (message,) = said
    assert message.startswith("The loss of s1 is nan: training has diverged.")


# ---- data that does not fit


def test_what_is_too_large_for_the_data():
    spec = PyramidSpec.from_config(
        dict(
            s0=dict(region=8, patch=8, num_prototypes=21, alpha=1.0, queue_length=20),
            s1=dict(
                region=8, patch=4, grid=2, num_prototypes=80, alpha=0.5, beta=0.5, queue_length=81
            ),
        )
    )
    assert size_messages(spec, 20) == [
        "s0 has 21 prototypes for 20 patches (20 images): most will stay empty. "
        "Set model.pyramid.s0.num_prototypes to 2 or less.",
        "The queue of s1 (81) is longer than an epoch (80 patches): it would hold the same patches more than once. "
        "Set model.pyramid.s1.queue_length to 40 or less.",
    ]
    assert size_messages(spec, 21) == []


def test_data_that_does_not_fit_is_reported_before_the_first_step(config, tmp_path, log):
    options = {
        "train_cfg.max_epochs": 1,
        "model.pyramid.s0.num_prototypes": NUM_IMAGES + 1,
        "model.pyramid.s1.queue_length": 4 * NUM_IMAGES + 1,
        "auto_scale_lr": dict(base_batch_size=128),
    }
    train(config, tmp_path, options)
    found = warnings_of(log)
    assert f"s0 has {NUM_IMAGES + 1} prototypes for {NUM_IMAGES} patches" in found[0]
    assert f"The queue of s1 ({4 * NUM_IMAGES + 1}) is longer than an epoch" in found[1]
    assert found[2] == (
        "The schedule is made for batches of 128; this run has 4 x 1 process(es) = 4. Scale its learning rate "
        "(--auto-scale-lr) or set train_dataloader.batch_size=128."
    )
    first_loss = next(i for i, (_, m) in enumerate(log) if "loss_pyr_s0" in m)
    assert all(log.index((logging.WARNING, m)) < first_loss for m in found[:3])


@pytest.mark.parametrize(
    "scaling", [None, dict(base_batch_size=BATCH), dict(base_batch_size=128, enable=True)]
)
def test_data_that_fits_is_not_reported(config, tmp_path, log, scaling):
    options = {"train_cfg.max_epochs": 1, "auto_scale_lr": scaling}
    train(config, tmp_path, options)
    assert not [m for m in warnings_of(log) if "batch" in m or "prototypes" in m or "queue" in m]


def test_accumulated_gradients_count_in_the_batch():
    base = dict(base_batch_size=128)
    assert batch_messages(base, 16, 8) == []
    (message,) = batch_messages(base, 16, 4)
    assert "this run has 16 x 1 process(es) x 4 accumulated = 64. " in message
    assert message.endswith("or set train_dataloader.batch_size=32.")
    assert batch_messages(dict(base, enable=True), 16, 1) == []
    (message,) = batch_messages(dict(base, enable=True), 16, 4)
    assert "leaves out that gradients of 4 of them make a step" in message
    assert message.endswith("set auto_scale_lr.base_batch_size=32 (128 / 4).")
    assert batch_messages({}, 16, 4) == []


def test_no_full_batch(config, tmp_path):
    # Without schedulers: mmengine's own refuse an epoch of no iterations before any hook is asked.
    options = {"train_dataloader.batch_size": NUM_IMAGES + 1, "param_scheduler": None}
    message = (
        f"{NUM_IMAGES} images do not fill one batch of {NUM_IMAGES + 1} on each of 1 process(es): "
        "set train_dataloader.batch_size lower (--cfg-options train_dataloader.batch_size=N)"
    )
    with pytest.raises(ValueError, match=re.escape(message)):
        train(config, tmp_path, options)


# ---- the pyramid's way to the transforms


def test_the_models_pyramid_reaches_the_transform(config, tmp_path):
    runner = train(config, tmp_path, {"train_cfg.max_epochs": 1})
    transform = runner.train_dataloader.dataset.pipeline.transforms[1]
    assert isinstance(transform, PyramidViewTransform)
    assert transform.spec is runner.model.pyramid


def set_transform(cfg_options, **transform):
    return {
        **cfg_options,
        "train_dataloader.dataset.pipeline": [
            dict(type="LoadRGBImage"),
            dict(type="PyramidViewTransform", **transform),
            dict(type="PackPyramidInputs"),
        ],
    }


def test_a_transform_with_another_pyramid_is_refused(config, tmp_path):
    other = dict(s0=dict(region=32, patch=32, num_prototypes=7, alpha=1.0))
    with pytest.raises(
        ValueError,
        match=r"PyramidViewTransform and the model have different pyramids, Pyr.*: remove ",
    ):
        train(config, tmp_path, set_transform({}, pyramid=other))


def test_a_transform_with_the_same_pyramid_is_fine(config, tmp_path):
    same = Config.fromfile(config).model.pyramid.to_dict()
    train(config, tmp_path, set_transform({"train_cfg.max_epochs": 1}, pyramid=same))


def test_a_transform_without_a_pyramid_needs_the_hook(config, tmp_path):
    with pytest.raises(ValueError, match=r"PyramidViewTransform has no pyramid: give pyramid="):
        train(config, tmp_path, without="pyramid_link")


def test_transforms_of_wrapped_data_sets_are_found(images):
    transforms = [PyramidViewTransform() for _ in range(4)]
    inner = [UnlabelledImages(images, pipeline=[t]) for t in transforms]
    spec = PyramidSpec.from_config(dict(s0=dict(region=8, patch=8, num_prototypes=2, alpha=1.0)))
    set_pyramid(ConcatDataset(inner[:3]), spec)
    assert [t.spec for t in transforms[:3]] == [spec] * 3
    with pytest.raises(ValueError, match="has no pyramid"):
        _ = transforms[3].spec
    set_epoch(RepeatDataset(inner[0], 2), 3, seed=5)
    assert [t._clock.tolist() for t in transforms[:2]] == [[5, 3], [-1, -1]]
    set_epoch(torch.arange(3), 3, seed=5)  # nothing to tell


@pytest.mark.parametrize(
    "wrapper",
    [
        lambda inner: dict(type="RepeatDataset", times=2, dataset=inner),
        lambda inner: dict(type="ConcatDataset", datasets=[inner, inner]),
    ],
)
def test_repeats_of_an_image_within_an_epoch_are_refused(config, tmp_path, wrapper):
    """Their views would be the same: all that tells them apart is the index within the inner data set."""
    inner = Config.fromfile(config).train_dataloader.dataset.to_dict()
    options = {"train_dataloader.dataset": dict(wrapper(inner), _delete_=True)}
    message = (
        r"needs one data set, got (Repeat|Concat)Dataset, .* data_root=\[A, B\], and in place of "
        r"repeats train_cfg\.max_epochs=N"
    )
    with pytest.raises(ValueError, match=message):
        train(config, tmp_path, options)


# ---- resuming


@pytest.fixture(scope="module")
def uninterrupted(config, tmp_path_factory):
    """Three epochs in one go: where its checkpoints are, and what came out."""
    work_dir = tmp_path_factory.mktemp("uninterrupted")
    losses = []

    def look(runner):
        losses.append(float(runner.message_hub.get_scalar("train/loss").current()))

    runner = train(config, work_dir, after_train_iter=look)
    assert all(q.is_full for q in runner.model.head.queues.values())
    return SimpleNamespace(work_dir=work_dir, losses=losses, state=state(runner))


def head_counts(runner):
    return {name: q.num_pushed for name, q in runner.model.head.queues.items()}


def test_resuming_after_an_epoch_equals_going_on(config, tmp_path, uninterrupted):
    losses = []
    runner = train(
        config,
        tmp_path,
        {"resume": True, "load_from": str(uninterrupted.work_dir / "epoch_1.pth")},
        after_train_iter=lambda r: losses.append(
            float(r.message_hub.get_scalar("train/loss").current())
        ),
    )
    assert losses == uninterrupted.losses[ITERS:]
    assert_equal(state(runner), uninterrupted.state)
    assert head_counts(runner) == dict(s0=3 * ITERS * BATCH, s1=3 * ITERS * BATCH * 4)


@pytest.mark.parametrize(
    ("number", "num_workers", "iteration"),
    [
        (signal.SIGINT, 2, ITERS + 2),
        (signal.SIGTERM, 0, ITERS + 2),
        (signal.SIGINT, 0, 2 * ITERS - 1),
    ],
)
def test_resuming_within_an_epoch_equals_going_on(
    config, tmp_path, uninterrupted, log, handlers, number, num_workers, iteration
):
    """Also when the signal came in the last iteration of an epoch."""
    options = {
        "train_dataloader.num_workers": num_workers,
        "train_dataloader.persistent_workers": num_workers > 0,
    }

    def stop(runner):
        if runner.iter == iteration:
            signal.raise_signal(number)

    with pytest.raises(SystemExit, match=r"^130$"):
        train(config, tmp_path, options, before_train_iter=stop)
    assert {n: signal.getsignal(n) for n in handlers} == handlers
    target = tmp_path / "interrupted.pth"
    assert (tmp_path / "last_checkpoint").read_text() == str(target)
    assert any(
        m == f"Stopped; {target} holds iteration {iteration + 1}. Add --resume to go on from it."
        for _, m in log
    )
    assert not list(tmp_path.glob("*.partial"))

    log.clear()
    losses = []
    runner = train(
        config,
        tmp_path,
        {**options, "resume": True},
        after_train_iter=lambda r: losses.append(
            float(r.message_hub.get_scalar("train/loss").current())
        ),
    )
    done = iteration + 1 - ITERS
    assert any(m == f"Epoch 2 goes on after iteration {done} of {ITERS}." for _, m in log)
    assert losses == uninterrupted.losses[iteration + 1 :]
    assert_equal(state(runner), uninterrupted.state)


@pytest.fixture(autouse=True)
def handlers():
    """Runs that fail leave theirs behind."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield before
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def listens_to_ctrl_c():
    """A process as a terminal starts it; those of pytest-xdist ignore SIGINT."""
    previous = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, previous)


@pytest.mark.usefixtures("listens_to_ctrl_c")
@pytest.mark.parametrize("after_a_failed_run", [False, True])
def test_a_second_signal_ends_at_once(config, tmp_path, after_a_failed_run):
    if after_a_failed_run:
        for _ in range(2):
            with pytest.raises(ZeroDivisionError, match="division by zero"):
                train(config, tmp_path, before_train_iter=lambda _: 1 / 0)

    def stop(runner):
        if runner.iter == 1:
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)
            pytest.fail("is not reached")

    with pytest.raises(KeyboardInterrupt, match=r"^$"):
        train(config, tmp_path, before_train_iter=stop)
    assert not (tmp_path / "interrupted.pth").exists()


@pytest.mark.parametrize("seed", [0, None])
def test_resuming_equals_going_on_for_a_network_with_random_numbers_of_its_own(
    config, tmp_path, seed
):
    """Drop path draws from torch's generator; a seed that mmengine draws is the checkpoint's."""
    options = {
        "model.backbone.drop_path_rate": 0.5,
        "train_cfg.max_epochs": 2,
        "randomness.seed": seed,
    }

    def stop(runner):
        if runner.iter == ITERS + 1:
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(SystemExit, match=r"^130$"):
        train(config, tmp_path / "stopped", options, before_train_iter=stop)
    path = tmp_path / "stopped/interrupted.pth"
    drawn = torch.load(path, map_location="cpu", weights_only=False)["meta"]["seed"]
    resumed = train(config, tmp_path / "stopped", {**options, "resume": True})
    whole = train(config, tmp_path / "whole", {**options, "randomness.seed": drawn})
    assert resumed.iter == whole.iter == 2 * ITERS
    assert_equal(state(resumed), state(whole))


def test_ranks_share_the_seed_of_views_and_not_that_of_the_network(monkeypatch):
    drawn = []
    for rank in range(3):
        monkeypatch.setattr(data_hooks, "get_rank", lambda rank=rank: rank)
        for apart in (False, True):
            cfg = dict(randomness=dict(seed=7, diff_rank_seed=apart))
            runner = SimpleNamespace(cfg=cfg, seed=7 + rank * apart, iter=4)
            assert data_hooks._run_seed(runner) == 7
        data_hooks.ViewSeedHook().before_train_iter(runner, 0)
        drawn.append(torch.rand(()).item())
    assert len(set(drawn)) == 3


def test_the_checkpoint_of_a_stop_goes_once_there_is_a_later_one(config, tmp_path, log):
    def stop(runner):
        if runner.iter == ITERS + 1:
            signal.raise_signal(signal.SIGINT)

    stale, pointer = tmp_path / "interrupted.pth", tmp_path / "last_checkpoint"
    with pytest.raises(SystemExit, match=r"^130$"):
        train(config, tmp_path, before_train_iter=stop)
    assert stale.is_file() and pointer.read_text() == str(stale)
    there = []
    options = {"resume": True, "default_hooks.checkpoint.interval": 3, "train_cfg.max_epochs": 3}
    train(config, tmp_path, options, before_train_epoch=lambda _: there.append(stale.is_file()))
    assert there == [True, True]  # epoch 2 has left none
    assert not stale.exists()
    assert pointer.read_text() == str(tmp_path / "epoch_3.pth")


def test_a_run_begun_anew_neither_resumes_nor_overwrites_what_an_earlier_one_left(
    config, tmp_path, log
):
    def stop_at(iteration):
        def stop(runner):
            seen.append((stale.exists(), (tmp_path / "last_checkpoint").exists()))
            if runner.iter == iteration:
                signal.raise_signal(signal.SIGINT)

        return stop

    stale, earlier, seen = tmp_path / "interrupted.pth", tmp_path / "interrupted_earlier.pth", []
    with pytest.raises(SystemExit, match=r"^130$"):
        train(config, tmp_path, before_train_iter=stop_at(3))
    kept = stale.read_bytes()
    seen.clear()
    with pytest.raises(SystemExit, match=r"^130$"):
        train(config, tmp_path, before_train_iter=stop_at(1))
    # Until it has one of its own, --resume finds none.
    assert seen == [(False, False)] * 2
    assert earlier.read_bytes() == kept and stale.read_bytes() != kept
    assert any(m.endswith(f"To go on from that one instead: --resume {earlier}") for _, m in log)


def test_an_interrupt_hook_needs_a_time():
    with pytest.raises(ValueError, match=r"seconds must be > 0, got 0; usual is 2"):
        InterruptHook(seconds=0)


def test_resuming_within_an_epoch_needs_a_sampler_that_can(config, tmp_path):
    options = {"train_dataloader.sampler": dict(type="DefaultSampler", shuffle=True)}

    def stop(runner):
        if runner.iter == 1:
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(SystemExit, match=r"^130$"):
        train(config, tmp_path, options, before_train_iter=stop)
    with pytest.raises(
        TypeError,
        match=r"Resuming within an epoch needs ResumableSampler, got DefaultSampler: set ",
    ):
        train(config, tmp_path, {**options, "resume": True})


def test_a_loop_without_epochs_is_refused(config, tmp_path):
    options = {"train_cfg": dict(_delete_=True, by_epoch=False, max_iters=20)}
    message = "every one of an IterBasedTrainLoop would show the same views: set train_cfg=dict(by_"
    with pytest.raises(ValueError, match=re.escape(message)):
        train(config, tmp_path, options)


def test_without_the_seed_hook_it_would_not_be_equal(config, tmp_path, uninterrupted):
    """The equality above is not a matter of course."""
    options = {"resume": True, "load_from": str(uninterrupted.work_dir / "epoch_1.pth")}
    weights = state(train(config, tmp_path, options, without="view_seed"))
    assert any(not torch.equal(weights[k], v) for k, v in uninterrupted.state.items())


@pytest.mark.parametrize(
    "options", [{"model.pyramid.s0.num_prototypes": 7}, {"model.pyramid.s1": None}]
)
def test_a_checkpoint_of_another_pyramid_is_refused(config, tmp_path, uninterrupted, options):
    key = next(iter(options))
    line = {
        "model.pyramid.s0.num_prototypes": (
            "  head.prototypes.s0.weight: (6, 8) in the checkpoint, (7, 8) here"
        ),
        "model.pyramid.s1": "  head.prototypes.s1.weight: in the checkpoint, not here",
    }[key]
    checkpoint = str(uninterrupted.work_dir / "epoch_1.pth")
    with pytest.raises(
        ValueError,
        match=r"trained with another pyramid, variant or queue:\n(?s:.*)"
        + re.escape(line)
        + r"(?s:.*)Train with the config it was made with, or take over the backbone alone",
    ):
        train(config, tmp_path, {**options, "resume": True, "load_from": checkpoint})


@pytest.mark.parametrize(
    "options", [{"train_cfg.max_epochs": 5}, {"train_dataloader.batch_size": BATCH // 2}]
)
def test_resuming_a_run_of_another_schedule_is_refused(config, tmp_path, uninterrupted, options):
    checkpoint = str(uninterrupted.work_dir / "epoch_1.pth")
    with pytest.raises(
        ValueError, match=r"its schedule does not fit. Resume with the old settings"
    ):
        train(config, tmp_path, {**options, "resume": True, "load_from": checkpoint})


# ---- the program as a user starts and stops it


def start(config, work_dir, *options):
    command = [sys.executable, "tools/train.py", config, "--work-dir", work_dir, *options]
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [str(part) for part in command],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,  # Ctrl-C reaches the whole group: the loader's workers, too
    )


def test_too_few_images_are_named_before_a_schedule_of_nothing_is_built(config, tmp_path):
    process = start(
        config, tmp_path, "--cfg-options", f"train_dataloader.batch_size={NUM_IMAGES + 1}"
    )
    said, _ = process.communicate(timeout=300)
    assert process.returncode == 2 and "Traceback" not in said
    assert said.splitlines()[-1].startswith(
        f"train: {NUM_IMAGES} images do not fill one batch of {NUM_IMAGES + 1} on each of 1 process(es): set "
    )


@pytest.mark.parametrize(
    ("number", "num_workers"),
    [
        (signal.SIGINT, 2),
        (signal.SIGTERM, 2),
        pytest.param(signal.SIGINT, 0, marks=pytest.mark.slow),
    ],
)
def test_a_signal_to_all_processes_and_resume_from_the_command_line(
    config, tmp_path, uninterrupted, number, num_workers
):
    options = ["--cfg-options", f"train_dataloader.num_workers={num_workers}"]
    process = start(config, tmp_path, *options)
    output = []
    for line in process.stdout:
        output.append(line)
        if re.search(rf"Epoch\(train\) +\[2\]\[1/{ITERS}\]", line):
            os.killpg(process.pid, number)
    assert process.wait(timeout=300) == 130, "".join(output[-40:])
    assert (tmp_path / "interrupted.pth").is_file(), "".join(output[-40:])
    said = "".join(output)
    assert "Stopping after this iteration, with a checkpoint; once more to stop without." in said
    assert "Traceback" not in said

    process = start(config, tmp_path, "--resume", *options)
    said, _ = process.communicate(timeout=300)
    assert process.returncode == 0, said[-4000:]
    assert re.search(r"Epoch 2 goes on after iteration \d of", said)
    weights = torch.load(tmp_path / "epoch_3.pth", map_location="cpu", weights_only=False)
    assert_equal(weights["state_dict"], uninterrupted.state)
