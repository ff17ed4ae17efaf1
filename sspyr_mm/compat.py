"""Compatibility with the original OpenMMLab distributions and with their forks.

Only metadata is read: mmpretrain, mmdet and mmseg are not imported.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import importlib.util
import io
import logging
import re
import sys
import warnings
from collections.abc import Iterator

from packaging.specifiers import SpecifierSet
from packaging.version import Version

# Import name -> distributions that provide it, originals first.
DISTRIBUTIONS: dict[str, tuple[str, ...]] = {
    "mmcv": ("mmcv", "mmcv-lite", "mmcv-full", "onedl-mmcv"),
    "mmdet": ("mmdet", "onedl-mmdetection"),
    "mmengine": ("mmengine", "mmengine-lite", "onedl-mmengine"),
    "mmpretrain": ("mmpretrain", "onedl-mmpretrain"),
    "mmseg": ("mmsegmentation", "onedl-mmsegmentation"),
    "torch": ("torch",),
    "torchvision": ("torchvision",),
}

# Supported versions of the modules that pre-training needs.
REQUIRED: dict[str, str] = {
    "torch": ">= 2.1, < 3",
    "torchvision": ">= 0.16, < 1",
    "mmengine": ">= 0.8.3, < 1",
    "mmcv": ">= 2.0, < 3",
    "mmpretrain": ">= 1.0, < 2",
}

# Full texts of the stack's warnings about parts that this package does not use; all other warnings stay visible.
_LOGGED = {
    # mmdet 3.5 (fork), on import
    "Line NMS is not compiled. Most likely when installing the package cuda was not available.\n"
    "This model cannot work without CUDA, therefore you need to recompile the package with CUDA support.\n"
    "To make sure that the package is compiled with CUDA support use FORCE_CUDA=1 mim install -e .\n",
    # mmengine 0.10, from CheckpointHook
    '"HardDiskBackend" is the alias of "LocalBackend" and the former will be deprecated in future.',
    *(
        f'"FileClient" will be deprecated in future. Please use io functions in https://{host}.readthedocs.io/en/latest/'
        "api/fileio.html#file-io"
        for host in ("mmengine", "onedl-mmengine")
    ),
}
# mmcv 2 without compiled ops, on import
_WARNED = (
    "Fail to import ``MultiScaleDeformableAttention`` from ``mmcv.ops.multi_scale_deform_attn``, You should install "
    "``mmcv`` rather than ``mmcv-lite`` if you need this module. "
)


def check_versions() -> None:
    """Checks that the dependencies of pre-training are installed in supported versions.

    Raises:
        ImportError: If a module is missing, too old or too new. The message names the installed version, the
            required range and the remedy.
    """
    problems = []
    for module, versions in REQUIRED.items():
        if not fits(module):
            found = find_distribution(module)
            state = f"{' '.join(found)} is not supported" if found else f"{module} is missing"
            problems.append(f"{state} (required: {module} {versions})")
    if mixed := mixed_distributions():
        problems.append(mixed)
    if problems:
        raise ImportError(f"sspyr_mm cannot run: {'; '.join(problems)}. {remedy()}")


def fits(module: str) -> bool:
    """Returns whether a module of ``REQUIRED`` can be imported and has a supported version."""
    if not is_importable(module):
        return False
    found = find_distribution(module)
    if found is None:  # from a source tree, which has no metadata
        return True
    # Without pre-release and local parts: 2.1rc1 and 2.1+cu121 count as 2.1.
    return Version(found[1]).base_version in SpecifierSet(REQUIRED[module])


def find_distribution(module: str) -> tuple[str, str] | None:
    """Returns name and version of the distribution that provides a module (or has this name), without importing it.

    None without one; the module may still be importable, from a source tree on ``PYTHONPATH``.
    """
    return next(iter(_find_distributions(module)), None)


def _find_distributions(module: str) -> list[tuple[str, str]]:
    found = []
    for name in DISTRIBUTIONS.get(module, (module,)):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found.append((name, importlib.metadata.version(name)))
    return found


def is_importable(module: str) -> bool:
    """Returns whether a top-level module can be found, without importing it; a folder without code does not count."""
    try:
        spec = importlib.util.find_spec(module)
    except (ImportError, ValueError):
        return False
    return spec is not None and spec.origin is not None


def mixed_distributions() -> str | None:
    """Describes originals and forks installed over one another; None without a conflict."""
    for module in DISTRIBUTIONS:
        names = [name for name, _ in _find_distributions(module)]
        if len(names) > 1:
            return (
                f"{' and '.join(names)} are both installed and overwrite each other's files "
                f"(run `pip uninstall {' '.join(names)}`, then install one of them)"
            )
    return None


def remedy() -> str:
    """Describes how to install a supported stack: the originals if one of them is installed, otherwise the forks."""
    installed = [name for module in DISTRIBUTIONS for name, _ in _find_distributions(module)]
    if any(name.startswith("mm") for name in installed):
        own = (
            "with the original OpenMMLab distributions, run "
            "`pip install -U openmim && mim install mmengine mmcv mmpretrain`."
        )
    else:
        own = "run `pip install torch torchvision && pip install -r requirements/mminstall.txt`."
    return (
        "`bash tools/setup_env.sh --no-ops` in the repository creates an environment with tested versions; "
        f"in your own environment {own}"
    )


def register_forks() -> None:
    """Makes ``mmdet::`` and ``mmseg::`` bases resolvable, of the originals or of the forks, whichever are installed.

    mmengine looks a base up by the name of the original distribution and reports a fork, whose module has
    the same name, as not installed. The entry is changed only where that distribution is absent and
    the module importable; mmengine then finds the module itself. ``sspyr_mm::`` bases also work.
    """
    from mmengine.config.utils import MODULE2PACKAGE

    for module in ("mmpretrain", "mmdet", "mmseg", "sspyr_mm"):
        distribution = MODULE2PACKAGE.get(module)
        if is_importable(module) and not (distribution and find_distribution(distribution)):
            MODULE2PACKAGE[module] = module


@contextlib.contextmanager
def quiet_imports() -> Iterator[None]:
    """Redirects the prints of imports to stderr: stdout is for the output of a command, such as JSON.

    Forks print the optional parts they lack. Lines about a product of the fork itself are dropped, and so are the
    stack's warnings about parts that are not used here.
    """
    from mmengine.logging import MMLogger

    quiet_logger(MMLogger.get_current_instance())
    warnings.filterwarnings("ignore", f"{re.escape(_WARNED)}$", UserWarning)
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        yield
    for line in printed.getvalue().splitlines():
        if not line.startswith("Could not import OneDL"):
            print(line, file=sys.stderr)


def quiet_logger(logger: logging.Logger) -> None:
    """Drops the stack's warnings about parts that this package does not use from a logger."""
    logger.addFilter(_is_needed)


def _is_needed(record: logging.LogRecord) -> bool:
    return record.getMessage() not in _LOGGED
