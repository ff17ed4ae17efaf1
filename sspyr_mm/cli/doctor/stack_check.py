"""Checks of Python, OpenMMLab, OpenCV and the package itself.

Every check works on a broken stack: modules are found by their metadata, and a failing import is reported as a
finding.
"""

from __future__ import annotations

import importlib.util
import platform
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from packaging.version import Version

from sspyr_mm import compat
from sspyr_mm.cli.doctor.finding import NOTE, OK, PROBLEM, SETUP, Finding, last_line
from sspyr_mm.version import __version__

OPENCV = ("opencv-python", "opencv-python-headless", "opencv-contrib-python", "opencv-contrib-python-headless")


def check_python() -> Iterator[Finding]:
    """Reports the interpreter and this package."""
    yield Finding("Python", OK, f"{platform.python_version()} ({sys.executable})")
    yield Finding("sspyr_mm", OK, f"{__version__} ({Path(__file__).parents[2]})")


def check_stack() -> Iterator[Finding]:
    """Checks torch, the OpenMMLab modules and NumPy by their metadata."""
    for module, versions in compat.REQUIRED.items():
        description = _describe(module)
        if description is None:
            yield Finding(module, PROBLEM, "missing", compat.remedy())
        elif compat.fits(module):
            yield Finding(module, OK, description)
        else:
            yield Finding(module, PROBLEM, description, f"{module} {versions} is needed. {compat.remedy()}")
    for module, use in (("mmdet", "detection"), ("mmseg", "segmentation")):
        description = _describe(module)
        if description is None:
            yield Finding(module, NOTE, "missing", f"only {use} needs it: {SETUP}")
        else:
            yield Finding(module, OK, description)
    if mixed := compat.mixed_distributions():
        yield Finding("mixed stack", PROBLEM, mixed, f"or create a fresh environment: {SETUP}")
    if numpy := compat.find_distribution("numpy"):
        yield Finding("numpy", OK, numpy[1])
    else:
        yield Finding("numpy", PROBLEM, "missing", SETUP)


def check_opencv() -> Iterator[Finding]:
    """Checks OpenCV, which mmcv imports, and detects distributions of it that overwrite one another."""
    installed = dict(filter(None, map(compat.find_distribution, OPENCV)))
    text = ", ".join(f"{name} {version}" for name, version in installed.items()) or "missing"
    is_mixed = len(set(installed.values())) > 1
    if is_mixed:
        last = max(installed.values(), key=Version)
        same = " ".join(f"{name}=={last}" for name in installed)
        remedy = f"they overwrite each other's files; install the same version of each: pip install {same}"
        yield Finding("OpenCV", NOTE, text, remedy)
    try:
        import cv2
    except Exception as error:
        if "libGL" in str(error) or "libgthread" in str(error):
            remedy = (
                "apt-get install libgl1 libglib2.0-0, or install the build without GUI: pip uninstall opencv-python && "
                "pip install --force-reinstall opencv-python-headless"
            )
        else:
            remedy = f"pip install --force-reinstall opencv-python-headless, or {SETUP}"
        yield Finding("OpenCV", PROBLEM, f"{text}; import fails: {error}", remedy)
        return
    if not is_mixed:
        yield Finding("OpenCV", OK, text if installed else cv2.__version__)


def check_ops() -> Iterator[Finding]:
    """Finds mmcv's compiled ops and loads them without importing mmcv."""
    if not compat.is_importable("mmcv"):
        return
    spec = importlib.util.find_spec("mmcv")
    folders = (spec.submodule_search_locations if spec else None) or []
    files = [path for folder in folders for path in Path(folder).glob("_ext*.*")]
    remedy = f"pre-training, classification and segmentation run without them; detection needs them: {SETUP}"
    if not files:
        yield Finding("mmcv ops", NOTE, "not compiled", remedy)
        return
    try:
        import torch  # noqa: F401  (the ops are linked to its libraries)

        extension = importlib.util.spec_from_file_location("mmcv._ext", files[0])
        assert extension is not None
        importlib.util.module_from_spec(extension)
    except Exception as error:
        yield Finding("mmcv ops", NOTE, f"built for another torch or Python: {last_line(error)}", remedy)
        return
    yield Finding("mmcv ops", OK, files[0].name)


def check_package() -> Iterator[Finding]:
    """Imports the package with all its components in a separate process."""
    code = "import sspyr_mm.registration; from mmpretrain.registry import MODELS; assert MODELS.get('SSPRL')"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    if result.returncode == 0:
        yield Finding("components", OK, "registered")
        return
    found = last_line(result.stderr) or f"exit status {result.returncode}"
    remedy = f"see the problems above; for the full error run {sys.executable} -c 'import sspyr_mm.registration'"
    yield Finding("components", PROBLEM, found, remedy)


def _describe(module: str) -> str | None:
    found = compat.find_distribution(module)
    if found is None:
        return "found on the path, version unknown" if compat.is_importable(module) else None
    name, version = found
    if not compat.is_importable(module):
        return f"{version} ({name}; but `import {module}` fails)"
    if not module.startswith("mm"):
        return version
    return f"{version} ({'fork ' if name.startswith('onedl-') else 'original '}{name})"
