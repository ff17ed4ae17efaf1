"""Self-supervised pyramid representation learning (SS-PRL) for OpenMMLab.

``sspyr_mm.registration`` registers every component and makes ``mmpretrain::``, ``mmdet::`` and ``mmseg::`` bases
resolvable; a config needs no more than ``custom_imports = dict(imports=["sspyr_mm.registration"])``.
"""

import sys

from sspyr_mm.version import __version__

__all__ = ["__version__"]

# Configs of versions before 0.3 import the package alone; mmengine reads them, and is imported by then.
if "mmengine" in sys.modules:
    import sspyr_mm.registration  # noqa: F401
