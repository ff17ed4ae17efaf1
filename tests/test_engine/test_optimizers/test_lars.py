"""ForeachLARS against SGD inside LARC, written out in float64."""

import copy

import numpy as np
import pytest
import torch
from references.lars import LarsReference
from torch.utils._python_dispatch import TorchDispatchMode

from sspyr_mm.engine.optimizers import ForeachLARS

SHAPES = [(4, 3), (5,), (2, 3, 3, 3), (1,), (6, 2)]


class NoReadBack(TorchDispatchMode):
    """Raises if a value of a tensor is copied to the host."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func is torch.ops.aten._local_scalar_dense.default:
            raise AssertionError("a value was read back from the device")
        return func(*args, **(kwargs or {}))


def make_params(dtype, zero=()):
    rng = torch.Generator().manual_seed(0)
    params = [torch.randn(s, generator=rng, dtype=torch.float64) for s in SHAPES]
    for i in zero:
        params[i].zero_()
    return [torch.nn.Parameter(p.to(dtype)) for p in params]


def make_grads(step, dtype, missing=(), zero=()):
    rng = torch.Generator().manual_seed(100 + step)
    grads = []
    for i, shape in enumerate(SHAPES):
        grad = 0.3 * torch.randn(shape, generator=rng, dtype=torch.float64).to(dtype)
        grads.append(None if i in missing else torch.zeros_like(grad) if i in zero else grad)
    return grads


@pytest.mark.parametrize(("dtype", "rtol"), [(torch.float64, 1e-12), (torch.float32, 2e-6)])
@pytest.mark.parametrize("weight_decay", [0.0, 1e-6, 0.5])
@pytest.mark.parametrize("trust_coefficient", [0.001, 0.1])
def test_equals_the_reference(dtype, rtol, weight_decay, trust_coefficient):
    """Zero weights, zero gradients, missing gradients and a schedule, 12 steps."""
    options = dict(momentum=0.9, weight_decay=weight_decay, trust_coefficient=trust_coefficient)
    params = make_params(dtype, zero=[1])
    reference = LarsReference([p.detach().double().numpy() for p in params], **options)
    optimizer = ForeachLARS(params, lr=1.0, **options)
    for step in range(12):
        lr = 0.6 * 0.8**step
        optimizer.param_groups[0]["lr"] = lr
        missing = [2, 3] if step == 5 else [3] if step < 3 else []
        grads = make_grads(step, dtype, missing, zero=[0] if step in (0, 7) else [])
        for param, grad in zip(params, grads, strict=True):
            param.grad = grad
        optimizer.step()
        reference.step([None if g is None else g.double().numpy() for g in grads], lr)
        for param, expected in zip(params, reference.params, strict=True):
            scale = np.abs(expected).max()
            np.testing.assert_allclose(param.detach().double().numpy(), expected, rtol=0, atol=rtol * scale)


def test_equals_torch_sgd_on_scaled_gradients():
    """The composition in the official code: gradients are scaled first, then plain SGD."""
    ours = make_params(torch.float64)
    theirs = copy.deepcopy(ours)
    optimizer = ForeachLARS(ours, lr=0.6, momentum=0.9, weight_decay=0.01)
    sgd = torch.optim.SGD(theirs, lr=0.6, momentum=0.9)
    for step in range(8):
        for opt in (optimizer, sgd):
            opt.param_groups[0]["lr"] = 0.6 / (step + 1)
        for a, b, grad in zip(ours, theirs, make_grads(step, torch.float64), strict=True):
            a.grad = grad
            ratio = 0.001 * b.detach().norm() / (grad.norm() + 0.01 * b.detach().norm() + 1e-8)
            b.grad = ratio * (grad + 0.01 * b.detach())
        optimizer.step()
        sgd.step()
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=0)


def test_learning_rate_is_not_in_the_momentum_buffer():
    params = make_params(torch.float64)
    optimizer = ForeachLARS(params, lr=0.6)
    for param, grad in zip(params, make_grads(0, torch.float64), strict=True):
        param.grad = grad
    optimizer.step()
    before = [p.detach().clone() for p in params]
    optimizer.param_groups[0]["lr"] = 0.0
    optimizer.step()
    # If the rate were inside of the buffer, the rate of the first step would still move the weights.
    assert all(torch.equal(p, b) for p, b in zip(params, before, strict=True))


def test_zero_weights_take_a_plain_step():
    param = torch.nn.Parameter(torch.zeros(3))
    optimizer = ForeachLARS([param], lr=0.5, momentum=0.0, weight_decay=0.1)
    param.grad = torch.tensor([1.0, -2.0, 4.0])
    optimizer.step()
    torch.testing.assert_close(param.detach(), torch.tensor([-0.5, 1.0, -2.0]))


def test_groups_keep_their_own_settings():
    params = make_params(torch.float64)
    settings = [
        dict(lr=0.6, momentum=0.9, weight_decay=0.0, trust_coefficient=0.001),
        dict(lr=0.1, momentum=0.5, weight_decay=0.3, trust_coefficient=0.02),
    ]
    members = [[0, 2, 4], [1, 3]]
    groups = [dict(params=[params[i] for i in m], **s) for m, s in zip(members, settings, strict=True)]
    optimizer = ForeachLARS(groups, lr=9.0)
    references = []
    for m, s in zip(members, settings, strict=True):
        options = {k: v for k, v in s.items() if k != "lr"}
        references.append(LarsReference([params[i].detach().numpy() for i in m], **options))
    for step in range(5):
        grads = make_grads(step, torch.float64)
        for param, grad in zip(params, grads, strict=True):
            param.grad = grad
        optimizer.step()
        for m, s, reference in zip(members, settings, references, strict=True):
            reference.step([grads[i].numpy() for i in m], s["lr"])
    for m, reference in zip(members, references, strict=True):
        for i, expected in zip(m, reference.params, strict=True):
            np.testing.assert_allclose(params[i].detach().numpy(), expected, rtol=1e-12)


def test_gradients_are_unchanged():
    params = make_params(torch.float32)
    grads = make_grads(0, torch.float32)
    for param, grad in zip(params, grads, strict=True):
        param.grad = grad.clone()
    ForeachLARS(params, lr=0.6, weight_decay=0.1).step()
    for param, grad in zip(params, grads, strict=True):
        assert torch.equal(param.grad, grad)


def test_a_parameter_without_gradient_has_no_state():
    params = make_params(torch.float32)
    before = params[1].detach().clone()
    optimizer = ForeachLARS(params, lr=0.6, weight_decay=0.1)
    for param, grad in zip(params, make_grads(0, torch.float32, missing=[1]), strict=True):
        param.grad = grad
    optimizer.step()
    assert torch.equal(params[1], before)
    assert params[1] not in optimizer.state
    assert set(optimizer.state) == {params[i] for i in (0, 2, 3, 4)}


def test_step_without_gradients_changes_nothing():
    params = make_params(torch.float32)
    before = [p.detach().clone() for p in params]
    optimizer = ForeachLARS(params, lr=0.6)
    assert optimizer.step(lambda: torch.tensor(3.0)) == 3.0
    assert all(torch.equal(p, b) for p, b in zip(params, before, strict=True))


def test_nothing_is_read_back_from_the_device():
    params = make_params(torch.float32, zero=[1])
    optimizer = ForeachLARS(params, lr=0.6, weight_decay=1e-6)
    for step in range(2):
        for param, grad in zip(params, make_grads(step, torch.float32), strict=True):
            param.grad = grad
        with NoReadBack():
            optimizer.step()
    with pytest.raises(AssertionError, match="read back"), NoReadBack():
        torch.ones(1).item()


def test_resumes_from_its_state():
    params = make_params(torch.float64)
    optimizer = ForeachLARS(params, lr=0.6, weight_decay=0.1)

    def run(params, optimizer, steps):
        for step in steps:
            for param, grad in zip(params, make_grads(step, torch.float64), strict=True):
                param.grad = grad
            optimizer.step()

    run(params, optimizer, range(3))
    copies = [torch.nn.Parameter(p.detach().clone()) for p in params]
    resumed = ForeachLARS(copies, lr=0.1)
    resumed.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    run(params, optimizer, range(3, 6))
    run(copies, resumed, range(3, 6))
    assert all(torch.equal(a, b) for a, b in zip(params, copies, strict=True))


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        (dict(lr=0), "lr must be > 0, got 0"),
        (dict(lr=0.1, momentum=1), r"momentum must be in \[0, 1\), got 1"),
        (dict(lr=0.1, weight_decay=-1), "weight_decay must be >= 0.*got -1"),
        (dict(lr=0.1, trust_coefficient=0), "trust_coefficient and eps > 0"),
        (dict(lr=0.1, eps=0), "trust_coefficient and eps > 0"),
    ],
)
def test_bad_arguments(kwargs, message):
    with pytest.raises(ValueError, match=message):
        ForeachLARS(make_params(torch.float32), **kwargs)


@pytest.mark.parametrize("weight_decay", [0.0, 0.5])
def test_parameters_with_one_axis_can_be_excluded(weight_decay):
    """They take the steps of plain SGD with momentum; the others those of the reference."""
    params = [torch.nn.Parameter(torch.randn(shape, dtype=torch.float64)) for shape in ((3, 4), (4,), (2, 3, 3), (1,))]
    optimizer = ForeachLARS(params, lr=0.3, weight_decay=weight_decay, exclude_1d=True)
    matrices = LarsReference([params[i].detach().numpy() for i in (0, 2)], weight_decay=weight_decay)
    vectors = [params[i].detach().clone().requires_grad_() for i in (1, 3)]
    plain = torch.optim.SGD(vectors, lr=0.3, momentum=0.9)
    for _ in range(4):
        for param in params:
            param.grad = torch.randn_like(param)
        for mine, theirs in zip((params[1], params[3]), vectors, strict=True):
            theirs.grad = mine.grad.clone()
        optimizer.step()
        plain.step()
        matrices.step([params[i].grad.numpy() for i in (0, 2)], 0.3)
    for mine, theirs in zip((params[0], params[2]), matrices.params, strict=True):
        np.testing.assert_allclose(mine.detach().numpy(), theirs, rtol=1e-12)
    for mine, theirs in zip((params[1], params[3]), vectors, strict=True):
        torch.testing.assert_close(mine.data, theirs.data, rtol=1e-12, atol=0)
