"""Verifies Pascal VOC 2012 with SBD's masks (VOCdevkit/VOC2012: train_aug, val) and downloads what is missing."""

import sys

from sspyr_mm.datasets.preparation import run_tool, voc12_parts

if __name__ == "__main__":
    sys.exit(run_tool("prepare_voc12", __doc__, "data", lambda args: voc12_parts()))
