"""A step of the shipped ResNet-50 recipes on fake CUDA tensors: no tensor on the wrong device, and no host wait.

Nothing is computed and no GPU is needed. The backward pass is left out: autograd needs a real device.
"""

from contextlib import contextmanager

import pytest
import torch
from instruments.counters import OperatorCounter
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import init_default_scope
from mmpretrain.registry import MODELS
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten

import sspyr_mm.registration  # noqa: F401
from sspyr_mm.models import SSPRL

IMAGES = 2


class NoCrossing(TorchDispatchMode):
    """Fails on copies that block the host: all to the host, and to the device those that are not non-blocking."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        given, made = (
            {leaf.device.type for leaf in tree_flatten(tree)[0] if isinstance(leaf, torch.Tensor)}
            for tree in ((args, kwargs), result)
        )
        if func.overloadpacket is torch.ops.aten.copy_:
            given, made = {args[1].device.type}, {args[0].device.type}
            overlaps = kwargs.get("non_blocking") or args[2:] == (True,)
        else:
            overlaps = kwargs.get("non_blocking")
        assert not (given == {"cuda"} and "cpu" in made), f"{func} brings a tensor to the host"
        assert not (given == {"cpu"} and "cuda" in made and not overlaps), f"{func} blocks the host"
        return result


@contextmanager
def fake_cuda(monkeypatch):
    """Fake tensors without pinned memory, which needs a real device. Yields counts of operators."""
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: tensor)
    with FakeTensorMode(allow_non_fake_inputs=True), OperatorCounter() as counter, NoCrossing():
        yield counter.counts


def move(model):
    """Moves a model to the fake device by its own method."""
    torch.__future__.set_overwrite_module_params_on_conversion(True)
    try:
        with FakeTensorMode(allow_non_fake_inputs=True):
            model.to("cuda")
    finally:
        torch.__future__.set_overwrite_module_params_on_conversion(False)


@contextmanager
def half_precision(enabled):
    """CUDA's autocast; `torch.autocast` leaves it off on a machine without a GPU."""
    before = torch.is_autocast_enabled("cuda"), torch.get_autocast_dtype("cuda")
    torch.set_autocast_enabled("cuda", enabled)
    torch.set_autocast_dtype("cuda", torch.float16)
    try:
        yield
    finally:
        torch.clear_autocast_cache()
        torch.set_autocast_enabled("cuda", before[0])
        torch.set_autocast_dtype("cuda", before[1])


def step(model, optimizer, seeds, *, lowered):
    """A training step with gradients of zero; returns the losses."""
    inputs = {"seed": seeds}
    for g in model.views.groups:
        inputs[g.name] = torch.empty(len(seeds), g.num_regions, g.region, g.region, 3, dtype=torch.uint8)
        if num_boxes := 2 if g.paste else bool(g.overlap):
            inputs[f"{g.name}_boxes"] = torch.empty(len(seeds), g.num_views, num_boxes, 4)
    patches = model.data_preprocessor({"inputs": inputs, "data_samples": None}, training=True)
    with half_precision(lowered):
        losses = model.loss(patches["inputs"])
    total, logged = model.parse_losses(losses)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    for _ in range(2):  # its state is made in the first
        optimizer.step()
    if isinstance(model, SSPRL):
        model.head.normalize_()
    else:
        model.finish_step(0.99)
    return {"total": total, **logged, **losses}


def build_optimizer(model, cfg):
    """The optimizer without its wrapper: mmengine's for float16 needs a GPU."""
    options = {key: v for key, v in cfg.optim_wrapper.items() if key not in ("dtype", "loss_scale")}
    return build_optim_wrapper(model, {**options, "type": "OptimWrapper"}).optimizer


@pytest.mark.parametrize("name", ["r50_coco_200e", "r50_coco_200e_official"])
def test_step_stays_on_the_device_without_synchronisation(name, monkeypatch):
    cfg = Config.fromfile(f"configs/ssprl/{name}.py")
    init_default_scope("mmpretrain")
    official = name.endswith("official")
    lowered = cfg.optim_wrapper.type == "AmpOptimWrapper"
    cfg.model.backbone.depth, cfg.model.neck.in_channels = 18, 512  # built faster than ResNet-50
    model = MODELS.build(cfg.model).train()
    assert len(model.head.queues) == (3 if official else 0) and lowered == official
    for queue in model.head.queues.values():
        queue.set_extra_state(torch.tensor(queue.length))  # full: it takes part from the first step
    move(model)
    types = set()
    model.backbone.register_forward_hook(lambda module, given, feats: types.add(feats[-1].dtype))
    optimizer = build_optimizer(model, cfg)
    seeds = torch.arange(IMAGES)  # real: the host reads them
    with fake_cuda(monkeypatch) as counts:
        losses = step(model, optimizer, seeds, lowered=lowered)
    assert not counts.host_syncs
    assert types == {torch.float16 if lowered else torch.float32}
    state = [value for values in optimizer.state.values() for value in values.values()]
    assert len(state) == len(list(model.parameters()))
    kept = [*model.parameters(), *model.buffers(), *state, *losses.values()]
    assert {tensor.device.type for tensor in kept} == {"cuda"}
    assert all(value.dtype == torch.float32 for value in losses.values())
    assert losses["total"].requires_grad and "loss_cross_s2" in losses
    assert counts.operators["aten._foreach_norm"] == 2 * 2


@pytest.mark.parametrize(
    "method",
    [
        *("mocov2", "byol", "detco", "insloc"),
        *(pytest.param(m, marks=pytest.mark.slow) for m in ("swav", "densecl", "maskco")),
    ],
)
def test_step_of_every_method_stays_on_the_device_without_synchronisation(method, monkeypatch):
    init_default_scope("mmpretrain")
    model = MODELS.build(Config.fromfile(f"configs/{method}/r18_small.py").model).train()
    move(model)
    optimizer = build_optimizer(model, Config.fromfile(f"configs/{method}/r50_coco_200e.py"))
    seeds = torch.arange(4)
    with fake_cuda(monkeypatch) as counts:
        losses = step(model, optimizer, seeds, lowered=False)
    assert not counts.host_syncs
    kept = [*model.parameters(), *model.buffers(), *losses.values()]
    assert {tensor.device.type for tensor in kept} == {"cuda"}
    assert losses["total"].requires_grad and losses["total"].dtype == torch.float32


@pytest.mark.parametrize(
    ("function", "error"),
    [
        (lambda x: x.sum().item(), DataDependentOutputException),
        (lambda x: x.cpu(), AssertionError),
        (lambda x: torch.empty(6).copy_(x), AssertionError),
        (lambda x: x.copy_(torch.empty(6)), AssertionError),
        (lambda x: x + torch.tensor([1.0]).to(x.device), AssertionError),
        (lambda x: x + torch.empty(6), RuntimeError),  # on two devices
    ],
)
def test_waiting_and_wrong_devices_are_detected(function, error, monkeypatch):
    with fake_cuda(monkeypatch):
        x = torch.empty(6, device="cuda")
        x.add_(1).copy_(torch.empty(6), non_blocking=True)
        with pytest.raises(error):
            function(x)
