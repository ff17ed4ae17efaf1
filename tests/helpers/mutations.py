"""Random changes of files, and what a reader may do with them."""

import resource
import signal
import warnings
from contextlib import contextmanager

import numpy as np

PIECES = (
    *(
        b"[",
        b"]",
        b"{",
        b"}",
        b'"',
        b",",
        b":",
        b"\0",
        b"-1",
        b"1e999",
        b"null",
        b"NaN",
        b"9" * 40,
        b"../",
        b"\xff\xfe",
    ),
    *(b"<", b">", b"</object>", b"&a;", b"\n", b";", b"\\ud800", b"{}" * 9, b"[[", b"true", b"'", b"\x80", b"(", b"."),
)
MEMORY = 1 << 30  # bytes of address space that a reader may add
SECONDS = 20


def mutated(content, rng):
    """Returns the content with one to four changes: bits, bytes, pieces that are cut, repeated, moved or inserted."""
    data = bytearray(content)
    for _ in range(rng.integers(1, 5)):
        if not data:
            break
        at = int(rng.integers(len(data)))
        end = at + int(rng.integers(1, 2 + len(data) // 8))
        kind = rng.integers(8)
        if kind == 0:
            data[at] ^= 1 << int(rng.integers(8))
        elif kind == 1:
            data[at] = int(rng.integers(256))
        elif kind == 2:
            del data[at:end]
        elif kind == 3:
            data[at:at] = data[at:end]
        elif kind == 4:
            del data[at:]
        elif kind == 5:
            data[at : at + 8] = bytes(8)
        else:
            piece = PIECES[rng.integers(len(PIECES))]
            data[at : at + (len(piece) if kind == 6 else 0)] = piece
    return bytes(data)


@contextmanager
def _bounds():
    def stop(*_):
        raise AssertionError(f"no answer in {SECONDS} s")

    with open("/proc/self/statm") as file:
        used = int(file.read().split()[0]) * resource.getpagesize()
    limits = resource.getrlimit(resource.RLIMIT_AS)
    previous = signal.signal(signal.SIGALRM, stop)
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, limits[1]))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, previous)
        resource.setrlimit(resource.RLIMIT_AS, limits)


def count_refusals(read, write, content, count, *, seed=0):
    """Reads ``count`` mutations of a file; any error but ValueError and FileNotFoundError ends the test.

    ``write`` gets the changed bytes. Returns the number of errors.
    """
    rng = np.random.default_rng(seed)
    refused = 0
    with _bounds():
        for number in range(count):
            write(mutated(content, rng))
            signal.alarm(SECONDS)
            try:
                read()
            except (ValueError, FileNotFoundError) as error:
                assert str(error), number
                refused += 1
            except Exception as error:
                raise AssertionError(f"mutation {number}: {type(error).__name__}: {error}") from error
            signal.alarm(0)
    return refused
