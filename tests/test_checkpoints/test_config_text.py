"""Configs inside checkpoints are read as data."""

import os

import pytest
from mmengine.config import Config
from project import ROOT

import sspyr_mm.registration  # noqa: F401
from sspyr_mm.checkpoints.config_text import parse_config

CONFIGS = sorted((ROOT / "configs" / "ssprl").glob("*.py"))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: p.stem)
def test_dumped_config_is_read_back(path):
    cfg = Config.fromfile(path)
    assert parse_config(cfg.pretty_text).to_dict() == cfg.to_dict()


@pytest.mark.parametrize(
    "text",
    [
        "import os\nos.environ['SSPYR_TEST_RAN'] = '1'",
        "a = __import__('os').environ.update(SSPYR_TEST_RAN='1')",
        "a = dict(b=[open('/dev/null')])",
        "a = dict(**{'b': 1})",
        "a = dict({'b': 1})",
        "a = dict([('b', 1)], c=2)",
        "exec('1')",
    ],
)
def test_code_is_rejected_and_not_executed(text):
    with pytest.raises(ValueError, match=r"not plain data.*nothing was executed"):
        parse_config(text)
    assert "SSPYR_TEST_RAN" not in os.environ


@pytest.mark.parametrize("kind", ["os.system", "builtins.eval", "mmcv.imwrite", "mmcv.image.X", "mmengine.", ""])
def test_types_must_be_registered_names(kind):
    """A registry would import and call any other type."""
    with pytest.raises(ValueError, match=rf"asks for type='{kind}', which is not a registered name"):
        parse_config(f"model = dict(neck=[dict(type='ReLU'), dict(type={kind!r})])")


@pytest.mark.parametrize("kind", ["ResNet", "mmpretrain.ResNet", "mmdet.FPN", "sspyr_mm.SSPRL"])
def test_registered_types_pass(kind):
    assert parse_config(f"model = dict(type={kind!r})").model.type == kind


def test_syntax_errors_are_reported():
    with pytest.raises(ValueError, match="The config inside the checkpoint can't be read"):
        parse_config("a = (")
