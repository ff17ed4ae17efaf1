"""Packaging, the OpenMMLab way: requirements from ``requirements/``, configs and tools as ``sspyr_mm/.mim``."""

import os
import re
import shutil
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).resolve().parent
PACKAGE = "sspyr_mm"
MIM_DATA = ("configs", "tools", "model-index.yml")


def read_version() -> str:
    text = (ROOT / PACKAGE / "version.py").read_text(encoding="utf-8")
    match = re.search(r'^__version__ = "(.+)"', text, re.M)
    if match is None:
        raise RuntimeError(f'{PACKAGE}/version.py has no line __version__ = "..."')
    return match.group(1)


def read_requirements(name: str) -> list[str]:
    lines = (ROOT / "requirements" / f"{name}.txt").read_text(encoding="utf-8").splitlines()
    return [line for line in (raw.split("#")[0].strip() for raw in lines) if line]


class BuildWithMimData(build_py):
    """Ships ``.mim``: copied into wheels, linked next to the sources of an editable install."""

    def run(self) -> None:
        if not self.editable_mode:
            # `build/lib` outlives a build: files deleted since then would be shipped again.
            shutil.rmtree(Path(self.build_lib) / PACKAGE, ignore_errors=True)
        super().run()
        if self.editable_mode:
            self._place(ROOT / PACKAGE / ".mim", link=True)
        else:
            self._place(Path(self.build_lib) / PACKAGE / ".mim", link=False)

    @staticmethod
    def _place(folder: Path, *, link: bool) -> None:
        if folder.is_symlink():
            folder.unlink()
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        for name in MIM_DATA:
            source, target = ROOT / name, folder / name
            if not source.exists():
                continue
            if link:
                try:
                    target.symlink_to(os.path.relpath(source, folder))
                    continue
                except OSError:  # file systems and Windows accounts without symbolic links
                    pass
            if source.is_dir():
                ignore = shutil.ignore_patterns("__pycache__", "*.py[cod]")
                shutil.copytree(source, target, ignore=ignore)
            else:
                shutil.copy2(source, target)


setup(
    name=PACKAGE,
    version=read_version(),
    description="SS-PRL pre-training of vision backbones without labels, as an OpenMMLab plugin",
    long_description=(ROOT / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    packages=find_packages(include=(PACKAGE, f"{PACKAGE}.*")),
    package_data={PACKAGE: ["py.typed", "reports/page/*", "reports/atlas/site/*"]},
    python_requires=">=3.10",
    install_requires=read_requirements("runtime"),
    extras_require={
        "compare": read_requirements("compare"),
        "docs": read_requirements("docs"),
        "features": read_requirements("features"),
        "lint": read_requirements("lint"),
        "mminstall": read_requirements("mminstall"),
        "streaming": read_requirements("streaming"),
        "tests": read_requirements("tests"),
        "torch": read_requirements("torch"),
    },
    entry_points={"console_scripts": ["sspyr = sspyr_mm.__main__:main"]},
    cmdclass={"build_py": BuildWithMimData},
    zip_safe=False,
)
