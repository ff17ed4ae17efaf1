"""Stands in for pip in the environments of test_setup_env.py: writes metadata instead of downloading gigabytes.

Run as ``python -m pip``. Every call is logged to $FAKE_PIP_LOG. $FAKE_PIP_FAIL and $FAKE_PIP_KILL name a word on whose
sight an install fails, or kills the script that called; $FAKE_WHEEL says what becomes of a build.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import sysconfig
import time
import zipfile
from pathlib import Path

SITE = Path(sysconfig.get_paths()["purelib"])
TORCH = """
__version__ = "{version}"
class version:
    cuda = "13.0"
    hip = None
class cuda:
    @staticmethod
    def is_available():
        return False
"""


def add(name, version, files=()):
    for old in SITE.glob(f"{name.replace('-', '_')}-*.dist-info"):
        shutil.rmtree(old)
    info = SITE / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    (info / "RECORD").write_text("".join(f"{file},,\n" for file in (*files, f"{info.name}/METADATA")))


def module(name, text=""):
    (SITE / name).mkdir(exist_ok=True)
    (SITE / name / "__init__.py").write_text(text)
    return [f"{name}/__init__.py"]


def installed():
    return {path.name.split("-")[0].replace("_", "-") for path in SITE.glob("*.dist-info")}


def read_lines(path):
    lines = (line.split("#")[0].strip() for line in Path(path).read_text().splitlines())
    return [line for line in lines if line]


def install(arguments):
    wanted, pins, force = [], {}, False
    queue = list(arguments)
    while queue:
        item = queue.pop(0)
        if item == "-c":
            pins.update(line.split("==") for line in read_lines(queue.pop(0)))
        elif item == "-r":
            wanted += read_lines(queue.pop(0))
        elif item == "-e":
            queue.pop(0)
            wanted.append("sspyr_mm==0")
        elif item == "--force-reinstall":
            force = True
        elif not item.startswith("-"):
            wanted.append(item)
    for item in wanted:
        if os.environ.get("FAKE_PIP_FAIL", "\0") in item:
            sys.exit("ERROR: No matching distribution found (on purpose)")
        if os.environ.get("FAKE_PIP_KILL", "\0") in item:
            add("half", "1")
            os.kill(os.getppid(), signal.SIGKILL)
            sys.exit(1)
        if item.endswith(".whl"):
            with zipfile.ZipFile(item) as wheel:
                wheel.extractall(SITE)
                add("onedl-mmcv", Path(item).name.split("-")[1], wheel.namelist())
            continue
        name, _, version = item.partition("==")
        name = re.split(r"[<>=]", name)[0].replace("_", "-")
        version = version or pins.get(name, "1.0")
        if name in installed() and not force:
            continue
        files = ()
        if name == "torch":
            files = module("torch", TORCH.format(version=version))
        elif name == "onedl-mmcv":
            shutil.rmtree(SITE / "mmcv", ignore_errors=True)
            files = module("mmcv")
        add(name, version, files)


def wheel(arguments):
    mode = os.environ.get("FAKE_WHEEL", "good")
    out = Path(arguments[arguments.index("-w") + 1])
    version = arguments[-1].partition("==")[2]
    for done in (1, 2, 3):
        print(f"[{done}/3] c++ -c something", flush=True)
    if mode == "fail":
        sys.exit("fatal error: no such header (on purpose)")
    if mode == "hang":
        compiler = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(120)"])
        Path(os.environ["FAKE_PIP_LOG"]).with_name("compiler").write_text(str(compiler.pid))
        time.sleep(120)
    if mode == "slow":
        time.sleep(3)
    out.mkdir(parents=True, exist_ok=True)
    name = out / f"onedl_mmcv-{version}-cp311-cp311-linux_x86_64.whl"
    with zipfile.ZipFile(name, "w") as archive:
        archive.writestr("mmcv/__init__.py", "")
        if mode != "pure":
            text = "raise ImportError('undefined symbol')" if mode == "unloadable" else ""
            archive.writestr("mmcv/_ext.py", text)
        # As in the real one, the list of names is longer than a pipe holds, and the ops are not at its end.
        for index in range(1500):
            archive.writestr(f"mmcv/ops/{index:030}.py", "")


if __name__ == "__main__":
    environment = {name: os.environ.get(name) for name in ("MAX_JOBS", "CUDA_VISIBLE_DEVICES")}
    with open(os.environ["FAKE_PIP_LOG"], "a", encoding="utf-8") as log:
        constraints = [Path(sys.argv[i + 1]).read_text() for i, a in enumerate(sys.argv) if a == "-c"]
        log.write(json.dumps([sys.argv[1:], constraints, environment]) + "\n")
    {"install": install, "wheel": wheel}[sys.argv[1]](sys.argv[2:])
