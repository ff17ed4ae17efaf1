"""Times of several functions, measured in turn, so that a busy machine slows all of them equally."""

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from statistics import median
from time import process_time
from typing import Any, TypeVar

import cv2
import torch
from torch.utils.benchmark import Timer

__all__ = ["cpu_ms", "wall_ms"]

T = TypeVar("T")
_BLOCK = 8
"""Items per measurement."""


def wall_ms(
    functions: Mapping[str, Callable[[], object]],
    *,
    rounds: int,
    calls: int = 1,
    num_threads: int | None = None,
    **timer: Any,
) -> dict[str, float]:
    """Returns the median milliseconds of a call of each function, over ``rounds`` measurements.

    torch's ``Timer``, which receives the other arguments, waits for the GPU and calls a function twice before it
    measures. Its operators use the threads of this process by default.
    """
    timer["num_threads"] = num_threads or torch.get_num_threads()
    timers = {name: Timer("call()", globals={"call": call}, **timer) for name, call in functions.items()}
    found: dict[str, list[float]] = {name: [] for name in timers}
    for _ in range(rounds):
        for name, one in timers.items():
            found[name].append(1e3 * one.timeit(calls).mean)
    return {name: median(times) for name, times in found.items()}


def cpu_ms(functions: Mapping[str, Callable[[T], object]], items: Sequence[T]) -> dict[str, float]:
    """Returns the median CPU milliseconds of each function per item, on one core, like in a worker of a loader.

    All functions are called with the same items, which are repeated as needed.
    """
    calls = min(_BLOCK, len(items))
    rounds = math.ceil(len(items) / calls)
    bound = {name: map(function, itertools.cycle(items)).__next__ for name, function in functions.items()}
    threads = cv2.getNumThreads()
    cv2.setNumThreads(0)
    try:
        return wall_ms(bound, rounds=rounds, calls=calls, num_threads=1, timer=process_time)
    finally:
        cv2.setNumThreads(threads)
