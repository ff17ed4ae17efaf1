"""Times of several functions, measured in turn, so that a busy machine slows all of them equally."""

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from statistics import median
from time import process_time
from typing import Any

import cv2
import torch
from torch.utils.benchmark import Timer

__all__ = ["cpu_ms", "wall_ms"]

_BLOCK = 8  # items per measurement


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
    timers = [Timer("call()", globals={"call": call}, **timer) for call in functions.values()]
    measured = [[1e3 * one.timeit(calls).mean for one in timers] for _ in range(rounds)]
    return {name: median(times) for name, times in zip(functions, zip(*measured, strict=True), strict=True)}


def cpu_ms(functions: Mapping[str, Callable[[Any], object]], items: Sequence[Any]) -> dict[str, float]:
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
