"""Self-supervised pyramid representation learning (SS-PRL) for OpenMMLab.

``import sspyr_mm`` checks the stack, makes ``mmpretrain::``, ``mmdet::`` and ``mmseg::`` bases resolvable and
registers every component, so that a config needs no more than
``custom_imports = dict(imports=['sspyr_mm'])``.
"""

import sys

from sspyr_mm.compat import check_versions
from sspyr_mm.version import __version__

__all__ = ["__version__"]


def _started_as_command() -> bool:
    """Whether this import is the first step of ``python -m sspyr_mm``.

    Python sets ``sys.argv[0]`` to ``-m`` until the module's ``__main__`` is found. Commands such as ``doctor`` must
    start on a broken stack and answer ``--help`` at once; those that need the components import
    ``sspyr_mm.registration`` themselves.
    """
    return sys.argv[:1] == ["-m"]


if not _started_as_command():
    check_versions()
    import sspyr_mm.registration  # noqa: F401
