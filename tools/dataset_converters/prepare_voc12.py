"""Verifies Pascal VOC 2012 with SBD's masks (VOCdevkit/VOC2012: train_aug, val) and downloads what is missing."""

import sys

from sspyr_mm.datasets.preparation import prepare, tool_parser, voc12_parts

if __name__ == "__main__":
    args = tool_parser(__doc__, "data").parse_args()
    sys.exit(prepare(args.folder, voc12_parts(), may_download=not args.no_download, mirror=args.mirror))
