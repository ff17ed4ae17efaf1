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

from packaging.version import Version

__all__ = [
    "check_versions",
    "find_distribution",
    "fits",
    "has_originals",
    "is_importable",
    "mixed_distributions",
    "quiet_imports",
    "quiet_logger",
    "register_forks",
    "remedy",
]

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

# Module -> (lowest supported version, first unsupported version). Pre-training needs all of these.
REQUIRED: dict[str, tuple[str, str]] = {
    "torch": ("2.1", "3"),
    "torchvision": ("0.16", "1"),
    "mmengine": ("0.8.3", "1"),
    "mmcv": ("2.0", "3"),
    "mmpretrain": ("1.0", "2"),
}

# Full texts of the stack's warnings about parts that this package does not use; all other warnings stay visible.
_LOGGED = {
    # mmdet 3.5 (fork), on import
    "Line NMS is not compiled. Most likely when installing the package cuda was not available.\n"
    "This model cannot work without CUDA, therefore you need to recompile the package with CUDA support.\n"
    "To make sure that the package is compiled with CUDA support use FORCE_CUDA=1 mim install -e .\n",
    # mmengine 0.10, of its own CheckpointHook
    '"HardDiskBackend" is the alias of "LocalBackend" and the former will be deprecated in future.',
    *(
        f'"FileClient" will be deprecated in future. Please use io functions in https://{host}.readthedocs.io/en/latest/'
        "api/fileio.html#file-io"
        for host in ("mmengine", "onedl-mmengine")
    ),
}
_WARNED = (
    # mmcv 2 without compiled ops, on import
    "Fail to import ``MultiScaleDeformableAttention`` from ``mmcv.ops.multi_scale_deform_attn``, You should install "
    "``mmcv`` rather than ``mmcv-lite`` if you need this module. ",
)

_REMEDY = (
    "`bash tools/setup_env.sh --no-ops` in the repository creates an environment with tested versions; "
    "in your own environment "
)


def find_distribution(module: str) -> tuple[str, str] | None:
    """Finds the installed distribution that provides a module, without importing it.

    Args:
        module (str): Import name, one of ``DISTRIBUTIONS``.

    Returns:
        tuple[str, str] | None: Name and version of the first distribution found; None without one (the module
        may still be importable, from a source tree on ``PYTHONPATH``).
    """
    for name in DISTRIBUTIONS.get(module, (module,)):
        try:
            return name, importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return None


def is_importable(module: str) -> bool:
    """Returns whether a top-level module can be found, without importing it.

    Args:
        module (str): Import name without dots.

    Returns:
        bool: True when the import system finds a regular package or module of that name (a bare folder, which
        Python would take as a namespace package, does not count).
    """
    try:
        spec = importlib.util.find_spec(module)
    except (ImportError, ValueError):
        return False
    return spec is not None and spec.origin is not None


def register_forks() -> list[str]:
    """Lets configs inherit ``mmdet::`` and ``mmseg::`` bases of whichever distributions are installed.

    mmengine looks a base up by the name of the original distribution and reports a fork, whose module has
    the same name, as not installed. The entry is changed only where that distribution is absent and
    the module importable; mmengine then finds the module itself. ``sspyr_mm::`` bases also work.

    Returns:
        list[str]: Modules whose entry this call changed.
    """
    if not is_importable("mmengine"):  # reported by check_versions(), with the remedy
        return []
    from mmengine.config.utils import MODULE2PACKAGE

    changed = []
    for module in ("mmpretrain", "mmdet", "mmseg", "sspyr_mm"):
        distribution = MODULE2PACKAGE.get(module)
        if distribution == module or not is_importable(module):
            continue
        if distribution is not None and _is_installed(distribution):
            continue
        MODULE2PACKAGE[module] = module
        changed.append(module)
    return changed


@contextlib.contextmanager
def quiet_imports() -> Iterator[None]:
    """Redirects the prints of imports to stderr: stdout is for the output of a command, such as JSON.

    Forks print the optional parts they lack. Lines about a product of the fork itself are dropped, and so are the
    stack's warnings about parts that are not used here.
    """
    from mmengine.logging import MMLogger

    quiet_logger(MMLogger.get_current_instance())
    for text in _WARNED:
        warnings.filterwarnings("ignore", f"{re.escape(text)}$", UserWarning)
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        yield
    for line in printed.getvalue().splitlines():
        if not line.startswith("Could not import OneDL"):
            print(line, file=sys.stderr)


def quiet_logger(logger: logging.Logger) -> None:
    """Drops the stack's warnings about parts that this package does not use from a logger.

    Args:
        logger: Logger of a run, or the root logger of mmengine.
    """
    logger.addFilter(_is_needed)


def _is_needed(record: logging.LogRecord) -> bool:
    return record.getMessage() not in _LOGGED


def check_versions() -> None:
    """Checks that the dependencies of pre-training are installed in supported versions.

    Raises:
        ImportError: If a module is missing, too old or too new. The message names the installed version, the
            required range and the remedy.
    """
    problems = []
    for module, (lowest, too_new) in REQUIRED.items():
        wanted = f"{module} >= {lowest}, < {too_new}"
        found = find_distribution(module)
        if found is None:
            if not is_importable(module):
                problems.append(f"{module} is missing (required: {wanted})")
            continue
        if not fits(module):
            problems.append(f"{found[0]} {found[1]} is not supported (required: {wanted})")
    mixed = mixed_distributions()
    if mixed:
        problems.append(mixed)
    if problems:
        raise ImportError(f"sspyr_mm cannot run: {'; '.join(problems)}. {remedy()}")


def remedy() -> str:
    """Describes how to install a supported stack.

    Returns:
        str: One or two sentences for the end of an error message.
    """
    if has_originals():
        return (
            _REMEDY + "with the original OpenMMLab distributions, run "
            "`pip install -U openmim && mim install mmengine mmcv mmpretrain`."
        )
    return _REMEDY + "run `pip install torch torchvision && pip install -r requirements/mminstall.txt`."


def fits(module: str) -> bool:
    """Returns whether an installed module has a supported version.

    Args:
        module (str): Import name, one of ``REQUIRED``.

    Returns:
        bool: True also for a module without metadata (from a source tree), whose version is unknown; False
        when there is no such module.
    """
    found = find_distribution(module)
    if found is None or not is_importable(module):
        return found is None and is_importable(module)
    lowest, too_new = REQUIRED[module]
    # Without pre-release and local parts: 2.1rc1 and 2.1+cu121 count as 2.1.
    return Version(lowest).release <= Version(found[1]).release < Version(too_new).release


def has_originals() -> bool:
    """Returns whether an original OpenMMLab distribution (not a fork) is installed.

    Returns:
        bool: True when at least one is.
    """
    return any(_is_installed(name) for name in _original_names())


def mixed_distributions() -> str | None:
    """Detects originals and forks installed over one another.

    Returns:
        str | None: The conflict in one sentence; None without a conflict.
    """
    for names in DISTRIBUTIONS.values():
        there = [name for name in names if _is_installed(name)]
        if len(there) > 1:
            return (
                f"{' and '.join(there)} are both installed and overwrite each other's files "
                f"(run `pip uninstall {' '.join(there)}`, then install one of them)"
            )
    return None


def _original_names() -> list[str]:
    names = (name for group in DISTRIBUTIONS.values() for name in group)
    return [name for name in names if name.startswith("mm")]


def _is_installed(distribution: str) -> bool:
    try:
        importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True
