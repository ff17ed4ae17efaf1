"""Programs of the project, run in this process: a new one takes seconds to import the OpenMMLab stack."""

import contextlib
import io
import os
import runpy
import subprocess
import sys
import traceback
import warnings
from typing import NamedTuple
from unittest import mock

import torch
from mmengine.logging import MessageHub, MMLogger
from mmengine.registry import DefaultScope
from mmengine.visualization import Visualizer
from project import ROOT


class Done(NamedTuple):
    """What a program leaves, as ``subprocess.CompletedProcess``."""

    returncode: int
    stdout: str
    stderr: str


def run(*args, check=True):
    """Runs ``python ARGS`` in the repository; ``-c CODE`` runs in a process of its own."""
    first, *rest = map(str, args)
    if first == "-c":
        return subprocess.run([sys.executable, first, *rest], cwd=ROOT, capture_output=True, text=True, check=check)
    out, err = io.StringIO(), io.StringIO()
    threads = torch.get_num_threads()
    with contextlib.ExitStack() as stack:
        stack.callback(os.chdir, os.getcwd())
        os.chdir(ROOT)
        stack.enter_context(mock.patch.dict(os.environ))
        stack.enter_context(warnings.catch_warnings())
        for shared in (DefaultScope, MessageHub, MMLogger, Visualizer):  # the last instance is the current one
            stack.enter_context(mock.patch.dict(shared._instance_dict))
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
