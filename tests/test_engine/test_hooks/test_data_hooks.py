"""Data that does not match the config, and the pyramid of the transforms."""

import logging
import re

import pytest
import torch
from commands import run
from mmengine.config import Config
from mmengine.dataset import ConcatDataset, RepeatDataset
from project import ROOT
from small_runs import BATCH, NUM_IMAGES, train, warnings_of

from sspyr_mm.datasets import PyramidViewTransform, UnlabelledImages, set_epoch, set_views
from sspyr_mm.datasets.toy_scenes import generate
from sspyr_mm.engine.hooks.data_check_hook import batch_message
from sspyr_mm.pyramid import PyramidSpec


def test_sizes_too_large_for_the_data_are_reported():
    spec = PyramidSpec.from_config(
        dict(
            s0=dict(region=8, patch=8, num_prototypes=21, alpha=1.0, queue_length=20),
            s1=dict(region=8, patch=4, grid=2, num_prototypes=80, alpha=0.5, beta=0.5, queue_length=81),
        )
    )
    assert spec.size_messages(20) == [
        "s0 has 21 prototypes for 20 patches (20 images): most will stay empty. "
        "Use more images, or set model.pyramid.s0.num_prototypes to about 2, one per ten patches.",
        "The queue of s1 (81) is longer than an epoch (80 patches): it would hold the same patches more than once. "
        "Set model.pyramid.s1.queue_length to 40 or less.",
    ]
    assert spec.size_messages(21) == []


def test_mismatch_with_the_data_is_reported_before_the_first_step(config, tmp_path, log):
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
        "The learning rate is for 128 images per step; this run uses 4 x 1 process(es) = 4. To keep the recipe, set "
        "train_dataloader.batch_size=128; to scale the learning rate instead, set --auto-scale-lr."
    )
    assert sum("images per step" in message for message in found) == 1
    first_loss = next(i for i, (_, m) in enumerate(log) if "loss_pyr_s0" in m)
    assert all(log.index((logging.WARNING, m)) < first_loss for m in found[:3])


@pytest.mark.parametrize("scaling", [None, dict(base_batch_size=BATCH), dict(base_batch_size=128, enable=True)])
def test_matching_data_is_not_reported(config, tmp_path, log, scaling):
    options = {"train_cfg.max_epochs": 1, "auto_scale_lr": scaling}
    train(config, tmp_path, options)
    assert not [m for m in warnings_of(log) if "batch" in m or "prototypes" in m or "queue" in m]


@pytest.mark.parametrize(
    ("warm_up", "reported"),
    [
        (dict(end=2, by_epoch=True, convert_to_iter_based=True), "10 iterations, and the run has 10"),
        (dict(end=3, by_epoch=True), "3 epochs, and the run has 2"),
        (dict(end=9, by_epoch=False), None),
        (dict(end=11, by_epoch=False, start_factor=1.0, end_factor=0.1), None),
    ],
)
def test_warm_up_longer_than_the_run_is_reported(config, tmp_path, log, warm_up, reported):
    scheduler = {"type": "LinearLR", "start_factor": 0.1, **warm_up}
    train(config, tmp_path, {"train_cfg.max_epochs": 2, "param_scheduler": [scheduler]})
    found = [message for message in warnings_of(log) if "warms up" in message]
    assert len(found) == bool(reported) and all(f"The lr warms up for {reported}: " in message for message in found)


def test_accumulated_gradients_count_in_the_batch():
    base = dict(base_batch_size=128)
    assert batch_message(base, 16, 8) is None
    message = batch_message(base, 16, 4)
    assert "this run uses 16 x 1 process(es) x 4 accumulated = 64. " in message
    assert "set train_dataloader.batch_size=32;" in message
    # mmengine scales by the images of an iteration: 16 / 32 is 64 / 128.
    assert "--auto-scale-lr and auto_scale_lr.base_batch_size=32." in message
    assert "change the number of processes;" in batch_message(base, 16, 3)
    assert batch_message(dict(base, enable=True), 16, 1) is None
    message = batch_message(dict(base, enable=True), 16, 4)
    assert "a step accumulates 4 of them" in message
    assert message.endswith("set auto_scale_lr.base_batch_size=32 (128 / 4).")
    assert batch_message({}, 16, 4) is None


