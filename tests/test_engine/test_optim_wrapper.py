"""Mixed precision without loss scaling."""

import contextlib

import pytest
import torch
from mmengine.optim import OptimWrapper
from mmpretrain.registry import OPTIM_WRAPPERS

from sspyr_mm.engine.optim_wrapper import AutocastOptimWrapper


def test_autocast_wrapper_computes_in_bfloat16_and_updates_float32_weights():
    model = torch.nn.Linear(4, 3)
    wrapper = OPTIM_WRAPPERS.build(
        dict(type="AutocastOptimWrapper", optimizer=torch.optim.SGD(model.parameters(), lr=0.5))
    )
    images = torch.randn(6, 4)
    before = model.weight.detach().clone()
    with wrapper.optim_context(model):
        output = model(images)
    assert output.dtype == torch.bfloat16
    assert model(images).dtype == torch.float32  # outside of the context
    wrapper.update_params(output.float().sum())
    assert model.weight.dtype == torch.float32
    # d(sum)/dW is the sum of the inputs, in every row; bfloat16 has 8 bits
    step = (before - model.weight) / 0.5
    torch.testing.assert_close(step, images.sum(0).expand(3, 4), rtol=2e-2, atol=5e-2)


def test_autocast_wrapper_accumulates_gradients():
    model = torch.nn.Linear(1, 1, bias=False)
    wrapper = AutocastOptimWrapper(optimizer=torch.optim.SGD(model.parameters(), lr=1.0), accumulative_counts=2)
    wrapper.initialize_count_status(model, 0, 2)
    start = model.weight.item()
    for index, value in enumerate((1.0, 3.0)):
        with wrapper.optim_context(model):
            loss = model(torch.tensor([[value]])).sum()
        wrapper.update_params(loss)
        if index == 0:
            assert model.weight.item() == start
    assert model.weight.item() == pytest.approx(start - 2.0)  # the mean of both gradients
    assert isinstance(wrapper, OptimWrapper)


def test_autocast_wrapper_synchronises_gradients_only_when_it_steps():
    class Distributed(torch.nn.Linear):
        skipped = 0

        @contextlib.contextmanager
        def no_sync(self):
            self.skipped += 1
            yield

    model = Distributed(1, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    wrapper = AutocastOptimWrapper(optimizer=optimizer, accumulative_counts=2)
    wrapper.initialize_count_status(model, 0, 4)
    for _ in range(4):
        with wrapper.optim_context(model):
            loss = model(torch.ones(1, 1)).sum()
        wrapper.update_params(loss)
    assert model.skipped == 2


def test_autocast_wrapper_rejects_float16():
    optimizer = torch.optim.SGD(torch.nn.Linear(1, 1).parameters(), lr=1.0)
    with pytest.raises(ValueError, match=r"dtype must be 'bfloat16', got 'float16'; .*AmpOptimWrapper"):
        AutocastOptimWrapper(optimizer=optimizer, dtype="float16")
