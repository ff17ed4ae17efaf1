"""Generated scenes with labels, and a small checkpoint in torchvision's layout."""

import subprocess
from types import SimpleNamespace

import pytest
from pretrained_files import save_resnet18
from quick_evaluate import WorkerInProcess

from sspyr_mm.benchmarks.classification.multi_label_data import coco_sources, load_data
from sspyr_mm.benchmarks.networks import read_networks
from sspyr_mm.benchmarks.training import process
from sspyr_mm.datasets.toy_scenes import generate


@pytest.fixture(scope="session")
def scenes(tmp_path_factory):
    root = tmp_path_factory.mktemp("scenes")
    generate(str(root), num_train=40, num_val=24, size=64, seed=0)
    return root


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory):
    return save_resnet18(tmp_path_factory.mktemp("checkpoint") / "small.pth", width=8, seed=1)


@pytest.fixture(scope="session")
def data(scenes):
    return load_data(*coco_sources(str(scenes)))


@pytest.fixture(scope="session")
def networks(checkpoint):
    """The checkpoint, and its architecture with random weights."""
    return read_networks([checkpoint], random=True)


@pytest.fixture
def worker_in_process(monkeypatch):
    """Trains in this process; test_custom_backbone_is_evaluated_and_fine_tuned starts a real worker."""
    replaced = SimpleNamespace(**{**vars(subprocess), "Popen": WorkerInProcess})
    monkeypatch.setattr(process, "subprocess", replaced)
