"""Verifies COCO in a folder (images and instance annotations) and downloads what is missing."""

import sys

from sspyr_mm.datasets.preparation import COCO_SPLITS, coco_parts, prepare, tool_parser

if __name__ == "__main__":
    parser = tool_parser(__doc__, "data/coco")
    parser.add_argument("--splits", nargs="+", choices=COCO_SPLITS, default=["train2014", "val2014"])
    args = parser.parse_args()
    sys.exit(prepare(args.folder, coco_parts(args.splits), may_download=not args.no_download, mirror=args.mirror))
