"""StepGuard alone: no waiting for the device, bits of all types, optimizers that keep state on the host."""

import math

import pytest
import torch
from instruments.counters import OperatorCounter

from sspyr_mm.engine.optimizers import ForeachLARS
from sspyr_mm.engine.step_guard import StepGuard

OPTIMIZERS = {
    "sgd": lambda params: torch.optim.SGD(params, lr=0.1, momentum=0.9, weight_decay=0.1),
    "plain_sgd": lambda params: torch.optim.SGD(params, lr=0.1),
    "adamw": lambda params: torch.optim.AdamW(params, lr=0.1),
    "lars": lambda params: ForeachLARS(params, lr=5.0, weight_decay=1e-4),
    "counting": lambda params: Counting(params, {}),
}


class Counting(torch.optim.Optimizer):
    """Counts its steps per parameter, as a Python number."""

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            for param in group["params"]:
                if param.grad is not None:
                    state = self.state[param]
                    state["steps"] = state.get("steps", 0) + 1
                    param.sub_(param.grad / state["steps"])


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4), torch.nn.Linear(4, 1))
        self.register_buffer("limits", torch.tensor([-math.inf, math.inf]))
        self.register_buffer("small", torch.zeros(3, dtype=torch.float16))
        self.register_buffer("flags", torch.zeros(3, dtype=torch.bool))

    def forward(self, x):
        self.small += 1
        self.flags.logical_not_()
        return {"loss_a": self.layers(x).square().mean(), "nan_ratio": x.sum() * math.nan}


def make(name, deferred):
    torch.manual_seed(0)
    model = Net()
    optimizer = OPTIMIZERS[name](model.parameters())
    return model, optimizer, StepGuard(model, [optimizer], list(model.buffers()), deferred=deferred)


def step(model, optimizer, guard, value=1.0):
    """One step whose images are multiplied by a value; returns the verdict."""
    guard.begin()
    x = torch.randn(8, 3, generator=torch.Generator().manual_seed(1)) * value
    model(x)["loss_a"].backward()
    optimizer.step()
    optimizer.zero_grad()
    return guard.finish()


def everything(model, optimizer):
    named = {f"{i} {key}": value for i, s in optimizer.state_dict()["state"].items() for key, value in s.items()}
    return {k: v.clone() if torch.is_tensor(v) else v for k, v in {**model.state_dict(), **named}.items()}


@pytest.mark.parametrize("deferred", [False, True], ids=["host", "device"])
@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("bad", [0, 2])
def test_discarded_step_restores_every_bit(name, deferred, bad):
    """Also in the first step, in which optimizers create their state."""
    model, optimizer, guard = make(name, deferred)
    other, its_optimizer, its_guard = make(name, deferred)
    for number in range(4):
        discarded = number == bad
        assert guard.restore_late(step(model, optimizer, guard, math.nan if discarded else 1.0)) == discarded
        if not discarded:
            assert not its_guard.restore_late(step(other, its_optimizer, its_guard))
        found, wanted = everything(model, optimizer), everything(other, its_optimizer)
        assert list(found) == list(wanted)
        for key, value in wanted.items():
            same = torch.equal(value, found[key]) if torch.is_tensor(value) else value == found[key]
            assert same, (number, key)
    assert wanted["flags"].all() and wanted["small"][0] == 3


@pytest.mark.parametrize("name", ["sgd", "adamw", "lars"])
def test_a_step_is_discarded_without_waiting_for_the_device(name):
    model, optimizer, guard = make(name, True)
    step(model, optimizer, guard)
    on_host = [entries["step"] for entries in optimizer.state.values() if "step" in entries]  # AdamW's, on a GPU, too
    with OperatorCounter(on_host=on_host) as counter:
        step(model, optimizer, guard, math.nan)
    assert not counter.counts.host_syncs
    assert counter.counts.operators["aten._foreach_norm"] == 1 + 2 * (name == "lars")
    model, optimizer, guard = make(name, False)
    with OperatorCounter() as counter:
        step(model, optimizer, guard, math.nan)
    assert counter.counts.host_syncs  # the counter sees a flag that is read


@pytest.mark.parametrize("deferred", [False, True], ids=["host", "device"])
@pytest.mark.parametrize(("value", "discarded"), [(1e25, False), (math.inf, True), (-math.inf, True), (math.nan, True)])
def test_large_finite_gradients_are_not_discarded(deferred, value, discarded):
    """The square of 1e25 is infinite in float32."""
    model, optimizer, guard = make("plain_sgd", deferred)
    model.layers[0].bias.register_hook(lambda grad: torch.full_like(grad, value))
    assert bool(step(model, optimizer, guard)) == discarded


def test_closed_guard_does_nothing():
    model, optimizer, guard = make("sgd", False)
    step(model, optimizer, guard)
    guard.close()
    model(torch.full((8, 3), math.nan))["loss_a"].backward()
    optimizer.step()
    assert all(param.isnan().any() for param in model.parameters())
