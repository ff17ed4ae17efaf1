"""tools/setup_env.sh in real environments whose uv and pip are fake_pip.py."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from project import ROOT

# `python -m venv` of the base interpreter makes environments with the fake pip.
PYTHON = f"""#!/bin/sh
[ "$2" = venv ] || exec {sys.executable} "$@"
{sys.executable} -m venv --without-pip "$3" && cd "$3"/lib/python3*/site-packages && mkdir pip &&
touch pip/__init__.py && cp {Path(__file__).with_name("fake_pip.py")} pip/__main__.py
"""
UV = '#!/bin/sh\n[ -z "$FAKE_UV_FAILS" ] || exit 2\npython=$4; shift 4; exec "$python" -m pip install "$@"\n'


class Setup:
    """A copy of the script and of the files that it reads, with environments for it."""

    def __init__(self, folder):
        self.folder, self.repo, self.venv = folder, folder / "repo", folder / "env"
        for name in ("tools/setup_env.sh", "setup.py", "pyproject.toml", "sspyr_mm/version.py"):
            (self.repo / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, self.repo / name)
        shutil.copytree(ROOT / "requirements", self.repo / "requirements")
        (folder / "bin").mkdir()
        for name, text in (("python", PYTHON), ("uv", UV)):
            (folder / "bin" / name).write_text(text)
            (folder / "bin" / name).chmod(0o755)
        self.log = folder / "pip.log"

    def start(self, *arguments, venv=None, **variables):
        environment = {"HOME": str(self.folder), "FAKE_LOG": str(self.log)}
        environment["PATH"] = f"{self.folder / 'bin'}:{os.environ['PATH']}"
        environment["SSPYR_PYTHON"] = str(self.folder / "bin/python")
        environment["SSPYR_VENV"] = str(venv or self.venv)
        return subprocess.Popen(
            ["bash", self.repo / "tools/setup_env.sh", *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={k: v for k, v in {**environment, **variables}.items() if v is not None},
        )

    def run(self, *arguments, code=0, **variables):
        process = self.start(*arguments, **variables)
        output, _ = process.communicate(timeout=120)
        assert process.returncode == code, output
        return output

    def calls(self, word=""):
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        return [call for call in map(json.loads, lines) if word in call[0]]

    def site(self, venv=None):
        return next((venv or self.venv).glob("lib/python3*/site-packages"))

    def wheels(self):
        return list((self.folder / ".cache/sspyr_mm/wheels").glob("*/*.whl"))

    def users_environment(self, **distributions):
        """Creates an environment that the script did not create, with distributions in it."""
        venv = self.folder / "theirs"
        subprocess.run([self.folder / "bin/python", "-m", "venv", venv], check=True)
        for name, version in distributions.items():
            info = self.site(venv) / f"{name}-{version}.dist-info"
            info.mkdir()
            (info / "METADATA").write_text(f"Name: {name}\nVersion: {version}\n")
        return venv


@pytest.fixture
def setup(tmp_path):
    return Setup(tmp_path)


def test_finished_steps_are_skipped(setup):
    setup.run("--no-ops")
    assert not setup.calls("wheel") and not (setup.site() / "mmcv/_ext.py").exists()
    count = len(setup.calls())
    assert "is ready" in setup.run("--no-ops")
    assert len(setup.calls()) == count
    setup.run()
    ((build, _),) = setup.calls("wheel")
    # pip would take a wheel for another torch from its cache, and isolation would hide torch
    assert {"--no-cache-dir", "--no-build-isolation"} <= {*build}
    assert (setup.site() / "mmcv/_ext.py").exists()
    count = len(setup.calls())
    setup.run()
    setup.run("--no-ops")
    assert len(setup.calls()) == count
    shutil.rmtree(next(setup.site().glob("onedl_mmpretrain-*")))
    setup.run("--no-ops")
    assert list(setup.site().glob("onedl_mmpretrain-*"))


def test_compiled_ops_are_cached_by_torch_python_and_cuda(setup):
    setup.run()
    (wheel,) = setup.wheels()
    key = f"mmcv2.3.6-torch2.11.0+cu130-cp3{sys.version_info.minor}-cuda13.0-cpu-"
    assert wheel.parent.name.startswith(key)
    setup.run(venv=setup.folder / "second")
    assert len(setup.calls("wheel")) == 1
    assert (setup.site(setup.folder / "second") / "mmcv/_ext.py").exists()
    pins = setup.repo / "requirements/pins.txt"
    pins.write_text(pins.read_text().replace("torch==2.11.0", "torch==2.12.0"))
    setup.run()
    setup.run(venv=setup.folder / "gpu", FORCE_CUDA="1", TORCH_CUDA_ARCH_LIST="9.0;8.0")
    names = [path.parent.name for path in setup.wheels()]
    assert sum("torch2.12.0" in name for name in names) == 2 and len(names) == 3
    assert any("cuda13.0-gpu-sm8.0+9.0" in name for name in names)


@pytest.mark.parametrize("content", [None, "raise ImportError('undefined symbol')"])
def test_unusable_wheel_in_the_cache_is_compiled_again(setup, content):
    setup.run(**({"FAKE_OPS": content, "code": 1} if content else {}))
    (wheel,) = setup.wheels()
    if not content:
        wheel.write_bytes(wheel.read_bytes()[:20])
    setup.run()
    setup.run(venv=setup.folder / "second")
    assert len(setup.calls("wheel")) == 2


def test_failed_compilation_is_reported_and_repeated(setup):
    output = setup.run(code=1, FAKE_FAIL="compile")
    assert "no such header" in output and "--no-ops" in output and not setup.wheels()
    setup.run()
    assert setup.wheels()


def test_interrupted_environment_is_created_again(setup):
    setup.run("--no-ops", code=-9, FAKE_KILL="pycocotools")
    (setup.site() / "half").touch()
    assert "creating" in setup.run("--no-ops")
    assert not (setup.site() / "half").exists() and list(setup.site().glob("pycocotools-*"))


def test_failed_install_keeps_the_environment(setup):
    output = setup.run("--no-ops", code=1, FAKE_FAIL="onedl-mmdetection")
    assert "no network for onedl-mmdetection" in output and "SSPYR_VENV" in output
    assert "creating" not in setup.run("--no-ops")


def test_pip_is_used_if_uv_fails(setup):
    assert "using pip" in setup.run("--no-ops", FAKE_UV_FAILS="1")
    assert list(setup.site().glob("onedl_mmpretrain-*"))


def test_two_set_ups_at_once_compile_once(setup):
    venvs = (setup.venv, setup.venv, setup.folder / "second")
    runs = [setup.start(venv=venv, FAKE_SECONDS="2") for venv in venvs]
    outputs = [process.communicate(timeout=120)[0] for process in runs]
    assert [process.returncode for process in runs] == [0, 0, 0], outputs
    assert len(setup.calls("wheel")) == 1
    assert sum("waiting for another set-up" in output for output in outputs) == 2


def test_originals_are_never_overwritten(setup):
    venv = setup.users_environment(mmengine="0.10.7", mmcv_lite="2.1.0", mmpretrain="1.2.0")
    output = setup.run(venv=venv)
    assert "kept:" in output and "mmcv-lite" in output
    assert not list(setup.site(venv).glob("onedl*")) and not setup.calls("wheel")
    assert list(setup.site(venv).glob("sspyr_mm-*"))


def test_incomplete_originals_are_reported(setup):
    output = setup.run(venv=setup.users_environment(mmcv="2.1.0"), code=1)
    assert "lacks" in output and "mmengine" in output and "mim install" in output
    assert not setup.calls()


def test_users_packages_are_kept(setup):
    venv = setup.users_environment(torch="2.5.1", numpy="2.1.0")
    setup.run("--no-ops", venv=venv, code=1, FAKE_FAIL="onedl-mmdetection")
    constraints = setup.calls("-c")[0][1]
    assert "torch==2.5.1" in constraints and "onedl-mmcv==2.3.6" in constraints
    assert not [line for line in constraints if line.startswith(("torchvision=", "numpy="))]
    assert list(setup.site(venv).glob("torch-2.5.1*"))


def test_environment_is_chosen_and_checked(setup):
    output = setup.run("--print-python", SSPYR_VENV=None)
    assert output.strip() == str(setup.repo / ".venv/bin/python")
    output = setup.run("--print-python", SSPYR_VENV=None, VIRTUAL_ENV="/somewhere")
    assert output.strip() == "/somewhere/bin/python"
    assert "unknown option --fast" in setup.run("--fast", code=1)
    assert "no Python 3.10 to 3.12" in setup.run(code=1, SSPYR_PYTHON="/no/python")
    photos = setup.folder / "photos"
    photos.mkdir()
    (photos / "holiday.jpg").touch()
    assert "photos is not an environment" in setup.run(venv=photos, code=1)
    assert [path.name for path in photos.iterdir()] == ["holiday.jpg"]