def test_batch_size_is_reported_once(tmp_path):
    """A run on labelled images with accumulated gradients, through tools/train.py."""
    generate(str(tmp_path), num_train=8, num_val=2, size=64)
    data = [
        f"{part}_dataloader.dataset.data_root={tmp_path}/annotations/instances_{part}2017.json"
        for part in ("train", "val")
    ]
    config = ROOT / "configs/benchmarks/classification/linear_coco14_50e.py"
    options = ["depth=18", "base_channels=8", "stem_channels=8", "init_cfg=None"]
    options = [f"model.backbone.{option}" for option in options]
    options += ["model.head.in_channels=64", "model.head.num_classes=12", "train_cfg.max_epochs=1"]
    options += ["train_dataloader.num_workers=0", "val_dataloader.num_workers=0"]
    options += ["train_dataloader.batch_size=2", "auto_scale_lr.base_batch_size=4"]
    for accumulated, count in ((1, 1), (2, 0)):
        # Runs of one name share their logger.
        last = [f"optim_wrapper.accumulative_counts={accumulated}", f"experiment_name=accumulated_{accumulated}"]
        work = tmp_path / f"work{accumulated}"
        done = run("tools/train.py", config, "--work-dir", work, "--cfg-options", *options, *data, *last)
        assert (done.stdout + done.stderr).count("The learning rate is ") == count


def test_data_smaller_than_a_batch_is_rejected(config, tmp_path):
    # Without schedulers: those of mmengine reject an empty epoch before any hook runs.
    options = {"train_dataloader.batch_size": NUM_IMAGES + 1, "param_scheduler": None}
    message = (
        f"{NUM_IMAGES} images do not fill one batch of {NUM_IMAGES + 1} on each of 1 process(es): "
        "set train_dataloader.batch_size lower (--cfg-options train_dataloader.batch_size=N)"
    )
    with pytest.raises(ValueError, match=re.escape(message)):
        train(config, tmp_path, options)


# ---- pyramid of the transforms


def test_pyramid_of_the_model_is_set_in_the_transform(config, tmp_path):
    runner = train(config, tmp_path, {"train_cfg.max_epochs": 1})
    transform = runner.train_dataloader.dataset.pipeline.transforms[1]
    assert isinstance(transform, PyramidViewTransform)
    assert transform.views is runner.model.views


def set_transform(cfg_options, **transform):
    return {
        **cfg_options,
        "train_dataloader.dataset.pipeline": [
            dict(type="LoadRGBImage"),
            dict(type="PyramidViewTransform", **transform),
            dict(type="PackPyramidInputs"),
        ],
    }


def test_transform_with_a_different_pyramid_is_rejected(config, tmp_path):
    other = dict(s0=dict(region=32, patch=32, num_prototypes=7, alpha=1.0))
    with pytest.raises(
        ValueError, match=r"PyramidViewTransform and the model have different pyramids, Views.*: remove "
    ):
        train(config, tmp_path, set_transform({}, pyramid=other))


def test_transform_with_the_same_pyramid_is_accepted(config, tmp_path):
    same = Config.fromfile(config).model.pyramid.to_dict()
    train(config, tmp_path, set_transform({"train_cfg.max_epochs": 1}, pyramid=same))


def test_transform_without_a_pyramid_requires_the_hook(config, tmp_path):
    with pytest.raises(ValueError, match=r"PyramidViewTransform has no pyramid: set pyramid="):
        train(config, tmp_path, without="pyramid_link")


def test_transforms_of_wrapped_data_sets_are_found(images):
    transforms = [PyramidViewTransform() for _ in range(4)]
    inner = [UnlabelledImages(images, pipeline=[t]) for t in transforms]
    spec = PyramidSpec.from_config(dict(s0=dict(region=8, patch=8, num_prototypes=2, alpha=1.0)))
    set_views(ConcatDataset(inner[:3]), spec.views)
    assert [t.views for t in transforms[:3]] == [spec.views] * 3
    with pytest.raises(ValueError, match="has no pyramid"):
        _ = transforms[3].views
    set_epoch(RepeatDataset(inner[0], 2), 3, seed=5)
    assert [t._clock.tolist() for t in transforms[:2]] == [[5, 3], [-1, -1]]
    set_epoch(torch.arange(3), 3, seed=5)  # no transforms


@pytest.mark.parametrize(
    "wrapper",
    [
        lambda inner: dict(type="RepeatDataset", times=2, dataset=inner),
        lambda inner: dict(type="ConcatDataset", datasets=[inner, inner]),
    ],
)
def test_wrapped_data_sets_are_rejected(config, tmp_path, wrapper):
    """Views depend on the index within the inner data set, so repeats of an image would have the same views."""
    inner = Config.fromfile(config).train_dataloader.dataset.to_dict()
    options = {"train_dataloader.dataset": dict(wrapper(inner), _delete_=True)}
    message = (
        r"needs one data set, got (Repeat|Concat)Dataset, .* data_root=\[A, B\], and in place of "
        r"repeats train_cfg\.max_epochs=N"
    )
    with pytest.raises(ValueError, match=message):
        train(config, tmp_path, options)
