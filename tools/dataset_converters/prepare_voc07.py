"""Verifies Pascal VOC 2007 in a folder (VOCdevkit/VOC2007) and downloads what is missing."""

import sys

from sspyr_mm.datasets.preparation import run_tool, voc_parts

if __name__ == "__main__":
    sys.exit(run_tool("prepare_voc07", __doc__, "data", lambda args: voc_parts()))
