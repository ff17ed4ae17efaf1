"""Steps of a reproduction in their own processes: an interrupt reaches each once, and ends it without a traceback."""

import os
import signal
import subprocess
import sys
import time

import pytest


def reproduce_step(tmp_path, code):
    """Starts a process that runs a step of Python code, and waits until the step creates the file `ready`."""
    program = f"""
import pathlib, sys
import sspyr_mm.__main__ as program
from sspyr_mm.benchmarks import reproduce
command, log = [sys.executable, "-c", {code!r}], pathlib.Path({str(tmp_path / "log.txt")!r})
step = reproduce.Step("train", command, log, False, 1.0)
reproduce.plan_steps = lambda plan: [step]
sys.exit(program.main(["reproduce", "S-C", "--work-dir", {str(tmp_path)!r}]))
"""
    process = subprocess.Popen(
        [sys.executable, "-c", program], start_new_session=True, stderr=subprocess.PIPE, text=True, cwd=tmp_path
    )
    while not (tmp_path / "ready").exists():
        assert process.poll() is None
        time.sleep(0.05)
    return process


SAVING = """
import pathlib, signal, sys, time
def save(number, _):
    open("signals", "a").write(f"{number} ")
    time.sleep(1)
    pathlib.Path("saved").touch()
    sys.exit(130)
signal.signal(signal.SIGINT, save)
signal.signal(signal.SIGTERM, save)
pathlib.Path("ready").touch()
time.sleep(60)
"""
IMPORTING = """
import pathlib, time
pathlib.Path("ready").touch()
time.sleep(60)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)])
def test_interrupted_training_saves_and_receives_one_signal(tmp_path, number):
    with reproduce_step(tmp_path, SAVING) as process:
        if number == signal.SIGINT:  # by a terminal, to all processes of its group
            os.killpg(process.pid, number)
        else:  # by the script of a Slurm job
            process.send_signal(number)
        lines = process.communicate(timeout=60)[1].splitlines()
    assert process.returncode == 130 and lines[-1].endswith("interrupted; run the same command again")
    assert (tmp_path / "saved").exists() and len((tmp_path / "signals").read_text().split()) == 1


def test_command_that_is_still_importing_ends_without_a_traceback(tmp_path):
    with reproduce_step(tmp_path, IMPORTING) as process:
        os.killpg(process.pid, signal.SIGINT)
        lines = process.communicate(timeout=60)[1].splitlines()
    assert process.returncode == 130 and "Traceback" not in "".join(lines) + (tmp_path / "log.txt").read_text()
    assert [line.split(";")[0] for line in lines if line] == [
        "== 1/1 train",
        "Stopping",
        "python -m sspyr_mm reproduce: interrupted",
    ]


@pytest.mark.slow
def test_second_interrupt_ends_a_command_that_does_not_stop(tmp_path):
    stubborn = SAVING.replace("time.sleep(1)", "pathlib.Path('asked').touch(); time.sleep(60)")
    with reproduce_step(tmp_path, stubborn) as process:
        process.send_signal(signal.SIGINT)
        while not (tmp_path / "asked").exists():
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=30)
    assert process.returncode == 130 and not (tmp_path / "saved").exists()
