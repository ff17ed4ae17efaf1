"""tools/setup_env.sh as it is, on real environments whose pip is fake_pip.py."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
KEY = f"mmcv2.3.6-torch2.11.0-cp3{sys.version_info.minor}-cuda13.0-cpu-"


class Setup:
    """A copy of the script and of what it reads, and environments for it."""

    def __init__(self, folder):
        self.folder = folder
        self.repo = folder / "repo"
        for name in ("tools/setup_env.sh", "setup.py", "pyproject.toml", "sspyr_mm/version.py"):
            (self.repo / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, self.repo / name)
        shutil.copytree(ROOT / "requirements", self.repo / "requirements")
        self.cache = folder / "cache/sspyr_mm/wheels"
        self.log = folder / "pip.log"
        self.venv = self.make_venv("env")

    def make_venv(self, name, *, ours=True):
        venv = self.folder / name
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", venv], check=True)
        pip = self.site(venv) / "pip"
        pip.mkdir()
        (pip / "__init__.py").touch()
        shutil.copy(Path(__file__).with_name("fake_pip.py"), pip / "__main__.py")
        import pip as real

        (pip / "_vendor").symlink_to(Path(real.__file__).parent / "_vendor")
        if ours:
            (venv / ".sspyr_mm").mkdir()
            (venv / ".sspyr_mm/made_here").touch()
        return venv

    def site(self, venv=None):
        return next((venv or self.venv).glob("lib/python*/site-packages"))

    def add(self, name, version, *, venv=None):
        info = self.site(venv) / f"{name.replace('-', '_')}-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        (info / "RECORD").write_text(f"{info.name}/METADATA,,\n")

    def start(self, *arguments, venv=None, **variables):
        environment = {
            name: value
            for name, value in os.environ.items()
            if name not in ("VIRTUAL_ENV", "CONDA_PREFIX", "MAX_JOBS", "FORCE_CUDA", "TORCH_CUDA_ARCH_LIST")
        }
        environment.update(
            SSPYR_VENV=str(venv or self.venv),
            XDG_CACHE_HOME=str(self.folder / "cache"),
            FAKE_PIP_LOG=str(self.log),
        )
        environment.update(variables)
        return subprocess.Popen(
            ["bash", self.repo / "tools/setup_env.sh", *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={name: value for name, value in environment.items() if value is not None},
            # A shell can't trap a signal that was ignored when it started, as SIGINT is in a background job.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )

    def run(self, *arguments, code=0, **variables):
        process = self.start(*arguments, **variables)
        output, _ = process.communicate(timeout=120)
        assert process.returncode == code, output
        return output

    def calls(self, word=""):
        """Calls of pip so far, as lists of arguments, those with `word` among them."""
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        return [call[0] for call in map(json.loads, lines) if word in " ".join(call[0])]

    def constraints(self):
        return [json.loads(line)[1] for line in self.log.read_text().splitlines()]

    def stamps(self, venv=None):
        return {p.name for p in ((venv or self.venv) / ".sspyr_mm").iterdir()} - {
            "made_here",
            "lock",
        }

    def wheels(self):
        return sorted(str(path.relative_to(self.cache).parent) for path in self.cache.glob("*/*.whl"))

    def leftovers(self):
        return list(self.cache.glob(".build.*"))

    def bump(self, name, version):
        pins = self.repo / "requirements/pins.txt"
        lines = pins.read_text().splitlines()
        assert any(line.startswith(f"{name}==") for line in lines)
        changed = [f"{name}=={version}" if line.startswith(f"{name}==") else line for line in lines]
        pins.write_text("\n".join(changed) + "\n")


@pytest.fixture
def setup(tmp_path):
    return Setup(tmp_path)


def test_without_ops_then_nothing_to_do_then_with_ops(setup):
    output = setup.run("--no-ops")
    assert "mmcv 2.3.6 without compiled ops" in output and "is ready" in output
    assert setup.stamps() == {"torch", "stack", "pure", "package"}
    assert not setup.calls("wheel") and not setup.wheels()

    count = len(setup.calls())
    assert setup.run("--no-ops").strip().endswith("is ready")
    assert len(setup.calls()) == count  # pip was not even asked

    output = setup.run()
    assert "building mmcv 2.3.6" in output
    (build,) = setup.calls("wheel -v")
    assert {"--no-cache-dir", "--no-build-isolation", "--no-deps"} <= set(build)
    assert setup.stamps() >= {"ops"} and (setup.site() / "mmcv/_ext.py").exists()
    (key,) = setup.wheels()
    assert key.startswith(KEY)
    assert not setup.leftovers()

    count = len(setup.calls())
    setup.run()
    setup.run("--no-ops")  # ops that are there stay
    assert len(setup.calls()) == count


def test_build_uses_all_cores_and_no_gpu_for_a_cpu_wheel(setup):
    setup.run()
    build = next(call for call in map(json.loads, setup.log.read_text().splitlines()) if call[0][0] == "wheel")
    assert build[2] == {"MAX_JOBS": str(len(os.sched_getaffinity(0))), "CUDA_VISIBLE_DEVICES": ""}


def test_second_environment_takes_the_wheel_from_the_cache(setup):
    setup.run()
    other = setup.make_venv("other")
    output = setup.run(venv=other)
    assert "with compiled ops, from" in output
    assert len(setup.calls("wheel -v")) == 1
    assert (setup.site(other) / "mmcv/_ext.py").exists()
    third = setup.make_venv("third")  # also without being asked to build
    setup.run("--no-ops", venv=third)
    assert "ops" in setup.stamps(third) and len(setup.calls("wheel -v")) == 1


def test_another_torch_or_mmcv_is_another_wheel(setup):
    setup.run()
    setup.bump("torch", "2.12.1")
    setup.run(venv=setup.make_venv("other"))
    setup.bump("onedl-mmcv", "2.3.7")
    setup.run(venv=setup.make_venv("third"))
    assert [key.split("-cp")[0] for key in setup.wheels()] == [
        "mmcv2.3.6-torch2.11.0",
        "mmcv2.3.6-torch2.12.1",
        "mmcv2.3.7-torch2.12.1",
    ]


def test_a_gpu_wheel_has_a_key_of_its_own(setup):
    setup.run()
    setup.run(venv=setup.make_venv("gpu"), FORCE_CUDA="1", TORCH_CUDA_ARCH_LIST="9.0;8.0")
    keys = setup.wheels()
    assert len(keys) == 2
    assert any("-cuda13.0-gpu-sm9.0+8.0-" in key for key in keys)


@pytest.mark.parametrize(
    ("mode", "message"),
    [("fail", "no such header (on purpose)"), ("pure", "the wheel came without compiled ops")],
)
def test_failed_build_leaves_nothing_and_says_what_to_do(setup, mode, message):
    output = setup.run(code=1, FAKE_WHEEL=mode)
    assert message in output
    assert "building mmcv failed; the whole log:" in output and "--no-ops" in output
    assert (setup.cache / "build-failed.log").exists()
    assert not setup.wheels() and not setup.leftovers()
    assert not setup.stamps() & {"ops", "pure", "running"}
    # it goes on from there
    count = len(setup.calls("torchvision"))
    setup.run()
    assert "ops" in setup.stamps() and len(setup.calls("torchvision")) == count


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_build_leaves_nothing_and_stops_the_compilers(setup, number):
    process = setup.start(FAKE_WHEEL="hang")
    compiler = setup.folder / "compiler"
    deadline = time.monotonic() + 60
    while not (compiler.exists() and compiler.read_text()) and time.monotonic() < deadline:
        time.sleep(0.1)
    pid = int(compiler.read_text())
    os.kill(pid, 0)  # it runs
    process.send_signal(number)
    output, _ = process.communicate(timeout=180)
    assert process.returncode == 128 + number, output
    assert "run the same command again" in output
    time.sleep(0.5)
    state = Path(f"/proc/{pid}/stat")
    assert not state.exists() or state.read_text().split()[2] == "Z"
    assert not setup.wheels() and not setup.leftovers()
    assert "ops" not in setup.stamps()


def test_damaged_wheel_in_the_cache_is_built_again(setup):
    setup.run()
    (key,) = setup.wheels()
    wheel = next((setup.cache / key).glob("*.whl"))
    wheel.write_bytes(wheel.read_bytes()[:100])
    output = setup.run(venv=setup.make_venv("other"))
    assert "is damaged: removed" in output and len(setup.calls("wheel -v")) == 2


def test_wheel_that_does_not_load_is_built_anew_once(setup):
    setup.run(FAKE_WHEEL="good")
    (key,) = setup.wheels()
    wheel = next((setup.cache / key).glob("*.whl"))
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("mmcv/__init__.py", "")
        archive.writestr("mmcv/_ext.py", "raise ImportError('undefined symbol')")
    other = setup.make_venv("other")
    output = setup.run(venv=other)
    assert "does not load here: building it anew" in output and "ops" in setup.stamps(other)
    third = setup.make_venv("third")
    shutil.rmtree(setup.cache)
    output = setup.run(venv=third, code=1, FAKE_WHEEL="unloadable")
    assert "undefined symbol" in output and "cannot be loaded" in output
    assert "ops" not in setup.stamps(third) and not setup.wheels()


def test_two_runs_at_once_build_once(setup):
    other = setup.make_venv("other")
    runs = [setup.start(FAKE_WHEEL="slow"), setup.start(venv=other, FAKE_WHEEL="slow")]
    outputs = [process.communicate(timeout=120)[0] for process in runs]
    assert [process.returncode for process in runs] == [0, 0], outputs
    assert len(setup.calls("wheel -v")) == 1
    assert sum("waiting for another run" in output for output in outputs) == 1


def test_two_runs_on_one_environment_wait_for_each_other(setup):
    runs = [setup.start("--no-ops"), setup.start("--no-ops")]
    outputs = [process.communicate(timeout=120)[0] for process in runs]
    assert [process.returncode for process in runs] == [0, 0], outputs
    assert len(setup.calls("-e ")) == 1


def test_originals_are_never_overwritten(setup):
    venv = setup.make_venv("theirs", ours=False)
    for name, version in (("mmengine", "0.10.7"), ("mmcv", "2.1.0"), ("mmpretrain", "1.2.0")):
        setup.add(name, version, venv=venv)
    output = setup.run(venv=venv)
    assert "mmcv 2.1.0, mmpretrain 1.2.0): kept as they are" in output
    assert not setup.calls("onedl") and not setup.calls("mminstall.txt -r x")
    names = {path.name.split("-")[0] for path in setup.site(venv).glob("*.dist-info")}
    assert not any(name.startswith("onedl") for name in names), names
    assert {"torch", "pycocotools", "pytest", "sspyr_mm"} <= {n.replace("-", "_") for n in names}
    count = len(setup.calls())
    setup.run(venv=venv)
    assert len(setup.calls()) == count


def test_incomplete_originals_are_named_not_mixed(setup):
    venv = setup.make_venv("theirs", ours=False)
    setup.add("mmcv", "2.1.0", venv=venv)
    output = setup.run(venv=venv, code=1)
    assert "this stack lacks: mmengine mmpretrain" in output and "mim install" in output
    assert not setup.calls()


def test_failed_install_leaves_no_stamp_and_the_next_run_goes_on(setup):
    output = setup.run("--no-ops", code=1, FAKE_PIP_FAIL="onedl-mmdetection")
    assert "pip install failed" in output and "goes on from this step" in output
    assert setup.stamps() == {"torch", "running"}
    setup.run("--no-ops")
    assert setup.stamps() == {"torch", "stack", "pure", "package"}
    assert len(setup.calls("torch.txt")) == 1


def test_killed_install_is_checked_for_halves(setup):
    setup.run("--no-ops", code=-9, FAKE_PIP_KILL="pycocotools")
    assert "running" in setup.stamps()
    for record in setup.site().glob("onedl_mmpretrain-*/RECORD"):
        record.unlink()  # killed between the files and their list
    output = setup.run("--no-ops")
    assert "an earlier run was interrupted" in output
    assert "onedl-mmpretrain is incomplete and will be installed again" in output
    assert list(setup.site().glob("onedl_mmpretrain-*/RECORD"))
    assert setup.stamps() == {"torch", "stack", "pure", "package"}


def test_uninstalled_parts_come_back(setup):
    setup.run("--no-ops")
    shutil.rmtree(next(setup.site().glob("onedl_mmpretrain-*")))
    setup.run("--no-ops")
    assert list(setup.site().glob("onedl_mmpretrain-*"))


def test_changed_pins_are_installed(setup):
    setup.run("--no-ops")
    setup.bump("pytest", "99.0")
    count = len(setup.calls())
    setup.run("--no-ops")
    assert len(setup.calls()) > count
    assert any("pytest==99.0" in text for texts in setup.constraints()[count:] for text in texts)


def torch_of_ones_own(setup, version):
    venv = setup.make_venv("theirs", ours=False)
    setup.add("torch", version, venv=venv)
    setup.add("torchvision", "0.20.1", venv=venv)
    setup.add("numpy", "2.1.0", venv=venv)
    (setup.site(venv) / "torch").mkdir()
    text = "class version:\n    cuda = None\nclass cuda:\n    is_available = staticmethod(lambda: False)\n"
    (setup.site(venv) / "torch/__init__.py").write_text(f"__version__ = {version!r}\n{text}")
    return venv


def test_a_torch_that_fits_is_kept_with_everything_else_there(setup):
    venv = torch_of_ones_own(setup, "2.5.1")
    output = setup.run(venv=venv)
    assert "torch 2.5.1: kept" in output
    assert not setup.calls("torch.txt")
    lines = {line for texts in setup.constraints() for text in texts for line in text.splitlines()}
    assert "torch==2.5.1" in lines and not any(line.startswith("torch==2.11") for line in lines)
    assert not any(line.startswith("numpy==") for line in lines)
    assert any(line.startswith("scipy==") for line in lines)
    (key,) = setup.wheels()
    assert "torch2.5.1" in key and "cudanone" in key


def test_a_torch_that_does_not_fit_is_refused_not_replaced(setup):
    venv = torch_of_ones_own(setup, "1.13.1")
    output = setup.run(venv=venv, code=1)
    assert "torch 1.13.1" in output and "does not fit: torch>=2.1" in output
    assert "SSPYR_VENV=" in output
    assert not setup.calls() and "torch" not in setup.stamps(venv)


def test_active_environment_is_used(setup):
    venv = setup.make_venv("active", ours=False)
    output = setup.run("--print-python", SSPYR_VENV=None, VIRTUAL_ENV=str(venv))
    assert output.strip() == str(venv / "bin/python")
    output = setup.run("--print-python", SSPYR_VENV=None)
    assert output.strip() == str(setup.repo / ".venv/bin/python")
    assert not setup.calls()


def test_half_made_environment_is_made_anew_and_failure_without_an_index_is_clean(setup):
    venv = setup.folder / "half"
    (venv / ".sspyr_mm").mkdir(parents=True)
    (venv / ".sspyr_mm/made_here").touch()
    (venv / ".sspyr_mm/torch").write_text("stale")
    (venv / "bin").mkdir()
    (venv / "bin/python").symlink_to("/no/such/python")
    output = setup.run(venv=venv, code=1, PIP_NO_INDEX="1", PIP_FIND_LINKS="", SSPYR_PYTHON=sys.executable)
    assert "half-made or broken: making it anew" in output
    assert subprocess.run([venv / "bin/python", "-m", "pip", "--version"]).returncode == 0
    assert "pip install failed" in output
    assert setup.stamps(venv) == {"running"}


def test_a_folder_of_something_else_is_left_alone(setup):
    folder = setup.folder / "photos"
    folder.mkdir()
    (folder / "holiday.jpg").touch()
    output = setup.run(venv=folder, code=1)
    assert "is not empty and no environment" in output
    assert [path.name for path in folder.iterdir()] == ["holiday.jpg"]


def test_unknown_option(setup):
    assert "unknown option --fast" in setup.run("--fast", code=1)
