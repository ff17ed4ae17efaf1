"""Programs of the project, run in this process: a new one takes seconds to import the OpenMMLab stack."""

import contextlib
import io
import os
import runpy
import subprocess
import sys
import tempfile
import traceback
import warnings
from typing import NamedTuple
from unittest import mock

import torch
from mmengine.utils import ManagerMixin
from project import ROOT


class Done(NamedTuple):
    """What a program leaves, as ``subprocess.CompletedProcess``."""

    returncode: int
    stdout: str
    stderr: str


def managers(base=ManagerMixin):
    for one in base.__subclasses__():
        yield one
        yield from managers(one)


@contextlib.contextmanager
def no_shared_instances():
    """Hides mmengine's loggers, visualizers and scopes, as in a new process.

    Their default name is the time in seconds: of two runs in one second, the second would use those of the first.
    """
    before = {one: dict(one._instance_dict) for one in managers()}
    for one in before:
        one._instance_dict.clear()
    try:
        yield
    finally:
        for one in managers():  # some are defined by now
            one._instance_dict.clear()
            one._instance_dict.update(before.get(one, {}))


def run(*args, check=True, cwd=ROOT):
    """Runs ``python ARGS`` in a folder; ``-c CODE`` runs in a process of its own."""
    first, *rest = map(str, args)
    if first == "-c":
        return subprocess.run([sys.executable, first, *rest], cwd=cwd, capture_output=True, text=True, check=check)
    out, err = io.StringIO(), io.StringIO()
    threads = torch.get_num_threads()
    with contextlib.ExitStack() as stack:
        stack.callback(os.chdir, os.getcwd())
        os.chdir(cwd)
        stack.enter_context(mock.patch.dict(os.environ))
        stack.enter_context(mock.patch.object(tempfile, "tempdir", tempfile.tempdir))
        stack.enter_context(warnings.catch_warnings())
        stack.enter_context(no_shared_instances())
        stack.enter_context(contextlib.redirect_stdout(out))
        stack.enter_context(contextlib.redirect_stderr(err))
        argv = rest if first == "-m" else [first, *rest]
        stack.enter_context(mock.patch.object(sys, "argv", argv))
        try:
            if first == "-m":
                runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
            else:
                runpy.run_path(first, run_name="__main__")
            status = 0
        except SystemExit as stop:
            status = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
            if isinstance(stop.code, str):
                print(stop.code, file=sys.stderr)
        except Exception:
            traceback.print_exc()
            status = 1
    torch.set_num_threads(threads)
    done = Done(status, out.getvalue(), err.getvalue())
    assert not check or done.returncode == 0, done.stdout + done.stderr
    return done
