"""Real runs of the shipped recipes at small size against a float64 implementation of all that follows augmentation."""

import math

import pytest
import torch
from mmengine.config import Config
from project import ROOT
from references.pretraining import PretrainingReference
from small_runs import make_runner

BATCH, EPOCHS = 6, 2
ITERS = 3  # of an epoch: 22 images in batches of 6
RECIPES = {"paper": "r50_coco_200e.py", "official": "r50_coco_200e_official.py"}
SCALES = {  # queues are full after 1, 2 and 1 steps
    0: dict(grid=1, region=64, patch=64, num_prototypes=7, queue_length=6, alpha=1.0),
    1: dict(grid=2, region=80, patch=40, num_prototypes=5, queue_length=40, alpha=0.25, beta=0.25),
    2: dict(grid=3, region=99, patch=33, num_prototypes=6, queue_length=54, alpha=0.25, beta=0.25),
}
CROPS = dict(num_views=3, patch=32, area=(0.05, 0.14))


def write_config(variant, images, folder, *, crops, queues):
    """The shipped recipe with a small network, small patches, and the queues from the second epoch on."""
    cfg = Config.fromfile(ROOT / "configs/ssprl" / RECIPES[variant])
    for s, scale in SCALES.items():
        cfg.model.pyramid[f"s{s}"].update(scale)
        if not queues:
            cfg.model.pyramid[f"s{s}"].queue_length = 0
    cfg.model.pyramid.s0.multi_crop = dict(CROPS) if crops else None
    cfg.model.backbone.update(depth=18, stem_channels=8, base_channels=8)
    cfg.model.neck.update(in_channels=64, hid_channels=24, out_channels=8)
    cfg.train_dataloader.update(batch_size=BATCH, num_workers=0, persistent_workers=False, pin_memory=False)
    cfg.train_dataloader.dataset.data_root = str(images)
    cfg.train_cfg.max_epochs = EPOCHS
    cfg.default_hooks.logger.interval = 1
    cfg.auto_scale_lr.base_batch_size = BATCH
    cfg.optim_wrapper.type = "OptimWrapper"  # float32
    for name in ("dtype", "loss_scale"):
        cfg.optim_wrapper.pop(name, None)
    if variant == "official":
        cfg.default_hooks.freeze_prototypes.num_iters = 2
        cfg.default_hooks.queue.start_epoch = 1
    else:
        cfg.default_hooks.queue = dict(type="QueueHook", start_epoch=1)
    cfg.dump(folder / "config.py")
    return folder / "config.py"


def record_run(config, work_dir):
    """Trains; returns the initial state, patches and losses of every step, and the final state."""
    patches, losses, states = [], [], []

    def keep_patches(module, args, output):
        patches.append({name: x.double() for name, x in output["inputs"].items()})
        return {**output, "inputs": patches[-1]}

    def keep_state(runner):
        if runner.iter == 0:
            runner.model.double().data_preprocessor.register_forward_hook(keep_patches)
        states.append({name: v.clone() for name, v in runner.model.state_dict().items()})

    def keep_losses(runner):
        scalars = runner.message_hub.log_scalars
        losses.append(
            {
                name.removeprefix("train/"): float(scalars[name].current())
                for name in scalars
                if name.startswith("train/loss_")
            }
        )
        if runner.iter == EPOCHS * ITERS - 1:
            keep_state(runner)

    runner = make_runner(config, work_dir, before_train_epoch=keep_state, after_train_iter=keep_losses)
    runner.train()
    assert len(patches) == len(losses) == EPOCHS * ITERS
    return states[0], patches, losses, states[-1]


def cosine_lr(step):
    return 0.0006 + (0.6 - 0.0006) * (1 + math.cos(math.pi * step / (EPOCHS * ITERS))) / 2


@pytest.mark.parametrize(
    ("variant", "crops", "queues"),
    [
        pytest.param("paper", False, True, id="paper-two_views-queues"),
        pytest.param("paper", True, False, id="paper-multi_crop-no_queues"),
        pytest.param("official", False, False, id="official-two_views-no_queues"),
        pytest.param("official", True, True, id="official-multi_crop-queues"),
    ],
)
def test_losses_and_weights_equal_an_independent_implementation(variant, crops, queues, images, tmp_path, monkeypatch):
    # Training amplifies the rounding of float32 to 1 % of the loss within six steps.
    monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)
    config = write_config(variant, images, tmp_path, crops=crops, queues=queues)
    start, patches, losses, end = record_run(config, tmp_path / "run")
    reference = PretrainingReference(
        {n: v for n, v in start.items() if isinstance(v, torch.Tensor)},
        {s: {"beta": 0.0, **scale, "queue_length": scale["queue_length"] * queues} for s, scale in SCALES.items()},
        variant,
        num_frozen=2 if variant == "official" else 0,
        optimizer=dict(momentum=0.9, weight_decay=1e-6, trust_coefficient=0.001),
    )
    for step, found in enumerate(losses):
        expected = reference.step(patches[step], cosine_lr(step), use_queues=step >= ITERS)
        assert found.keys() == expected.keys()
        for name, value in expected.items():
            assert found[name] == pytest.approx(value, rel=1e-9), f"{name} of step {step}"
    for name, value in reference.state.items():
        if "queues" not in name:
            moved = (value - start[name]).norm()
            assert moved > 1e-4 * start[name].norm(), name
            assert (end[name] - value).norm() < 1e-7 * moved, name
    assert {f"s{s}" for s in reference.queues} == ({"s0", "s1", "s2"} if queues else set())
    for s, queue in reference.queues.items():
        pushed = ITERS * BATCH * SCALES[s]["grid"] ** 2  # the oldest row is overwritten first
        rows = queue.stacked().roll(pushed % queue.length, dims=1)
        torch.testing.assert_close(end[f"head.queues.s{s}.embeddings"], rows, rtol=0, atol=1e-9)
