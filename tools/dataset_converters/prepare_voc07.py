"""Verifies Pascal VOC 2007 in a folder (VOCdevkit/VOC2007) and downloads what is missing."""

import sys

from sspyr_mm.datasets.preparation import prepare, tool_parser, voc07_parts

if __name__ == "__main__":
    args = tool_parser(__doc__, "data").parse_args()
    sys.exit(prepare(args.folder, voc07_parts(), may_download=not args.no_download, mirror=args.mirror))
