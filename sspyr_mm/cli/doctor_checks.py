"""The checks of ``python -m sspyr_mm doctor``.

Every one works on a broken stack: modules are found by their metadata, and what has to be imported (torch, OpenCV, the
package itself) is imported where a failure is an answer.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from sspyr_mm import compat
from sspyr_mm.version import __version__

OK, NOTE, PROBLEM = "ok", "note", "problem"
# Data sets of the shipped configs, as links below the working directory, with what reads them.
DATA_LINKS = {
    "data/coco": "configs/ssprl/r50_coco_*.py",
    "data/imagenet": "configs/ssprl/r50_in1k_*.py",
}
NUM_DECODED = 8
SETUP = "bash tools/setup_env.sh"


@dataclass(frozen=True)
class Finding:
    """What one check found.

    Args:
        name (str): What was looked at.
        level (str): 'ok'; 'note': pre-training runs, something else may not; 'problem': pre-training
            can't run.
        found (str): What is there.
        remedy (str): How to mend it; empty when there is nothing to mend. Defaults to ''.
    """

    name: str
    level: str
    found: str
    remedy: str = ""


def check_python() -> Iterator[Finding]:
    """Looks at the interpreter.

    Yields:
        Finding: Its version and place.
    """
    found = f"{platform.python_version()} ({sys.executable})"
    yield Finding("Python", OK, found)
    yield Finding("sspyr_mm", OK, f"{__version__} ({Path(__file__).parents[1]})")


def check_stack() -> Iterator[Finding]:
    """Looks for torch and the OpenMMLab modules by their metadata.

    Yields:
        Finding: One for each module.
    """
    for module, (lowest, too_new) in compat.REQUIRED.items():
        description = _describe(module)
        if description is None:
            yield Finding(module, PROBLEM, "missing", compat.remedy())
        elif compat.fits(module):
            yield Finding(module, OK, description)
        else:
            remedy = f"{module} >= {lowest}, < {too_new} is needed. {compat.remedy()}"
            yield Finding(module, PROBLEM, description, remedy)
    for module, use in (("mmdet", "detection"), ("mmseg", "segmentation")):
        description = _describe(module)
        if description is None:
            remedy = f"only {use} needs it: {SETUP}"
            yield Finding(module, NOTE, "missing", remedy)
        else:
            yield Finding(module, OK, description)
    mixed = compat.mixed_distributions()
    if mixed:
        yield Finding("mixed stack", PROBLEM, mixed, f"or a fresh environment: {SETUP}")
    numpy = compat.find_distribution("numpy")
    if numpy is None:
        yield Finding("numpy", PROBLEM, "missing", SETUP)
    else:
        yield Finding("numpy", OK, numpy[1])


def check_opencv() -> Iterator[Finding]:
    """Looks for OpenCV, which mmcv imports, and for distributions of it that overwrite one another.

    Yields:
        Finding: What is installed, and whether it can be imported.
    """
    names = (
        "opencv-python",
        "opencv-python-headless",
        "opencv-contrib-python",
        "opencv-contrib-python-headless",
    )
    pairs = [compat.find_distribution(name) for name in names]
    there = dict(pair for pair in pairs if pair)
    text = ", ".join(f"{name} {version}" for name, version in there.items()) or "missing"
    if len(set(there.values())) > 1:
        last = max(there.values(), key=compat.release)
        same = " ".join(f"{name}=={last}" for name in there)
        remedy = f"they overwrite each other's files; bring them to one version: pip install {same}"
        yield Finding("OpenCV", NOTE, text, remedy)
    try:
        import cv2
    except Exception as error:
        found = f"{text}; import fails: {error}"
        if "libGL" in str(error) or "libgthread" in str(error):
            remedy = (
                "apt-get install libgl1 libglib2.0-0, or the build without windows: pip uninstall opencv-python && "
                "pip install --force-reinstall opencv-python-headless"
            )
        else:
            remedy = f"pip install --force-reinstall opencv-python-headless, or {SETUP}"
        yield Finding("OpenCV", PROBLEM, found, remedy)
        return
    if len(set(there.values())) <= 1:
        yield Finding("OpenCV", OK, text if there else f"{cv2.__version__}")


def check_torch() -> Iterator[Finding]:
    """Imports torch and looks at the GPUs that it sees, and at those that it does not.

    Yields:
        Finding: Whether torch can be imported; the GPUs.
    """
    if not compat.is_importable("torch"):
        return  # check_stack() has said so
    try:
        import torch
    except Exception as error:
        yield Finding("torch import", PROBLEM, f"fails: {_last_line(str(error))}", SETUP)
        return
    driver = _nvidia_driver()
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            gpu = torch.cuda.get_device_properties(index)
            half = "bfloat16" if torch.cuda.is_bf16_supported() else "float16 only"
            found = (
                f"{gpu.name}, {gpu.total_memory / 2**30:.0f} GiB, {half}, driver {driver or '?'}"
            )
            yield Finding(f"GPU {index}", OK, f"{found}, CUDA {torch.version.cuda}")
        return
    if driver is None:
        found = "none: training runs on the CPU (several processes with gloo)"
        yield Finding("GPU", OK, found)
        return
    if os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1"):
        remedy = "unset CUDA_VISIBLE_DEVICES to use it"
    elif torch.version.cuda is None:
        remedy = "this torch is built without CUDA: install one with it"
    else:
        remedy = (
            f"torch is built for CUDA {torch.version.cuda}: update the driver, or install a torch built "
            "for the CUDA version that `nvidia-smi` shows"
        )
    yield Finding("GPU", NOTE, f"driver {driver}, but torch sees no GPU", remedy)


def check_ops() -> Iterator[Finding]:
    """Looks for mmcv's compiled ops and loads them without mmcv itself.

    Yields:
        Finding: Whether they are there and fit this torch.
    """
    if not compat.is_importable("mmcv"):
        return
    spec = importlib.util.find_spec("mmcv")
    folders = (spec.submodule_search_locations if spec else None) or []
    files = [path for folder in folders for path in Path(folder).glob("_ext*.*")]
    use = "pre-training, classification and segmentation run without; detection needs them"
    if not files:
        yield Finding("mmcv ops", NOTE, "not compiled", f"{use}: {SETUP}")
        return
    try:
        import torch  # noqa: F401  (its libraries are what the ops are linked to)

        extension = importlib.util.spec_from_file_location("mmcv._ext", files[0])
        assert extension is not None
        importlib.util.module_from_spec(extension)
    except Exception as error:
        found = f"built for another torch or Python: {_last_line(str(error))}"
        yield Finding("mmcv ops", NOTE, found, f"{use}: {SETUP}")
        return
    yield Finding("mmcv ops", OK, files[0].name)


def check_machine() -> Iterator[Finding]:
    """Looks at cores, memory, and the shared memory that data loader workers hand batches through.

    Yields:
        Finding: One for each.
    """
    affinity = getattr(os, "sched_getaffinity", None)
    cores = len(affinity(0)) if affinity else os.cpu_count() or 1
    yield Finding("cores", OK, str(cores))
    memory = _memory_limit()
    if memory is not None:
        found = f"{memory / 2**30:.1f} GiB"
        if memory < 4 * 2**30:
            remedy = (
                "smaller batches and fewer workers: --cfg-options train_dataloader.batch_size=16 "
            )
            yield Finding("memory", NOTE, found, remedy + "train_dataloader.num_workers=1")
        else:
            yield Finding("memory", OK, found)
    if Path("/dev/shm").is_dir():
        free = shutil.disk_usage("/dev/shm").free
        found = f"{free / 2**30:.1f} GiB free"
        if free < 2**29:
            remedy = (
                "workers may die with 'Bus error': docker run --shm-size=8g (or --ipc=host), or "
                "--cfg-options train_dataloader.num_workers=0"
            )
            yield Finding("/dev/shm", NOTE, found, remedy)
        else:
            yield Finding("/dev/shm", OK, found)


def check_links() -> Iterator[Finding]:
    """Looks for the data sets of the shipped configs below the working directory.

    Yields:
        Finding: One for each place.
    """
    for name, use in DATA_LINKS.items():
        path = Path(name)
        if path.is_symlink() and not path.exists():
            found = f"a link to {os.readlink(path)}, which is not there"
            yield Finding(name, NOTE, found, f"ln -sfn /path/to/{path.name} {name}")
        elif not path.exists():
            remedy = f"{use} read it: ln -s /path/to/{path.name} {name}"
            yield Finding(name, NOTE, "not there", remedy)
        elif not os.access(path, os.R_OK | os.X_OK):
            yield Finding(name, NOTE, "not readable", f"chmod -R u+rX {path.resolve()}")
        else:
            yield Finding(name, OK, str(path.resolve()))


def check_package() -> Iterator[Finding]:
    """Imports the package with all its components, in a process of its own.

    Yields:
        Finding: Whether every component registers, and the last line of the error otherwise.
    """
    code = "import sspyr_mm; from mmpretrain.registry import MODELS; assert MODELS.get('SSPRL')"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    if result.returncode == 0:
        yield Finding("components", OK, "registered")
    else:
        found = _last_line(result.stderr) or f"exit status {result.returncode}"
        remedy = f"see the problems above; the whole error: {sys.executable} -c 'import sspyr_mm'"
        yield Finding("components", PROBLEM, found, remedy)


def check_data(path: str) -> Iterator[Finding]:
    """Lists images as training would, and decodes a few.

    Args:
        path (str): A folder, a list file or a COCO annotation file.

    Yields:
        Finding: How many images there are, and which of the tried ones can't be decoded.
    """
    try:
        from sspyr_mm.datasets.unlabelled import UnlabelledImages
    except Exception as error:
        yield Finding(
            path, PROBLEM, f"not checked: {_last_line(str(error))}", "mend the stack first"
        )
        return
    try:
        items = UnlabelledImages(path, lazy_init=True).load_data_list()
    except (OSError, ValueError) as error:
        yield Finding(path, PROBLEM, str(error), "see the message")
        return
    step = max(1, len(items) // NUM_DECODED)
    tried = [item["img_path"] for item in items[::step]][:NUM_DECODED]
    bad = [f"{image} ({why})" for image in tried if (why := _decode_error(image))]
    if not bad:
        yield Finding(path, OK, f"{len(items)} images, {len(tried)} tried and decoded")
        return
    found = f"{len(items)} images; {len(bad)} of {len(tried)} tried can't be decoded: {bad[0]}"
    remedy = (
        "is the copy complete? remove or replace such files (training leaves them out one by one)"
    )
    yield Finding(path, PROBLEM if len(bad) == len(tried) else NOTE, found, remedy)


def _describe(module: str) -> str | None:
    found = compat.find_distribution(module)
    if found is None:
        return "found on the path, version unknown" if compat.is_importable(module) else None
    name, version = found
    if not compat.is_importable(module):
        return f"{version} ({name}; but `import {module}` finds nothing)"
    if not module.startswith("mm"):
        return version
    return f"{version} ({'fork ' if name.startswith('onedl-') else 'original '}{name})"


def _nvidia_driver() -> str | None:
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        result = subprocess.run(command, capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return None
    lines = result.stdout.split()
    return lines[0] if result.returncode == 0 and lines else None


def _memory_limit() -> int | None:
    """Bytes of memory this process may use: the machine's, or the container's where that is less."""
    limits = []
    with contextlib.suppress(AttributeError, OSError, ValueError):
        limits.append(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    for name in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            limits.append(int(Path(name).read_text()))
        except (OSError, ValueError):  # 'max', or no such file
            continue
    return min(limits, default=None)


def _decode_error(path: str) -> str | None:
    from PIL import Image

    try:
        with Image.open(path) as image:
            image.load()
    except Exception as error:  # Pillow raises whatever its decoders do
        return f"{type(error).__name__}: {_last_line(str(error))}"
    return None


def _last_line(text: str) -> str:
    lines = [line for line in text.splitlines() if line.strip()]
    return lines[-1].strip() if lines else ""
