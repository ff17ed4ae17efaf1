"""Counting operators, waiting and allocations."""

import pytest
import torch

from instruments.counters import OperatorCounter

X = torch.arange(6.0)


def count(function):
    with OperatorCounter() as counter:
        function()
    return counter.counts


@pytest.mark.parametrize(
    ("function", "waits"),
    [
        (lambda: X.sum().item(), 1),
        (lambda: float(X[0]) + int(X[1]), 2),
        (lambda: bool(X.sum() > 3), 1),
        (lambda: X[X > 2], 1),
        (lambda: X.nonzero(), 1),
        (lambda: X.masked_select(X > 2), 1),
        (lambda: torch.equal(X, X), 1),
        (lambda: X.unique(), 1),
        (lambda: X.long().bincount(), 1),
        (lambda: X.repeat_interleave(X.long()), 1),
        (lambda: X.repeat_interleave(2), 0),
        (lambda: X.clone().index_put_((X > 2,), X[0]), 1),
        (lambda: X[torch.tensor([1, 2])], 0),
        (lambda: torch.where(X > 2, X, 0).sum(), 0),
        (lambda: X.to(torch.float64), 0),
    ],
)
def test_host_synchronisations_are_counted(function, waits):
    assert count(function).host_syncs.total() == waits


def test_new_tensors_are_counted_and_views_are_not():
    def function():
        y = X + 1  # 24 bytes
        y.view(2, 3).t().mul_(2)
        y.to(torch.float64)  # 48 bytes
        torch.add(y, 1, out=y)

    counts = count(function)
    assert counts.allocated == 24 + 48
    assert counts.operators["aten.mul_"] == 1 and not counts.collectives


def test_backward_passes_are_counted():
    weight = torch.ones(6, requires_grad=True)
    counts = count(lambda: (weight * X).sum().backward())
    assert counts.operators["aten.mul"] == 2 and counts.operators["aten.sum"] == 1
