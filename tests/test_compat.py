"""Version checks and fork registration, with simulated sets of installed distributions."""

import importlib.metadata

import pytest
from mmengine.config.utils import MODULE2PACKAGE

from sspyr_mm import compat

GOOD = {
    "torch": "2.11.0+cu130",
    "torchvision": "0.26.0",
    "onedl-mmengine": "0.10.12",
    "onedl-mmcv": "2.3.6",
    "onedl-mmpretrain": "1.3.6",
}


@pytest.fixture
def pretend(monkeypatch):
    """Returns pretend(distributions, modules), which replaces the installed ones."""

    def replace(distributions, modules):
        def version(name):
            if name not in distributions:
                raise importlib.metadata.PackageNotFoundError(name)
            return distributions[name]

        monkeypatch.setattr(importlib.metadata, "version", version)
        monkeypatch.setattr(compat, "is_importable", lambda module: module in modules)

    return replace


MODULES = {"torch", "torchvision", "mmengine", "mmcv", "mmpretrain", "mmdet", "mmseg", "sspyr_mm"}


@pytest.mark.parametrize(
    ("distributions", "modules", "before", "after"),
    [
        # a fork: mmengine looks up the module itself
        ({**GOOD, "onedl-mmsegmentation": "1.4.2"}, MODULES, "mmsegmentation", "mmseg"),
        # the original is installed: mmengine finds it
        ({**GOOD, "mmsegmentation": "1.2.2"}, MODULES, "mmsegmentation", "mmsegmentation"),
        # nothing is installed: mmengine reports it
        (GOOD, MODULES - {"mmseg"}, "mmsegmentation", "mmsegmentation"),
    ],
)
def test_register_forks(pretend, monkeypatch, distributions, modules, before, after):
    monkeypatch.setitem(MODULE2PACKAGE, "mmseg", before)
    pretend(distributions, modules)
    compat.register_forks()
    assert MODULE2PACKAGE["mmseg"] == after


@pytest.mark.parametrize(
    "versions",
    [
        GOOD,
        dict(torch="2.1.2", torchvision="0.16.2", mmengine="0.10.7", mmcv="2.1.0", mmpretrain="1.2.0"),
        dict(torch="2.1.0", torchvision="0.16.0", mmengine="0.8.3rc1", mmcv="2.0.0", mmpretrain="1.0.0"),  # the oldest
    ],
    ids=["forks", "originals", "oldest"],
)
def test_supported_stack_is_accepted(pretend, versions):
    pretend(versions, MODULES)
    compat.check_versions()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"torch": "1.13.1"}, r"torch 1\.13\.1 is not supported \(required: torch >= 2\.1"),
        ({"torchvision": "0.15.2"}, r"torchvision 0\.15\.2 is not supported .*torchvision >= 0\.16"),
        ({"onedl-mmengine": "0.8.2"}, r"onedl-mmengine 0\.8\.2 is not supported .*mmengine >= 0\.8\.3"),
        ({"onedl-mmcv": "1.7.2"}, r"onedl-mmcv 1\.7\.2 is not supported .*mmcv >= 2\.0"),
        ({"onedl-mmpretrain": "0.25.0"}, r"onedl-mmpretrain 0\.25\.0 is not supported .*>= 1\.0"),
        ({"onedl-mmpretrain": "2.0.0"}, r"onedl-mmpretrain 2\.0\.0 is not supported .*< 2\)"),
        ({"onedl-mmcv": None}, r"mmcv is missing \(required: mmcv >= 2\.0.*mminstall\.txt"),
        ({"mmcv": "2.1.0"}, r"mmcv and onedl-mmcv are both installed.*uninstall"),
    ],
)
def test_unsupported_stack_is_rejected_with_a_remedy(pretend, change, message):
    distributions = {k: v for k, v in {**GOOD, **change}.items() if v is not None}
    missing = {name.removeprefix("onedl-") for name, version in change.items() if version is None}
    pretend(distributions, MODULES - missing)
    with pytest.raises(ImportError, match=message) as caught:
        compat.check_versions()
    assert "bash tools/setup_env.sh" in str(caught.value)


def test_remedy_does_not_offer_forks_to_a_user_of_the_originals(pretend):
    pretend({"mmengine": "0.10.7", "torch": "2.4.0", "torchvision": "0.19.0"}, {"mmengine"})
    with pytest.raises(ImportError, match=r"mmpretrain is missing.*mim install") as caught:
        compat.check_versions()
    assert "mminstall.txt" not in str(caught.value)
