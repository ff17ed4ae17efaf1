"""The usage that ``export`` prints can be copied, for any file name."""

import ast
import shlex

import pytest

from sspyr_mm.__main__ import main
from sspyr_mm.cli.export import _usage

NAME = 'anna\'s "best" {one}'


@pytest.mark.parametrize("full_prefix", [False, True])
@pytest.mark.parametrize(("target", "ending"), [("mmdet", ".pth"), ("safetensors", ".safetensors")])
def test_printed_python_is_valid(target, ending, full_prefix, checkpoint, tmp_path, capsys):
    out = str(tmp_path / f"{NAME}{ending}")
    assert main(["export", str(checkpoint), out, "--to", target, *["--full-prefix"] * full_prefix]) == 0
    printed = capsys.readouterr().out.partition("Use it with ")[2].strip()
    tree = ast.parse(printed)
    assert out in [node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)]


@pytest.mark.parametrize("target", ["torchvision", "timm"])
def test_file_name_is_quoted_for_python(target):
    text = _usage(target, NAME, full_prefix=False, timm="timm.create_model('x')", backbone="")
    assert f"torch.load({NAME!r})" in text


def test_file_name_is_quoted_for_the_shell():
    text = _usage("detectron2", NAME, full_prefix=False, timm="", backbone="")
    assert shlex.split(text.partition(", with")[0]) == ["MODEL.WEIGHTS", NAME]
    text = _usage("sspyr_mm", "a$b.pth", full_prefix=False, timm="", backbone="")
    assert shlex.split(text)[-1] == "load_from=a$b.pth"


def test_names_that_cfg_options_would_change_go_into_the_config():
    text = _usage("sspyr_mm", NAME, full_prefix=False, timm="", backbone="")
    assert text.startswith(f"load_from={NAME!r} in CONFIG") and "--cfg-options" not in text


def test_endings_are_checked_before_reading(tmp_path, capsys):
    for target, name in (("safetensors", "o.pth"), ("sspyr_mm", "o.safetensors")):
        assert main(["export", "no such file", str(tmp_path / name), "--to", target]) == 2
        assert ".safetensors" in capsys.readouterr().err
