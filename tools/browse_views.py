"""Writes a contact sheet of what a config cuts out of images: regions, cells, and the patches of both views."""

import argparse
import os

import cv2
from mmengine.config import Config, DictAction
from mmengine.dataset import default_collate
from mmengine.registry import init_default_scope
from mmpretrain.registry import DATASETS

import sspyr_mm  # noqa: F401
from sspyr_mm.models import PyramidAugment
from sspyr_mm.pyramid import PyramidSpec
from sspyr_mm.reports.contact_sheet import draw_contact_sheet


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("config", help="pre-training config")
    parser.add_argument(
        "--out", default="views.png", help="picture to write (default: %(default)s)"
    )
    parser.add_argument("--data-root", help="folder, list or COCO json in place of the config's")
    parser.add_argument("--num-images", type=int, default=4, help="rows (default: %(default)s)")
    parser.add_argument(
        "--seed", type=int, default=0, help="another one gives other views (default: %(default)s)"
    )
    parser.add_argument("--cfg-options", nargs="+", action=DictAction, help="as for tools/train.py")
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    cfg = Config.fromfile(args.config)
    cfg.merge_from_dict(args.cfg_options or {})
    if args.data_root:
        cfg.train_dataloader.dataset.data_root = args.data_root
    init_default_scope("mmpretrain")
    spec = PyramidSpec.from_config(cfg.model.pyramid)
    dataset = DATASETS.build(cfg.train_dataloader.dataset)
    for transform in dataset.pipeline.transforms:
        if hasattr(transform, "set_pyramid"):
            transform.set_pyramid(spec)
            transform.set_epoch(0, seed=args.seed)
    preprocessor = {k: v for k, v in cfg.model.data_preprocessor.items() if k != "type"}
    count = min(args.num_images, len(dataset))
    batch = default_collate([dataset[i * len(dataset) // count] for i in range(count)])
    sheet = draw_contact_sheet(PyramidAugment(spec, **preprocessor), batch["inputs"])
    os.makedirs(os.path.dirname(os.path.abspath(args.out)), exist_ok=True)
    if not cv2.imwrite(args.out, cv2.cvtColor(sheet, cv2.COLOR_RGB2BGR)):
        raise SystemExit(
            f"Can't write {args.out}: give a path that ends in .png or .jpg, in a folder you may write to"
        )
    print(f"{args.out}: {count} images, {sheet.shape[1]} x {sheet.shape[0]} px")


if __name__ == "__main__":
    main()
