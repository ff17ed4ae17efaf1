"""Writes a contact sheet of the views of a config: regions, cells, and the patches of both views."""

import argparse
import sys

import cv2
from mmengine.config import Config, DictAction
from mmengine.dataset import default_collate

import sspyr_mm.registration  # noqa: F401
from sspyr_mm.cli.arguments import positive_int
from sspyr_mm.datasets import build_pretraining_dataset
from sspyr_mm.datasets.streaming.shards import is_packed
from sspyr_mm.engine.config import set_data_root
from sspyr_mm.engine.options import merge_options
from sspyr_mm.models import PyramidAugment
from sspyr_mm.pyramid import views_of
from sspyr_mm.reports.sheets import draw_contact_sheet, write_image


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("config", help="pre-training config")
    parser.add_argument("--out", default="views.png", help="output image (default: %(default)s)")
    parser.add_argument("--data-root", help="images in place of the config's: folder, list file or COCO json")
    parser.add_argument("--num-images", type=positive_int, default=4, help="number of images (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="random seed (default: %(default)s)")
    parser.add_argument("--cfg-options", nargs="+", action=DictAction, help="config overrides, as for tools/train.py")
    args = parser.parse_args()
    if not cv2.haveImageWriter(args.out):
        parser.error(f"--out must be an image file such as views.png or views.jpg, got {args.out!r}")
    return args


def write_sheet(args: argparse.Namespace) -> None:
    cfg = Config.fromfile(args.config)
    merge_options(cfg, args.cfg_options or {})
    if args.data_root:
        set_data_root(cfg, args.data_root)
    root = cfg.train_dataloader.dataset.data_root
    if isinstance(root, str) and is_packed(root):
        raise ValueError(f"{root} holds packed shards: set --data-root to the folder of images that was packed")
    dataset = build_pretraining_dataset(cfg, seed=args.seed)
    preprocessor = {k: v for k, v in cfg.model.data_preprocessor.items() if k != "type"}
    augment = PyramidAugment(views=views_of(cfg.model), **preprocessor)
    count = min(args.num_images, len(dataset))
    batch = default_collate([dataset[i * len(dataset) // count] for i in range(count)])
    sheet = draw_contact_sheet(augment, batch["inputs"])
    write_image(args.out, sheet)
    print(f"{args.out}: {count} images, {sheet.shape[1]} x {sheet.shape[0]} px")


def main() -> None:
    args = parse_args()
    try:
        write_sheet(args)
    except (OSError, ValueError) as error:  # wrong input: the message names the remedy
        print(f"browse_views: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
