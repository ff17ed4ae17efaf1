"""Fixtures of tests that train."""

import itertools
import logging
import resource
import signal
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from mmengine.runner import Runner
from project import ROOT
from small_runs import BATCH, CONFIG, MOMENTUM_CONFIG, NUM_IMAGES, state, train


@pytest.fixture(scope="session")
def images(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    for index in range(NUM_IMAGES):
        coarse = rng.integers(0, 256, (6, 8, 3), dtype=np.uint8)
        cv2.imwrite(str(folder / f"{index:02}.jpg"), cv2.resize(coarse, (80, 60)))
    return folder


@pytest.fixture(scope="session")
def config(images, tmp_path_factory):
    path = tmp_path_factory.mktemp("config") / "config.py"
    path.write_text(CONFIG.format(root=ROOT, data=images, batch=BATCH))
    return path


@pytest.fixture(scope="module", params=["ssprl", "mocov2"])
def config_of_a_method(request, images, tmp_path_factory):
    path = tmp_path_factory.mktemp("config") / "config.py"
    text = CONFIG if request.param == "ssprl" else MOMENTUM_CONFIG
    path.write_text(text.format(root=ROOT, data=images, batch=BATCH))
    return path


_numbers = itertools.count()


@pytest.fixture
def log():
    """Messages of all runners from now on, with their level."""
    records = []

    class Keep(logging.Handler):
        def emit(self, record):
            records.append((record.levelno, record.getMessage()))

    handler = Keep()
    original = Runner.build_logger

    def build_logger(self, *args, **kwargs):
        logger = original(self, *args, **kwargs)
        logger.addHandler(handler)
        return logger

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Runner, "build_logger", build_logger)
        yield records


@pytest.fixture(scope="module")
def uninterrupted(config, tmp_path_factory):
    """Three uninterrupted epochs: work dir, losses and final state."""
    work_dir = tmp_path_factory.mktemp("uninterrupted")
    losses = []

    def look(runner):
        losses.append(float(runner.message_hub.get_scalar("train/loss").current()))

    runner = train(config, work_dir, after_train_iter=look)
    assert all(q.is_full for q in runner.model.head.queues.values())
    return SimpleNamespace(work_dir=work_dir, losses=losses, state=state(runner))


@pytest.fixture(autouse=True)
def handlers():
    """Restores signal handlers, which failed runs do not."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield before
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def listens_to_ctrl_c():
    """Handles SIGINT as in a terminal; processes of pytest-xdist ignore it."""
    previous = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, previous)


@pytest.fixture
def file_size_limit():
    """Sets the largest size of a file in bytes, beyond which writing fails as on a full disk; None lifts it."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)

    def set_limit(size):
        resource.setrlimit(resource.RLIMIT_FSIZE, before if size is None else (size, before[1]))

    yield set_limit
    set_limit(None)
