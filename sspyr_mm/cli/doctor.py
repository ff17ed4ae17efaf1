"""``python -m sspyr_mm doctor``: checks whether this machine can pre-train, and names the remedies.

Every check works on a broken stack: modules are found by their metadata, and a failing import is reported.
"""

from __future__ import annotations

import argparse
import ctypes
import importlib.util
import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from packaging.version import Version

from sspyr_mm import compat
from sspyr_mm.machine import num_cores
from sspyr_mm.version import __version__

OK, NOTE, PROBLEM = "ok", "note", "problem"
"""Levels. With a note, pre-training runs, but something else may not; with a problem, it can't run."""
MARKS = {OK: "✓", NOTE: "!", PROBLEM: "✗"}
SETUP = "bash tools/setup_env.sh"
OPENCV = ("opencv-python", "opencv-python-headless", "opencv-contrib-python", "opencv-contrib-python-headless")
# Data sets of the shipped configs, as links below the working directory -> configs that read them.
DATA_LINKS = {
    "data/coco": "configs/ssprl/r50_coco_*.py",
    "data/imagenet": "configs/ssprl/r50_in1k_*.py",
    "data/VOCdevkit/VOC2007": "linear_voc07 and faster-rcnn of configs/benchmarks",
    "data/VOCdevkit/VOC2012": "fcn and faster-rcnn of configs/benchmarks",
}
NUM_DECODED = 8  # images of each --data
GIB = 2**30


@dataclass(frozen=True)
class Finding:
    """Result of one check; ``remedy`` is empty if none is needed."""

    name: str
    level: str
    found: str
    remedy: str = ""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the arguments of the command."""
    what = "images to check as well: folders, list files (.txt) or COCO annotations (.json)"
    parser.add_argument("--data", nargs="+", default=[], metavar="PATH", help=what)
    parser.add_argument("--json", action="store_true", help="print the findings as JSON")
    parser.add_argument("--quick", action="store_true", help="skip the import of the package")


def run(args: argparse.Namespace) -> int:
    """Runs all checks and prints their findings.

    Returns:
        0 if pre-training can run, also on the data of ``--data``; otherwise 1.
    """
    findings = []
    for finding in _examine(args):
        findings.append(finding)
        if not args.json:
            print(f"{MARKS[finding.level]} {finding.name}: {finding.found}", flush=True)
            if finding.remedy:
                print(f"    → {finding.remedy}", flush=True)
    count = sum(finding.level == PROBLEM for finding in findings)
    if args.json:
        print(json.dumps({"ready": count == 0, "findings": [asdict(finding) for finding in findings]}, indent=2))
    elif count:
        print(f"\nPre-training can't run: {count} problem{'s' * (count > 1)}, marked ✗ above.")
    else:
        print("\nPre-training can run.")
    return int(count > 0)


def _examine(args: argparse.Namespace) -> Iterator[Finding]:
    yield Finding("Python", OK, f"{platform.python_version()} ({sys.executable})")
    yield Finding("sspyr_mm", OK, f"{__version__} ({Path(__file__).parents[1]})")
    for check in (check_stack, check_opencv, check_torch, check_ops, check_machine, check_links):
        yield from check()
    if not args.quick:
        yield check_package()
    for path in args.data:
        yield check_data(path)


def check_stack() -> Iterator[Finding]:
    """Checks torch, the OpenMMLab modules and NumPy by their metadata."""
    for module, versions in compat.REQUIRED.items():
        finding = _find(module, PROBLEM, compat.remedy())
        if finding.level == OK and not compat.fits(module):
            finding = Finding(module, PROBLEM, finding.found, f"{module} {versions} is needed. {compat.remedy()}")
        yield finding
    yield _find("mmdet", NOTE, f"only detection needs it: {SETUP}")
    yield _find("mmseg", NOTE, f"only segmentation needs it: {SETUP}")
    yield _find("numpy", PROBLEM, SETUP)
    if mixed := compat.mixed_distributions():
        yield Finding("mixed stack", PROBLEM, mixed, f"or create a fresh environment: {SETUP}")


def _find(module: str, level: str, remedy: str) -> Finding:
    """Returns the version of a module; if it can't be imported, a finding of the given level."""
    name, version = compat.find_distribution(module) or ("", "version unknown")
    if not compat.is_importable(module):
        return Finding(module, level, f"{name} {version}, without its files" if name else "missing", remedy)
    if module.startswith("mm") and name:
        version += f" ({'fork' if name.startswith('onedl-') else 'original'} {name})"
    return Finding(module, OK, version)


def check_opencv() -> Iterator[Finding]:
    """Checks OpenCV, which mmcv imports, and detects distributions of it that overwrite one another."""
    installed = dict(filter(None, map(compat.find_distribution, OPENCV)))
    text = ", ".join(f"{name} {version}" for name, version in installed.items()) or "missing"
    try:
        import cv2
    except Exception as error:
        remedy = (
            "of a missing libGL or libgthread: apt-get install libgl1 libglib2.0-0; otherwise: pip uninstall "
            f"opencv-python && pip install --force-reinstall opencv-python-headless, or {SETUP}"
        )
        yield Finding("OpenCV", PROBLEM, f"{text}; import fails: {error}", remedy)
        return
    if len(set(installed.values())) > 1:
        last = max(installed.values(), key=Version)
        same = " ".join(f"{name}=={last}" for name in installed)
        remedy = f"they overwrite each other's files; install the same version of each: pip install {same}"
        yield Finding("OpenCV", NOTE, text, remedy)
    else:
        yield Finding("OpenCV", OK, text if installed else cv2.__version__)


