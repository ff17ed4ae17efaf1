"""Random damage of files, and processes that must end, by themselves, with bounded memory."""

import multiprocessing
import resource
import traceback


def mutated(data, rng):
    """Returns bytes with one to four changes, as by disks, downloads and attackers."""
    data = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        at, length = rng.randrange(len(data) + 1), rng.choice((1, 2, 4, 8, 64, 512))
        kind = rng.randrange(7)
        if kind == 0 and data:
            data[at % len(data)] ^= 1 << rng.randrange(8)
        elif kind == 1:
            del data[at:]
        elif kind == 2:
            data[at : at + length] = bytes(length)
        elif kind == 3:
            data[at : at + length] = b"\xff" * length
        elif kind == 4:
            data[at : at + length] = rng.randbytes(length)
        elif kind == 5:
            del data[at : at + length]
        else:
            data[at:at] = data[at : at + length] * rng.choice((1, 2, 50))
    return bytes(data)


def _run(connection, function, args):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    try:
        result = function(*args)
    except BaseException:
        result = traceback.format_exc()
    connection.send((result, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before))


def run_alone(function, *args, seconds):
    """Returns the result of a function in a process of its own, and its additional peak memory in KiB.

    Fails if the process crashes, raises, or does not end in time.
    """
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe()
    process = context.Process(target=_run, args=(theirs, function, args))
    process.start()
    theirs.close()
    try:
        assert ours.poll(seconds), f"{function.__name__} has not ended in {seconds} s"
        result, peak = ours.recv()
    except EOFError:
        process.join()
        raise AssertionError(f"{function.__name__} crashed with status {process.exitcode}") from None
    finally:
        process.kill()
        process.join()
    assert not isinstance(result, str), result
    return result, peak
