"""Commands in processes of their own."""

import subprocess
import sys

from project import ROOT


def run(*args, check=True):
    done = subprocess.run([sys.executable, *map(str, args)], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert not check or done.returncode == 0, done.stdout + done.stderr
    return done
