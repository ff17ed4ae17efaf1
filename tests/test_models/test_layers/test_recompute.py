"""Activations that are computed again: the same gradients and state, in less memory."""

import pytest
import torch
from instruments.fake_step import LiveBytes, step_bytes
from mmengine.config import Config
from mmpretrain.registry import MODELS
from small_step import BACKBONES, build, step
from torch import nn

import sspyr_mm.registration  # noqa: F401
from sspyr_mm.models.layers import recompute_stages


@pytest.mark.parametrize("lowered", [False, True], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("recompute", ["scale", "stage"])
@pytest.mark.parametrize("backbone", BACKBONES)
def test_gradients_and_state_are_those_of_the_plain_step(backbone, recompute, lowered):
    plain, saving = build(backbone, None), build(backbone, recompute)
    assert plain.state_dict().keys() == saving.state_dict().keys()
    for _ in range(2):  # running averages of the first step must not differ for the second
        assert torch.equal(step(plain, lowered=lowered), step(saving, lowered=lowered))
    for (name, wanted), found in zip(plain.named_parameters(), saving.parameters(), strict=True):
        if lowered:  # autocast's cache adds up gradients of two passes in bfloat16, which this does without
            apart = (found.grad - wanted.grad).norm() / wanted.grad.norm().clamp(min=1e-6)
            assert apart < 2e-2, name
        else:
            torch.testing.assert_close(found.grad, wanted.grad, rtol=1e-5, atol=1e-7, msg=name)
    for name, wanted in plain.named_buffers():  # running averages and counts of batches
        assert torch.equal(saving.get_buffer(name), wanted), name


def test_gradients_of_scales_are_added_in_float32():
    """Through autocast's cache, which all scales share, they would be added in bfloat16."""
    plain, saving = build("resnet", None), build("resnet", "scale")
    assert torch.equal(step(plain, lowered=True, cached=False), step(saving, lowered=True))
    for (name, wanted), found in zip(plain.named_parameters(), saving.parameters(), strict=True):
        torch.testing.assert_close(found.grad, wanted.grad, rtol=1e-5, atol=1e-7, msg=name)
    assert torch.is_autocast_cache_enabled()


@pytest.mark.parametrize("recompute", ["scale", "stage"])
def test_running_averages_are_updated_twice_without_the_guard(recompute, monkeypatch):
    from contextlib import nullcontext

    from sspyr_mm.models.layers import recompute as module

    monkeypatch.setattr(module, "_averages_stand", lambda _: nullcontext())
    plain, saving = build("resnet", None), build("resnet", recompute)
    step(plain), step(saving)
    name = "backbone.layer1.0.bn1.num_batches_tracked"
    assert saving.get_buffer(name) == 2 * plain.get_buffer(name)


def gib_of_a_step(recompute, *, depth=50, **pyramid):
    """Memory of a step with 128 images and bfloat16: counted with fake tensors, nothing is computed."""
    cfg = Config.fromfile("configs/ssprl/r50_coco_200e.py").model
    cfg.update(recompute=recompute)
    cfg.backbone.update(depth=depth, norm_cfg=dict(type="BN"))
    cfg.neck.update(in_channels=2048 if depth == 50 else 512, norm_cfg=dict(type="BN"))
    cfg.pyramid.update(pyramid)
    return step_bytes(MODELS.build(cfg).train(), 128, dtype=torch.bfloat16) / 2**30


@pytest.mark.slow
def test_memory_of_the_papers_step_fits_24_gib():
    assert gib_of_a_step(None) > 36 and gib_of_a_step("scale") < 20 and gib_of_a_step("stage") < 16


@pytest.mark.slow
def test_memory_of_a_step_is_reduced():
    plain, scale, stage = (gib_of_a_step(one, depth=18, s2=None) for one in (None, "scale", "stage"))
    assert scale < 0.6 * plain and stage < 0.75 * plain


def test_live_bytes_are_counted_until_they_are_freed():
    with LiveBytes() as live:
        x = torch.zeros(1000)  # 4000 bytes
        y = x + 1
        del y
        z = x.view(10, 100).mul_(2)
        assert live.now == 4000
    assert live.peak == 8000 and z.shape == (10, 100)


def test_unsupported_modes_and_backbones_are_rejected():
    with pytest.raises(ValueError, match="recompute must be None, 'scale' or 'stage', got 'all'"):
        build("resnet", "all")
    with pytest.raises(ValueError, match="needs a backbone with stages, Linear has no known"):
        recompute_stages(nn.Linear(2, 2))
