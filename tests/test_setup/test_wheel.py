"""The wheel: its contents, its requirements without torch and OpenMMLab, and its commands outside of the sources."""

import email
import os
import shutil
import subprocess
import sys
import zipfile

import pytest
from project import ROOT


def run(*command, cwd, **variables):
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    result = subprocess.run(
        [str(part) for part in command], capture_output=True, text=True, cwd=cwd, env={**environment, **variables}
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Built from a copy of the sources, so that the build leaves no files in the repository."""
    folder = tmp_path_factory.mktemp("wheel")
    ignore = shutil.ignore_patterns(".*", "work_dirs", "data", "build", "dist", "*.egg-info", "__pycache__", "tests")
    shutil.copytree(ROOT, folder / "source", ignore=ignore)
    # a file that an earlier build left must not be shipped
    stale = folder / "source/build/lib/sspyr_mm/removed_long_ago.py"
    stale.parent.mkdir(parents=True)
    stale.touch()
    run(
        *(sys.executable, "-m", "pip", "wheel", ".", "--no-deps", "--no-build-isolation", "-q"),
        *("--no-cache-dir", "-w", folder / "out"),
        cwd=folder / "source",
    )
    (path,) = (folder / "out").glob("*.whl")
    return path


def test_contents(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    sources = {str(path.relative_to(ROOT)) for path in (ROOT / "sspyr_mm").rglob("*.py") if ".mim" not in path.parts}
    assert sources <= names, f"not shipped (is an __init__.py missing?): {sorted(sources - names)}"
    for folder in ("configs", "tools"):
        shipped = {n.removeprefix("sspyr_mm/.mim/") for n in names if n.startswith(f"sspyr_mm/.mim/{folder}/")}
        expected = {
            str(path.relative_to(ROOT))
            for path in (ROOT / folder).rglob("*")
            if path.is_file() and "__pycache__" not in path.parts
        }
        assert shipped == expected
    assert "sspyr_mm/.mim/model-index.yml" in names
    assert not any("removed_long_ago" in name or name.startswith(("tests", "build")) for name in names)


def test_requirements_name_no_stack(wheel):
    archive = zipfile.ZipFile(wheel)
    (name,) = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
    metadata = email.message_from_bytes(archive.read(name))
    always = [line for line in metadata.get_all("Requires-Dist") if "extra ==" not in line]
    assert any(line.startswith("numpy") for line in always)
    stack = ("mm", "onedl", "openmim", "torch", "opencv")
    assert not [line for line in always if line.startswith(stack)]
    extras = metadata.get_all("Provides-Extra")
    assert {"mminstall", "tests", "lint"} <= set(extras)
    assert metadata["License"] == "Apache-2.0" or metadata["License-Expression"] == "Apache-2.0"


def test_installed_wheel_runs_outside_of_the_repository(wheel, tmp_path):
    target = tmp_path / "site"
    run(*(sys.executable, "-m", "pip", "install", wheel, "--no-deps", "-q", "--target", target), cwd=tmp_path)
    # PYTHONPATH comes before the editable install of the environment
    output = run(sys.executable, "-m", "sspyr_mm", "--help", cwd=tmp_path, PYTHONPATH=str(target))
    assert "doctor" in output
    assert output == run(target / "bin/sspyr", "--help", cwd=tmp_path, PYTHONPATH=str(target))
    config = tmp_path / "inherits.py"
    config.write_text("_base_ = ['sspyr_mm::_base_/compat.py']\nwork_dir = 'w'\n")
    code = (
        "import sspyr_mm.registration; from mmengine.config import Config; "
        f"cfg = Config.fromfile({str(config)!r}); print(sspyr_mm.__file__, cfg.custom_imports.imports)"
    )
    output = run(sys.executable, "-c", code, cwd=tmp_path, PYTHONPATH=str(target))
    assert str(target) in output and "['sspyr_mm.registration']" in output
    train = target / "sspyr_mm/.mim/tools/train.py"
    output = run(sys.executable, train, "--help", cwd=tmp_path, PYTHONPATH=str(target))
    assert "--data-root" in output


def test_editable_install_links_configs_and_tools():
    mim = ROOT / "sspyr_mm/.mim"
    if not mim.exists():
        pytest.skip("not an editable install")
    assert (mim / "configs").resolve() == ROOT / "configs"
    assert (mim / "tools/train.py").resolve() == ROOT / "tools/train.py"
