"""Commands in their own processes, several at the same time: a failure ends its own row, a signal reaches each once."""

import os
import signal
import subprocess
import sys
import time

import pytest

from sspyr_mm.benchmarks.training.logged_commands import LoggedCommand, run_logged


def reproduce_step(tmp_path, code, num_rows=1, jobs=1):
    """Starts a process that runs a step of Python code per row; waits until those that run create `readyROW`."""
    program = f"""
import pathlib, sys
import sspyr_mm.__main__ as program
from sspyr_mm.benchmarks import reproduce
log = pathlib.Path({str(tmp_path / "log.txt")!r})
def step(row):
    return reproduce.Step("train", [sys.executable, "-c", {code!r}, str(row)], log, False, 1.0, ("name", row))
reproduce.plan_steps = lambda plan: [step(row) for row in range({num_rows})]
sys.exit(program.main(["reproduce", "S-C", "--jobs", "{jobs}", "--work-dir", {str(tmp_path)!r}]))
"""
    process = subprocess.Popen(
        [sys.executable, "-c", program], start_new_session=True, stderr=subprocess.PIPE, text=True, cwd=tmp_path
    )
    wait_for(process, *(tmp_path / f"ready{row}" for row in range(jobs)))
    return process


def wait_for(process, *paths):
    while not all(path.exists() for path in paths):
        assert process.poll() is None
        time.sleep(0.05)


SAVING = """
import pathlib, signal, sys, time
def save(number, _):
    open("signals" + sys.argv[1], "a").write(f"{number} ")
    time.sleep(1)
    pathlib.Path("saved" + sys.argv[1]).touch()
    sys.exit(130)
signal.signal(signal.SIGINT, save)
signal.signal(signal.SIGTERM, save)
pathlib.Path("ready" + sys.argv[1]).touch()
time.sleep(60)
"""
IMPORTING = """
import pathlib, sys, time
pathlib.Path("ready" + sys.argv[1]).touch()
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
    assert (tmp_path / "saved0").exists() and len((tmp_path / "signals0").read_text().split()) == 1


def test_interrupt_reaches_all_commands_once_and_starts_none(tmp_path):
    with reproduce_step(tmp_path, SAVING, num_rows=3, jobs=2) as process:
        os.killpg(process.pid, signal.SIGINT)
        lines = process.communicate(timeout=60)[1].splitlines()
    assert process.returncode == 130 and lines[-1].endswith("interrupted; run the same command again")
    assert [(tmp_path / f"signals{row}").read_text().split() for row in (0, 1)] == [[str(int(signal.SIGTERM))]] * 2
    assert sorted(path.name for path in tmp_path.glob("saved*")) == ["saved0", "saved1"]
    assert not (tmp_path / "ready2").exists()


def test_two_signals_at_once_are_one_request(tmp_path):
    """A closed terminal sends its signal twice, and a supervisor may signal a whole group."""
    with reproduce_step(tmp_path, SAVING) as process:
        process.send_signal(signal.SIGTERM)
        process.send_signal(signal.SIGHUP)
        process.communicate(timeout=60)
    assert process.returncode == 130 and (tmp_path / "saved0").exists()


def test_an_error_ends_the_commands_that_run(tmp_path, monkeypatch):
    """Nobody reads the output any more, as after `reproduce 2>&1 | head`."""
    monkeypatch.chdir(tmp_path)
    log = tmp_path / "log.txt"
    wait = "import pathlib, time\nwhile not pathlib.Path('ready0').exists(): time.sleep(0.05)"
    first = LoggedCommand("first", [sys.executable, "-c", SAVING, "0"], log)
    second = [LoggedCommand("second", [sys.executable, "-c", wait], log), LoggedCommand("third", ["true"], log)]

    def announce(command):
        if command.what == "third":
            raise BrokenPipeError

    with pytest.raises(BrokenPipeError):
        run_logged([[first], second], [{}, {}], announce)
    assert (tmp_path / "saved0").exists()


def state_of(pid):
    return subprocess.run(["ps", "-o", "state=", "-p", str(pid)], capture_output=True, text=True).stdout.strip()[:1]


def test_ctrl_z_pauses_the_commands_as_well(tmp_path):
    counting = """
import os, pathlib, sys, time
pathlib.Path("pid").write_text(str(os.getpid()))
pathlib.Path("ready0").touch()
while not pathlib.Path("end").exists():
    time.sleep(0.05)
"""
    with reproduce_step(tmp_path, counting) as process:
        pids = [process.pid, int((tmp_path / "pid").read_text())]
        process.send_signal(signal.SIGTSTP)
        limit = time.time() + 30
        while (states := [state_of(pid) for pid in pids]) != ["T", "T"] and time.time() < limit:
            time.sleep(0.05)
        (tmp_path / "end").touch()
        process.send_signal(signal.SIGCONT)
        process.communicate(timeout=60)
    assert process.returncode == 0 and states == ["T", "T"]


# Each waits for the other; one after another, the first one would fail.
MEETING = """
import os, pathlib, sys, time
pathlib.Path(sys.argv[1]).write_text(os.environ["PLACE"])
limit = time.time() + 60
while not pathlib.Path(sys.argv[2]).exists():
    assert time.time() < limit
    time.sleep(0.05)
"""


def test_rows_run_at_the_same_time_and_a_failure_ends_its_own(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)

    def command(name, code, *arguments):
        return LoggedCommand(name, [sys.executable, "-c", code, *arguments], tmp_path / f"{name}/log.txt")

    chains = [
        [command("a", MEETING, "met_a", "met_b"), command("after_a", "print('after a')")],
        [command("b", MEETING, "met_b", "met_a"), command("bad", "1 / 0"), command("after_bad", "print()")],
        [LoggedCommand("absent", ["./no-such-program"], tmp_path / "absent/log.txt")],
        [command("last", "print('last')")],
    ]
    started = []
    failures = run_logged(chains, [dict(PLACE="0"), dict(PLACE="1")], lambda one: started.append(one.what))
    assert sorted(started) == ["a", "absent", "after_a", "b", "bad", "last"]
    assert {(tmp_path / f"met_{name}").read_text() for name in "ab"} == {"0", "1"}
    assert (tmp_path / "after_a/log.txt").read_text() == "after a\n"
    bad, absent = sorted(failures, key=lambda text: not text.startswith("bad"))
    assert bad.startswith("bad failed with exit status 1") and "ZeroDivisionError" in bad and "The command was" in bad
    assert absent.startswith("absent did not start: ") and "no-such-program" in absent
    assert "bad failed; the others continue" in capfd.readouterr().err


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
        wait_for(process, tmp_path / "asked")
        time.sleep(0.6)  # a signal within half a second is a part of the first request
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=30)
    assert process.returncode == 130 and not (tmp_path / "saved0").exists()
