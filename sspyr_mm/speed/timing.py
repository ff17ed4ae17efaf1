"""Times of several functions, taken in turn, so that a busy machine slows all of them alike."""

import itertools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from statistics import median
from time import process_time
from typing import Any, TypeVar

import cv2
import torch
from torch.utils.benchmark import Timer

__all__ = ["cpu_ms", "wall_ms"]

T = TypeVar("T")
_BLOCK = 8
"""Items a function processes in a row."""


def wall_ms(
    functions: Mapping[str, Callable[[], object]],
    *,
    rounds: int,
    calls: int = 1,
    num_threads: int | None = None,
    **timer: Any,
) -> dict[str, float]:
    """Measures calls with torch's ``Timer``, which waits for the GPU and calls a function twice before it measures.

    Args:
        functions: Functions by name.
        rounds: Number of measurements of each function.
        calls: Calls per measurement.
        num_threads: Threads of torch's operators; default: those of this process.
        **timer: Other arguments of ``Timer``.

    Returns:
        Median milliseconds of a call, by name.
    """
    timer["num_threads"] = num_threads or torch.get_num_threads()
    timers = {name: Timer("call()", globals={"call": call}, **timer) for name, call in functions.items()}
    found: dict[str, list[float]] = {name: [] for name in timers}
    for _ in range(rounds):
        for name, one in timers.items():
            found[name].append(1e3 * one.timeit(calls).mean)
    return {name: median(times) for name, times in found.items()}


def cpu_ms(functions: Mapping[str, Callable[[T], object]], items: Sequence[T]) -> dict[str, float]:
    """Measures the CPU time of functions of one argument on one core, as in a worker of a loader.

    Args:
        functions: Functions by name; all are called with the same items.
        items: Arguments, repeated as needed.

    Returns:
        Median milliseconds per item, by name.
    """
    calls = min(_BLOCK, len(items))
    rounds = math.ceil(len(items) / calls)
    bound = {name: partial(_call_next, f, itertools.cycle(items)) for name, f in functions.items()}
    threads = cv2.getNumThreads()
    cv2.setNumThreads(0)
    try:
        return wall_ms(bound, rounds=rounds, calls=calls, num_threads=1, timer=process_time)
    finally:
        cv2.setNumThreads(threads)


def _call_next(function: Callable[[T], object], items: Iterable[T]) -> None:
    function(next(iter(items)))
