"""Functions are timed in turn, after warm-up calls."""

import cv2
import pytest

from sspyr_mm.speed.timing import cpu_ms, wall_ms


def test_functions_are_timed_in_turn_and_the_first_calls_do_not_count():
    """The clock is read before and after each measurement, and before and after the warm-up calls."""
    calls = []
    lengths = iter([99, 1, 99, 4, 99, 2, 99, 5, 99, 9, 99, 9])
    clock = iter(time for length in lengths for time in (0, length))
    functions = {name: lambda name=name: calls.append(name) for name in "ab"}
    found = wall_ms(functions, rounds=3, timer=lambda: next(clock))
    assert calls == list("aaabbb" * 3)
    assert found == dict(a=2000, b=5000)


@pytest.fixture
def four_threads():
    """Sets four threads in OpenCV."""
    before = cv2.getNumThreads()
    cv2.setNumThreads(4)
    yield
    cv2.setNumThreads(before)


def test_every_function_gets_the_same_items_on_one_core(four_threads):
    seen = {"a": [], "b": []}

    def make(name):
        return lambda item: seen[name].append((item, cv2.getNumThreads()))

    found = cpu_ms({name: make(name) for name in seen}, range(10))
    assert seen["a"] == seen["b"] and found.keys() == seen.keys()
    # Two measurements of eight items each, with two calls ahead of each.
    assert [item for item, _ in seen["a"]] == [index % 10 for index in range(2 * (2 + 8))]
    assert {number for _, number in seen["a"]} == {1}
    assert cv2.getNumThreads() == 4


def test_opencvs_threads_are_restored_after_an_error(four_threads):
    with pytest.raises(ZeroDivisionError):
        cpu_ms({"a": lambda item: 1 / item}, [0])
    assert cv2.getNumThreads() == 4
