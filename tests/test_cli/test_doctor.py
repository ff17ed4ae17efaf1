"""``python -m sspyr_mm doctor`` in a separate process, with this environment and with broken ones."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from project import ROOT

from sspyr_mm.cli.doctor import machine_check


def doctor(*arguments, cwd, shadow=None):
    """Runs the command; ``shadow`` is a folder whose modules come before the installed ones."""
    path = os.pathsep.join(str(part) for part in (shadow, ROOT) if part)
    result = subprocess.run(
        [sys.executable, "-m", "sspyr_mm", "doctor", *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": path},
        timeout=300,
    )
    return result.returncode, result.stdout, result.stderr


def report(*arguments, cwd, shadow=None):
    code, out, err = doctor("--json", "--quick", *arguments, cwd=cwd, shadow=shadow)
    assert out, err
    content = json.loads(out)
    assert (code == 0) == content["ready"]
    return content["ready"], {finding["name"]: finding for finding in content["findings"]}


@pytest.fixture
def images(tmp_path):
    folder = tmp_path / "images" / "nested"
    folder.mkdir(parents=True)
    for index in range(12):
        Image.fromarray(np.full((9, 9, 3), index * 20, np.uint8)).save(folder / f"{index:02d}.jpg")
    return folder.parent


def test_this_environment_can_pre_train(tmp_path, images):
    code, out, err = doctor("--data", images, cwd=tmp_path)
    assert code == 0, out + err
    assert "Pre-training can run." in out
    assert "✓ components: registered" in out
    assert f"✓ {images}: 12 images, 8 tried and decoded" in out
    assert "! data/coco: missing" in out and "ln -s /path/to/coco data/coco" in out


def test_json_names_versions_and_links(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "coco").symlink_to(tmp_path / "gone")
    (tmp_path / "data" / "imagenet" / "train").mkdir(parents=True)
    (tmp_path / "data" / "VOCdevkit" / "VOC2012").mkdir(parents=True)
    ready, found = report(cwd=tmp_path)
    assert ready
    assert found["mmpretrain"]["level"] == "ok" and found["torch"]["found"][0].isdigit()
    assert found["data/coco"]["level"] == "note"
    assert "which does not exist" in found["data/coco"]["found"]
    assert found["data/coco"]["remedy"] == "ln -sfn /path/to/coco data/coco"
    assert found["data/imagenet"]["level"] == "ok"
    assert found["data/VOCdevkit/VOC2012"]["found"] == "empty"
    assert found["data/VOCdevkit/VOC2007"]["found"] == "missing"
    assert int(found["cores"]["found"]) >= 1


def test_bad_data_is_a_problem(tmp_path, images):
    empty = tmp_path / "empty"
    empty.mkdir()
    ready, found = report("--data", empty, tmp_path / "nowhere", images, cwd=tmp_path)
    assert not ready
    assert "No images in" in found[str(empty)]["found"]
    assert "does not exist" in found[str(tmp_path / "nowhere")]["found"]
    assert found[str(images)]["level"] == "ok"


def test_some_broken_images_are_a_note_and_all_a_problem(tmp_path, images):
    files = sorted(images.rglob("*.jpg"))
    files[0].write_bytes(files[0].read_bytes()[:200])
    ready, found = report("--data", images, cwd=tmp_path)
    finding = found[str(images)]
    assert ready and finding["level"] == "note"
    assert "1 of 8 tried can't be decoded" in finding["found"] and files[0].name in finding["found"]
    for file in files:
        file.write_bytes(b"no image")
    ready, found = report("--data", images, cwd=tmp_path)
    assert not ready and "8 of 8" in found[str(images)]["found"]


def shadow_module(folder, name, code):
    (folder / name).mkdir(parents=True)
    (folder / name / "__init__.py").write_text(code)
    return folder


def shadow_metadata(folder, distribution, version):
    info = folder / f"{distribution.replace('-', '_')}-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n")
    return folder


def test_torch_that_cannot_be_imported_is_a_problem(tmp_path):
    shadow = shadow_module(tmp_path / "shadow", "torch", "raise ImportError('libcudart.so.13: gone')")
    ready, found = report(cwd=tmp_path, shadow=shadow)
    assert not ready
    assert found["torch import"]["level"] == "problem"
    assert "libcudart.so.13: gone" in found["torch import"]["found"]
    assert found["torch import"]["remedy"] == "bash tools/setup_env.sh"
    # the remaining checks still run
    assert "cores" in found


def test_opencv_without_its_libraries_is_a_problem(tmp_path):
    code = "raise ImportError('libGL.so.1: cannot open shared object file')"
    shadow = shadow_module(tmp_path / "shadow", "cv2", code)
    ready, found = report(cwd=tmp_path, shadow=shadow)
    assert not ready and "libGL.so.1" in found["OpenCV"]["found"]
    assert "apt-get install libgl1" in found["OpenCV"]["remedy"]


def test_mixed_stack_and_old_mmpretrain_are_problems(tmp_path):
    shadow = shadow_metadata(tmp_path / "shadow", "mmcv", "2.1.0")
    shadow_metadata(shadow, "onedl-mmpretrain", "0.25.0")
    ready, found = report(cwd=tmp_path, shadow=shadow)
    assert not ready
    assert "mmcv and onedl-mmcv are both installed" in found["mixed stack"]["found"]
    assert found["mmpretrain"]["level"] == "problem"
    assert found["mmpretrain"]["remedy"].startswith("mmpretrain >= 1.0, < 2 is needed")


def test_two_versions_of_opencv_are_a_note(tmp_path):
    shadow = shadow_metadata(tmp_path / "shadow", "opencv-python", "4.9.0.80")
    ready, found = report(cwd=tmp_path, shadow=shadow)
    assert ready  # they may work; the user should know
    assert found["OpenCV"]["level"] == "note" and "opencv-python==4." in found["OpenCV"]["remedy"]


def test_mmcv_without_ops_is_a_note(tmp_path):
    shadow = shadow_module(tmp_path / "shadow", "mmcv", "")
    ready, found = report(cwd=tmp_path, shadow=shadow)
    assert ready
    assert found["mmcv ops"]["level"] == "note" and found["mmcv ops"]["found"] == "not compiled"


def test_ops_for_another_torch_are_a_note(tmp_path):
    shadow = shadow_module(tmp_path / "shadow", "mmcv", "")
    (shadow / "mmcv" / "_ext.cpython-311-x86_64-linux-gnu.so").write_bytes(b"\x7fELF not really")
    ready, found = report(cwd=tmp_path, shadow=shadow)
    assert ready
    assert found["mmcv ops"]["found"].startswith("built for another torch or Python")
    assert "bash tools/setup_env.sh" in found["mmcv ops"]["remedy"]


def test_components_that_cannot_be_imported_are_a_problem(tmp_path):
    shadow = shadow_module(tmp_path / "shadow", "mmpretrain", "raise RuntimeError('broken on purpose')")
    code, out, _ = doctor(cwd=tmp_path, shadow=shadow)
    assert code == 1
    assert "✗ components: RuntimeError: broken on purpose" in out
    assert "Pre-training can't run: 1 problem" in out


def test_help_does_not_import_torch(tmp_path):
    shadow = shadow_module(tmp_path / "shadow", "torch", "raise ImportError('imported')")
    path = os.pathsep.join((str(shadow), str(ROOT)))
    result = subprocess.run(
        [sys.executable, "-m", "sspyr_mm", "doctor", "--help"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": path},
    )
    assert result.returncode == 0, result.stderr
    assert "--data" in result.stdout


def test_gpu_that_torch_does_not_detect_is_a_note(monkeypatch):
    monkeypatch.setattr(machine_check, "_nvidia_driver", lambda: "470.1")
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    (finding,) = machine_check.check_torch()
    assert finding.level == "note" and "torch sees no GPU" in finding.found
    assert "update the driver" in finding.remedy or "built without CUDA" in finding.remedy
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    (finding,) = machine_check.check_torch()
    assert finding.remedy == "unset CUDA_VISIBLE_DEVICES to use it"


def test_little_shared_memory_is_a_note(monkeypatch):
    usage = machine_check.shutil.disk_usage("/")._replace(free=2**26)
    monkeypatch.setattr(machine_check.shutil, "disk_usage", lambda path: usage)
    findings = {finding.name: finding for finding in machine_check.check_machine()}
    assert findings["/dev/shm"].level == "note" and "--shm-size" in findings["/dev/shm"].remedy
