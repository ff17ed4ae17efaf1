"""What lets one package run beside the original OpenMMLab distributions and beside their forks.

Everything here reads metadata only: neither mmpretrain, mmdet nor mmseg is imported.
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

# Module -> (lowest version that works, first version that does not). Pre-training needs all of these.
REQUIRED: dict[str, tuple[str, str]] = {
    "torch": ("2.1", "3"),
    "torchvision": ("0.16", "1"),
    "mmengine": ("0.8.3", "1"),
    "mmcv": ("2.0", "3"),
    "mmpretrain": ("1.0", "2"),
}

# Warnings of the stack about parts that this package does not use, by their whole text: others must be seen.
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
    "`bash tools/setup_env.sh --no-ops` of the repository makes an environment with versions that "
    "ran together; in an environment of your own "
)


def find_distribution(module: str) -> tuple[str, str] | None:
    """Finds which installed distribution provides a module, without importing it.

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
    """Tells whether a top-level module can be found, without importing it.

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

    mmengine looks a base up by the name of the original distribution and says "not installed" for a fork,
    whose module has the same name. The entry is changed only where that distribution is absent and
    the module importable; mmengine then finds the module itself. ``sspyr_mm::`` bases work, too.

    Returns:
        list[str]: The modules whose entry was changed by this call.
    """
    if not is_importable("mmengine"):  # check_versions() says so, with the remedy
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
    """Imports inside print to stderr: stdout is for what a command answers, such as JSON.

    Forks print which optional parts they lack; that of one of their own products, which nobody else has, is left out,
    and so are the stack's warnings about parts that are not used here.
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
    """Checks that what pre-training needs is installed, in versions that work.

    Raises:
        ImportError: Names each module that is missing, too old or too new, the version that came, the
            range that is wanted, and how to get it.
    """
    problems = []
    for module, (lowest, too_new) in REQUIRED.items():
        wanted = f"{module} >= {lowest}, < {too_new}"
        found = find_distribution(module)
        if found is None:
            if not is_importable(module):
                problems.append(f"{module} is missing (wanted: {wanted})")
            continue
        if not fits(module):
            problems.append(f"{found[0]} {found[1]} does not fit (wanted: {wanted})")
    mixed = mixed_distributions()
    if mixed:
        problems.append(mixed)
    if problems:
        raise ImportError(f"sspyr_mm cannot run: {'; '.join(problems)}. {remedy()}")


def remedy() -> str:
    """Says how to get a stack that fits.

    Returns:
        str: One or two sentences, fit for the end of an error message.
    """
    if has_originals():
        return (
            _REMEDY + "that has the original OpenMMLab distributions, complete those: "
            "`pip install -U openmim && mim install mmengine mmcv mmpretrain`."
        )
    return _REMEDY + "`pip install torch torchvision && pip install -r requirements/mminstall.txt`."


def fits(module: str) -> bool:
    """Tells whether an installed module has a version that works.

    Args:
        module (str): Import name, one of ``REQUIRED``.

    Returns:
        bool: True also when it is importable without metadata (from a source tree), so that its version can't
        be told; False when there is no such module.
    """
    found = find_distribution(module)
    if found is None or not is_importable(module):
        return found is None and is_importable(module)
    lowest, too_new = REQUIRED[module]
    # Without pre-release and local parts: 2.1rc1 and 2.1+cu121 count as 2.1.
    return Version(lowest).release <= Version(found[1]).release < Version(too_new).release


def has_originals() -> bool:
    """Tells whether an original OpenMMLab distribution (not a fork) is installed.

    Returns:
        bool: True when at least one is.
    """
    return any(_is_installed(name) for name in _original_names())


def mixed_distributions() -> str | None:
    """Looks for originals and forks installed over one another.

    Returns:
        str | None: What is installed twice, as a sentence; None when nothing is.
    """
    for names in DISTRIBUTIONS.values():
        there = [name for name in names if _is_installed(name)]
        if len(there) > 1:
            return (
                f"{' and '.join(there)} are both installed and overwrite each other's files "
                f"(wanted: one of them; `pip uninstall {' '.join(there)}`, then install one)"
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
