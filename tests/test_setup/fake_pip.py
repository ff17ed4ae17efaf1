"""Stands in for pip in the environments of test_setup_env.py: writes metadata in place of gigabytes.

Runs as ``python -m pip`` and logs its arguments and constraints to $FAKE_LOG. $FAKE_FAIL and $FAKE_KILL name a word at
which an install fails or the calling script is killed; $FAKE_OPS is the source of the ops of a compiled wheel.
"""

import json
import os
import re
import shutil
import signal
import sys
import sysconfig
import time
import zipfile
from pathlib import Path

SITE = Path(sysconfig.get_paths()["purelib"])
TORCH = """
__version__ = "{}+cu130"
class version: cuda = "13.0"
class cuda: device_count = staticmethod(lambda: 0)
"""


def read_lines(option):
    paths = [b for a, b in zip(sys.argv, sys.argv[1:], strict=False) if a == option]
    paths += [a.removeprefix(option) for a in sys.argv if a.startswith(option) and a != option]
    return [line for path in paths for line in Path(path).read_text().splitlines()]


def install(name, version):
    for old in SITE.glob(f"{name}-*.dist-info"):
        shutil.rmtree(old)
    info = SITE / f"{name}-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    module = {"torch": "torch", "onedl_mmcv": "mmcv"}.get(name)
    if module:
        shutil.rmtree(SITE / module, ignore_errors=True)
        (SITE / module).mkdir()
        (SITE / module / "__init__.py").write_text(TORCH.format(version) * (name == "torch"))


def install_all():
    pins = dict(re.findall(r"^([\w-]+)==(\S+)", "\n".join(read_lines("-c")), re.M))
    items = [item for item in sys.argv[2:] if not item.startswith(("-", "/")) and item != "."]
    items += re.findall(r"^[\w-]+", "\n".join(read_lines("-r")), re.M)
    items += ["sspyr_mm"] * ("-e" in sys.argv)
    for item in items:
        if os.environ.get("FAKE_FAIL") == item:
            sys.exit(f"no network for {item}")
        if os.environ.get("FAKE_KILL") == item:
            os.kill(os.getppid(), signal.SIGKILL)
            sys.exit(1)
        name, _, version = item.partition("==")
        version, old = version or pins.get(name), list(SITE.glob(f"{name.replace('-', '_')}-*"))
        if not old or (version and version not in old[0].name) or "--force-reinstall" in sys.argv:
            install(name.replace("-", "_"), version or "1.0")
    for path in (item for item in sys.argv if item.endswith(".whl")):
        install("onedl_mmcv", Path(path).name.split("-")[1])
        zipfile.ZipFile(path).extractall(SITE)


def build_wheel():
    if os.environ.get("FAKE_FAIL") == "compile":
        sys.exit("fatal error: no such header")
    time.sleep(float(os.environ.get("FAKE_SECONDS", "0")))
    folder = Path(sys.argv[sys.argv.index("-w") + 1])
    folder.mkdir(parents=True)
    version = sys.argv[-1].partition("==")[2]
    with zipfile.ZipFile(folder / f"onedl_mmcv-{version}-cp311-cp311-linux.whl", "w") as archive:
        archive.writestr("mmcv/_ext.py", os.environ.get("FAKE_OPS", ""))


if __name__ == "__main__":
    with open(os.environ["FAKE_LOG"], "a", encoding="utf-8") as log:
        log.write(json.dumps([sys.argv[1:], read_lines("-c")]) + "\n")
    install_all() if sys.argv[1] == "install" else build_wheel()
