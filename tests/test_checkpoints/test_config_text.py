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


N = 100_000
DEEP = {
    "minus": "-" * N + "1",
    "not": "not " * N + "1",
    "attributes": "b" + ".c" * N,
    "sum": "1" + "+1" * N,
    "complex numbers": "1" + "+1j" * N,
    "powers": "1" + "**1" * N,
    "calls": "b" + "()" * N,
    "indices": "b" + "[0]" * N,
    "comparisons": "1" + "<1" * N,
    "conditions": "1 if 1 else " * (N // 3) + "1",
    "functions": "lambda:" * (N // 2) + "1",
    "lists": "[" * N + "]" * N,
    "brackets": "(" * N + ")" * N,
    "dicts": "dict(b=" * (N // 2) + "1" + ")" * (N // 2),
    "braces": "{1:" * N + "1" + "}" * N,
    "digits": "1" * N,
    "a long list": "[" + "1," * 4 * N + "]",
    "an unhashable key": "{[]: 1}",
    "a missing end": "dict(b=1",
    "NUL": "1\0",
}


@pytest.mark.parametrize("kind", DEEP)
def test_deep_and_long_texts_are_rejected(kind):
    with pytest.raises(
        ValueError, match=r"^The config inside the checkpoint (can't be read: .|is not plain data)"
    ) as error:
        parse_config(f"a = {DEEP[kind]}")
    assert len(str(error.value)) < 300


def test_texts_must_be_text():
    with pytest.raises(ValueError, match="must be a text"):
        parse_config({"a": 1})


def test_config_of_a_thousand_classes_is_read():
    cfg = Config({"classes": [f"class {i} with a long name" for i in range(1203)], "values": [-1, 1e-3, None, True]})
    assert parse_config(cfg.pretty_text).to_dict() == cfg.to_dict()
