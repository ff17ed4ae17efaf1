"""``python -m sspyr_mm doctor`` with this environment and with broken ones."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from project import ROOT

from sspyr_mm.__main__ import main
from sspyr_mm.cli import doctor


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def report(capsys):
    """Returns whether the machine is ready, and the findings by name."""

    def run(*arguments):
        code = main(["doctor", "--json", "--quick", *map(str, arguments)])
        content = json.loads(capsys.readouterr().out)
        assert (code == 0) == content["ready"]
        return content["ready"], {finding["name"]: finding for finding in content["findings"]}

    return run


def run_process(*arguments, shadow):
    """Runs the command in a separate process, in which the modules of ``shadow`` precede the installed ones."""
    return subprocess.run(
        [sys.executable, "-m", "sspyr_mm", "doctor", *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": f"{shadow}{os.pathsep}{ROOT}"},
    )


@pytest.fixture
def images(tmp_path):
    folder = tmp_path / "images" / "nested"
    folder.mkdir(parents=True)
    for index in range(12):
        Image.fromarray(np.full((9, 9, 3), index * 20, np.uint8)).save(folder / f"{index:02d}.jpg")
    return folder.parent


def test_this_environment_can_pre_train(images, capsys):
    code = main(["doctor", "--data", str(images)])
    out = capsys.readouterr().out
    assert code == 0, out
    assert "Pre-training can run." in out
    assert "✓ components: registered" in out
    assert f"✓ {images}: 12 images, 8 tried and decoded" in out
    assert (
        "! data/coco: missing" in out
        and "ln -sfn /path/to/coco data/coco (needed by configs/ssprl/r50_coco_*.py)" in out
    )


def test_json_names_versions_and_links(tmp_path, report):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "coco").symlink_to(tmp_path / "gone")
    (tmp_path / "data" / "imagenet" / "train").mkdir(parents=True)
    (tmp_path / "data" / "VOCdevkit" / "VOC2012").mkdir(parents=True)
    (tmp_path / "data" / "VOCdevkit" / "VOC2007").touch()
    ready, found = report()
    assert ready
    assert found["mmpretrain"]["level"] == "ok" and found["torch"]["found"][0].isdigit()
    assert found["data/coco"]["level"] == "note"
    assert "which does not exist" in found["data/coco"]["found"]
    assert found["data/coco"]["remedy"].startswith("ln -sfn /path/to/coco data/coco ")
    assert found["data/imagenet"]["level"] == "ok"
    assert found["data/VOCdevkit/VOC2012"]["found"] == "empty"
    assert found["data/VOCdevkit/VOC2007"]["found"] == "Not a directory"
    assert int(found["cores"]["found"]) >= 1


def test_bad_data_is_a_problem(tmp_path, images, report):
    empty = tmp_path / "empty"
    empty.mkdir()
    ready, found = report("--data", empty, tmp_path / "nowhere", images)
    assert not ready
    assert "No images in" in found[str(empty)]["found"]
    assert "does not exist" in found[str(tmp_path / "nowhere")]["found"]
    assert found[str(images)]["level"] == "ok"


def test_some_broken_images_are_a_note_and_all_a_problem(images, report):
    files = sorted(images.rglob("*.jpg"))
    files[0].write_bytes(files[0].read_bytes()[:200])
    ready, found = report("--data", images)
    finding = found[str(images)]
    assert ready and finding["level"] == "note"
    assert "1 of 8 tried can't be decoded" in finding["found"] and files[0].name in finding["found"]
    for file in files:
        file.write_bytes(b"no image")
    ready, found = report("--data", images)
    assert not ready and "8 of 8" in found[str(images)]["found"]


@pytest.fixture
def shadow(tmp_path, monkeypatch):
    """Folder whose modules and metadata precede the installed ones."""
    folder = tmp_path / "shadow"
    folder.mkdir()
    monkeypatch.syspath_prepend(str(folder))
    return folder


@pytest.fixture
def shadow_module(shadow, monkeypatch):
    def write(name, code):
        (shadow / name).mkdir()
        (shadow / name / "__init__.py").write_text(code)
        monkeypatch.delitem(sys.modules, name, raising=False)

    return write


def shadow_metadata(folder, distribution, version):
    info = folder / f"{distribution.replace('-', '_')}-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n")


def test_torch_that_cannot_be_imported_is_a_problem(shadow, shadow_module):
    """In a separate process: the command itself works without torch."""
    shadow_module("torch", "raise ImportError('libcudart.so.13: gone')")
    done = run_process("--json", "--quick", shadow=shadow)
    assert done.returncode == 1, done.stderr
    found = {finding["name"]: finding for finding in json.loads(done.stdout)["findings"]}
    assert found["torch import"]["level"] == "problem"
    assert "libcudart.so.13: gone" in found["torch import"]["found"]
    assert found["torch import"]["remedy"] == "bash tools/setup_env.sh"
    # the remaining checks still run
    assert "cores" in found


def test_help_does_not_import_torch(shadow, shadow_module):
    shadow_module("torch", "raise ImportError('imported')")
    done = run_process("--help", shadow=shadow)
    assert done.returncode == 0, done.stderr
    assert "--data" in done.stdout


def test_opencv_without_its_libraries_is_a_problem(shadow_module, report):
    shadow_module("cv2", "raise ImportError('libGL.so.1: cannot open shared object file')")
    ready, found = report()
    assert not ready and "libGL.so.1" in found["OpenCV"]["found"]
    assert "apt-get install libgl1" in found["OpenCV"]["remedy"]


def test_mixed_stack_and_old_mmpretrain_are_problems(shadow, report):
    shadow_metadata(shadow, "mmcv", "2.1.0")
    shadow_metadata(shadow, "onedl-mmpretrain", "0.25.0")
    ready, found = report()
    assert not ready
    assert "mmcv and onedl-mmcv are both installed" in found["mixed stack"]["found"]
    assert found["mmpretrain"]["level"] == "problem"
    assert found["mmpretrain"]["remedy"].startswith("mmpretrain >= 1.0, < 2 is needed")


def test_two_versions_of_opencv_are_a_note(shadow, report):
    shadow_metadata(shadow, "opencv-python", "4.9.0.80")
    ready, found = report()
    assert ready  # they may work; the user should know
    assert found["OpenCV"]["level"] == "note" and "opencv-python==4." in found["OpenCV"]["remedy"]


def test_mmcv_without_ops_is_a_note(shadow_module, report):
    shadow_module("mmcv", "")
    ready, found = report()
    assert ready
    assert found["mmcv ops"]["level"] == "note" and found["mmcv ops"]["found"] == "not compiled"


def test_ops_for_another_torch_are_a_note(shadow, shadow_module, report):
    shadow_module("mmcv", "")
    (shadow / "mmcv" / "_ext.cpython-311-x86_64-linux-gnu.so").write_bytes(b"\x7fELF not really")
    ready, found = report()
    assert ready
    assert found["mmcv ops"]["found"].startswith("built for another torch or Python")
    assert "bash tools/setup_env.sh" in found["mmcv ops"]["remedy"]


def test_components_that_cannot_be_imported_are_a_problem(shadow, shadow_module, monkeypatch):
    shadow_module("mmengine", "raise RuntimeError('broken on purpose')")
    monkeypatch.setenv("PYTHONPATH", f"{shadow}{os.pathsep}{ROOT}")
    finding = doctor.check_package()
    assert finding.level == "problem" and finding.found == "RuntimeError: broken on purpose"


def test_problems_are_counted(tmp_path, capsys):
    assert main(["doctor", "--quick", "--data", str(tmp_path / "nowhere")]) == 1
    out = capsys.readouterr().out
    assert f"✗ {tmp_path}/nowhere: " in out and "Pre-training can't run: 1 problem, marked" in out


def test_gpu_that_torch_does_not_detect_is_a_note(monkeypatch):
    monkeypatch.setattr(doctor, "_nvidia_driver", lambda: "470.1")
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    (finding,) = doctor.check_torch()
    assert finding.level == "note" and "torch sees no GPU" in finding.found
    assert "update the driver" in finding.remedy or "built without CUDA" in finding.remedy
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    (finding,) = doctor.check_torch()
    assert finding.remedy == "unset CUDA_VISIBLE_DEVICES to use it"


def test_little_shared_memory_is_a_note(monkeypatch):
    usage = doctor.shutil.disk_usage("/")._replace(free=2**26)
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda path: usage)
    findings = {finding.name: finding for finding in doctor.check_machine()}
    assert findings["/dev/shm"].level == "note" and "--shm-size" in findings["/dev/shm"].remedy
