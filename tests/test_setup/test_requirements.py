"""Imported packages are declared in requirements/, and declared packages are imported."""

import ast
import re
import sys

import pytest
from packaging.version import Version
from project import ROOT

# Distribution -> module, where the names differ.
MODULES = {
    "faiss-cpu": "faiss",
    "umap-learn": "umap",
    "mkdocs-material": "mkdocs",
    "onedl-mmcv": "mmcv",
    "onedl-mmdetection": "mmdet",
    "onedl-mmengine": "mmengine",
    "onedl-mmpretrain": "mmpretrain",
    "onedl-mmsegmentation": "mmseg",
    "opencv-python": "cv2",
    "pillow": "PIL",
    "scikit-learn": "sklearn",
}
PACKAGE = ("runtime", "mminstall", "torch", "streaming", "compare", "features")
# Compared with if it is installed; a back end of the log; in an environment of its own.
OPTIONAL = {"lightly", "wandb", "fiftyone"}
# moto's server imports flask, nbclient starts ipykernel, torch.utils imports tensorboard; the others are plugins of
# pytest.
NOT_IMPORTED = {"flask", "flask-cors", "ipykernel", "pytest-timeout", "pytest-xdist", "tensorboard"}


def declared(*names):
    """Distributions of requirement files."""
    lines = [
        line.split("#")[0].strip()
        for name in names
        for line in (ROOT / "requirements" / f"{name}.txt").read_text().splitlines()
    ]
    return {re.match(r"[\w-]+", line).group() for line in lines if line}


def modules(*names):
    return {MODULES.get(name, name) for name in declared(*names)}


def imported(folder):
    """Top-level modules that files import, with one file each; imports that may fail are left out."""
    found = {}
    files = sorted((ROOT / folder).rglob("*.py"))
    for path in files:
        tree = ast.parse(path.read_text())
        tried = {
            node
            for block in ast.walk(tree)
            if isinstance(block, ast.Try) and any("ImportError" in ast.dump(h) for h in block.handlers)
            for statement in block.body
            for node in ast.walk(statement)
        }
        for node in ast.walk(tree):
            if isinstance(node, ast.Import) and node not in tried:
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node not in tried and node.module:
                names = [node.module]
            else:
                continue
            found.update({name.partition(".")[0]: path for name in names})
    own = {path.stem for path in files} | {path.name for path in (ROOT / folder).iterdir()}
    foreign = set(found) - own - set(sys.stdlib_module_names) - {"sspyr_mm"}
    return {name: found[name] for name in foreign}


@pytest.mark.parametrize(
    ("folder", "files"), [("sspyr_mm", PACKAGE), ("tools", (*PACKAGE, "docs")), ("tests", (*PACKAGE, "tests", "build"))]
)
def test_imported_packages_are_declared(folder, files):
    missing = {name: path for name, path in imported(folder).items() if name not in modules(*files) | OPTIONAL}
    assert not missing


def test_declared_packages_are_imported():
    assert modules("runtime") <= set(imported("sspyr_mm"))
    used = set(imported("tests"))
    assert {n for n in declared("tests") if MODULES.get(n, n) not in used} == NOT_IMPORTED
    assert modules("streaming") | modules("compare") | modules("features") <= set(imported("sspyr_mm"))


def test_pins_name_no_host_and_cover_every_declared_package():
    lines = (ROOT / "requirements/pins.txt").read_text().splitlines()
    assert not [line for line in lines if "://" in line or line.startswith("-")]
    pins = dict(re.findall(r"^([\w-]+)==([\w.]+)", "\n".join(lines), re.M))
    lists = {path.stem for path in (ROOT / "requirements").glob("*.txt")} - {"lowest"}
    names = declared(*lists)
    assert names - {"pip"} <= set(pins)
    # They overwrite each other's files.
    assert pins["opencv-python"] == pins["opencv-python-headless"]
    # mmcv compiles its ops as C++17, and its setup imports pkg_resources.
    assert Version(pins["torch"]) < Version("2.14")
    assert Version(pins["setuptools"]) < Version("81")


def test_setup_reads_these_files():
    text = (ROOT / "setup.py").read_text()
    assert 'install_requires=read_requirements("runtime")' in text
    assert {*PACKAGE, "tests"} <= set(re.findall(r'read_requirements\("(\w+)"\)', text))
