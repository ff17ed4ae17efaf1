"""Scripts of ``tools/speed``, which import one another."""

import sys
from importlib import import_module

from project import ROOT

FOLDER = ROOT / "tools/speed"

sys.path.insert(0, str(FOLDER))
try:
    compare, decoding, growth, loss_curves, official_step, pillow_views, swav = map(
        import_module, ("compare", "decoding", "growth", "loss_curves", "official_step", "pillow_views", "swav")
    )
finally:
    sys.path.remove(str(FOLDER))
