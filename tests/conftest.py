"""Threads: the tests are small, and pools of threads only get in each other's way."""

import importlib.util
import os
import signal
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")


import pytest
import setuptools  # noqa: F401  before a test imports the standard library's distutils: it refuses to be loaded after it
import torch
from yapf.yapflib import yapf_api

torch.set_num_threads(1)
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as in the background of a script, and inherited by commands
    signal.signal(signal.SIGINT, signal.default_int_handler)
# yapf takes seconds to format the config of a run, which mmengine writes and logs several times.
yapf_api.FormatCode = lambda text, **_: (text, False)
os.fsync = lambda file: None  # a test waits for a disk a tenth of a second per checkpoint
pytest.register_assert_rewrite("backbone_checks", "commands", "small_head", "small_runs")  # helpers with assertions


def pytest_runtest_setup(item):
    if item.get_closest_marker("ops") and not importlib.util.find_spec("mmcv._ext"):
        pytest.skip(
            "mmdet needs mmcv's compiled ops: `bash tools/setup_env.sh` builds them, `pytest -m ops` runs these"
        )


@pytest.fixture(scope="session")
def real_data():
    """Folder of photographs that are not shipped; see the mark ``real_data``."""
    root = Path(os.environ.get("SSPYR_REAL_DATA", Path(__file__).parents[1].parent / "shared/data"))
    if not root.is_dir():
        pytest.skip(f"no {root}: set SSPYR_REAL_DATA")
    return root
