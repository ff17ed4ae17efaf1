"""Times of several things, taken in turn, so that a busy machine slows all of them alike."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from statistics import median
from time import perf_counter, process_time
from typing import TypeVar

import cv2
import torch

T = TypeVar("T")


@contextmanager
def one_thread() -> Iterator[None]:
    """The block computes as a loader's worker does: on one core."""
    threads, opencv = torch.get_num_threads(), cv2.getNumThreads()
    torch.set_num_threads(1)
    cv2.setNumThreads(0)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        cv2.setNumThreads(opencv)


def cpu_ms(
    functions: Mapping[str, Callable[[T], object]], items: Sequence[T], *, block: int = 8
) -> dict[str, float]:
    """Median milliseconds of this process's CPU time per item.

    Args:
        functions: What is timed, by name.
        items: What they are called with.
        block: Items a function does in a row before the next one does the same. It does the first of them twice, once
            without the clock: what another one left behind in caches and allocator is no part of its cost.

    Returns:
        By name.
    """
    spent: dict[str, list[float]] = {name: [] for name in functions}
    for first in range(0, len(items), block):
        for name, function in functions.items():
            function(items[first])
            for item in items[first : first + block]:
                start = process_time()
                function(item)
                spent[name].append(1e3 * (process_time() - start))
    return {name: median(values) for name, values in spent.items()}


def wall_ms(
    functions: Mapping[str, Callable[[], object]], *, rounds: int, device: torch.device
) -> dict[str, float]:
    """Median milliseconds of a call, after one that does not count.

    Args:
        functions: What is timed, by name.
        rounds: Calls of each.
        device: Waited for before and after each call.

    Returns:
        By name.
    """
    spent: dict[str, list[float]] = {name: [] for name in functions}
    for round_ in range(rounds + 1):
        for name, function in functions.items():
            wait_for(device)
            start = perf_counter()
            function()
            wait_for(device)
            if round_:
                spent[name].append(1e3 * (perf_counter() - start))
    return {name: median(values) for name, values in spent.items()}


def wait_for(device: torch.device) -> None:
    """Waits until a device has done all it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