def check_torch() -> Iterator[Finding]:
    """Imports torch, lists the GPUs that it detects, and reports a GPU that it does not."""
    if not compat.is_importable("torch"):
        return  # reported by check_stack()
    try:
        import torch
    except Exception as error:
        yield Finding("torch import", PROBLEM, f"fails: {_last_line(error)}", SETUP)
        return
    driver = _nvidia_driver()
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            gpu = torch.cuda.get_device_properties(index)
            half = "bfloat16" if torch.cuda.is_bf16_supported() else "float16 only"
            found = f"{gpu.name}, {gpu.total_memory / GIB:.0f} GiB, {half}, driver {driver or '?'}"
            yield Finding(f"GPU {index}", OK, f"{found}, CUDA {torch.version.cuda}")
        return
    if driver is None:
        yield Finding("GPU", OK, "none: training runs on the CPU (several processes with gloo)")
        return
    if os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1"):
        remedy = "unset CUDA_VISIBLE_DEVICES to use it"
    else:
        cuda = torch.version.cuda
        build = f"for CUDA {cuda}: update the driver, or" if cuda else "without CUDA:"
        remedy = f"torch is built {build} install a build for the CUDA that `nvidia-smi` shows"
    yield Finding("GPU", NOTE, f"driver {driver}, but torch sees no GPU", remedy)


def _nvidia_driver() -> str | None:
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        result = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return next(iter(result.stdout.split()), None)


def check_ops() -> Iterator[Finding]:
    """Finds mmcv's compiled ops and loads them without importing mmcv."""
    spec = importlib.util.find_spec("mmcv") if compat.is_importable("mmcv") else None
    if spec is None or spec.origin is None:
        return
    remedy = f"pre-training, classification and segmentation run without them; detection needs them: {SETUP}"
    file = next(Path(spec.origin).parent.glob("_ext*.*"), None)
    if file is None:
        yield Finding("mmcv ops", NOTE, "not compiled", remedy)
        return
    try:
        import torch  # noqa: F401  (the ops are linked to its libraries)

        ctypes.CDLL(str(file))
    except Exception as error:
        yield Finding("mmcv ops", NOTE, f"built for another torch or Python: {_last_line(error)}", remedy)
        return
    yield Finding("mmcv ops", OK, file.name)


def check_machine() -> Iterator[Finding]:
    """Checks cores, and the shared memory through which data loader workers pass batches."""
    yield Finding("cores", OK, str(num_cores()))
    if Path("/dev/shm").is_dir():
        free = shutil.disk_usage("/dev/shm").free / GIB
        remedy = (
            "workers may die with 'Bus error': docker run --shm-size=8g (or --ipc=host), or "
            "--cfg-options train_dataloader.num_workers=0"
        )
        is_enough = free >= 0.5
        yield Finding("/dev/shm", OK if is_enough else NOTE, f"{free:.1f} GiB free", "" if is_enough else remedy)


def check_links() -> Iterator[Finding]:
    """Checks the data sets of the shipped configs below the working directory."""
    for name, use in DATA_LINKS.items():
        path = Path(name)
        try:
            found = "" if any(path.iterdir()) else "empty"
        except FileNotFoundError:
            found = f"link to {os.readlink(path)}, which does not exist" if path.is_symlink() else "missing"
        except OSError as error:
            found = error.strerror or str(error)
        if found:
            yield Finding(name, NOTE, found, f"ln -sfn /path/to/{path.name} {name} (needed by {use})")
        else:
            yield Finding(name, OK, str(path.resolve()))


def check_package() -> Finding:
    """Imports the package with all its components in a separate process."""
    code = "import sspyr_mm.registration; from mmpretrain.registry import MODELS; assert MODELS.get('SSPRL')"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    if result.returncode == 0:
        return Finding("components", OK, "registered")
    found = _last_line(result.stderr) or f"exit status {result.returncode}"
    remedy = f"see the problems above; for the full error run {sys.executable} -c 'import sspyr_mm.registration'"
    return Finding("components", PROBLEM, found, remedy)


def check_data(path: str) -> Finding:
    """Lists images and decodes some of them, like training does."""
    try:
        from sspyr_mm.datasets import LoadRGBImage, UnlabelledImages
        from sspyr_mm.files import printable
    except Exception as error:
        return Finding(path, PROBLEM, f"not checked: {_last_line(error)}", "fix the installed packages first")
    try:
        paths = UnlabelledImages(path, lazy_init=True).list_images()
    except (OSError, ValueError) as error:
        return Finding(path, PROBLEM, str(error), "see the message")
    tried = paths[:: max(1, len(paths) // NUM_DECODED)][:NUM_DECODED]
    load = LoadRGBImage()
    bad = [image for image in tried if load.peek(image) is None]
    if not bad:
        return Finding(path, OK, f"{len(paths)} images, {len(tried)} tried and decoded")
    level = PROBLEM if len(bad) == len(tried) else NOTE
    found = f"{len(paths)} images; {len(bad)} of {len(tried)} tried can't be decoded: {printable(bad[0])}"
    remedy = "check that the copy is complete; remove or replace such files (training skips each of them)"
    return Finding(path, level, found, remedy)


def _last_line(text: object) -> str:
    """Returns the last line that is not empty; '' without one."""
    return str(text).strip().rpartition("\n")[2].strip()
