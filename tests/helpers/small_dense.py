"""The detection and segmentation configs, and what it takes to train them on a CPU in seconds."""

import json

import pytest
from mmengine.config import Config
from project import ROOT

import sspyr_mm.registration  # noqa: F401

DETECTION = ROOT / "configs/benchmarks/mmdetection"
SEGMENTATION = ROOT / "configs/benchmarks/mmsegmentation"
CONFIGS = sorted([*DETECTION.glob("*.py"), *SEGMENTATION.glob("*.py")])
MASK_RCNN, RETINANET = (pytest.param(name, marks=pytest.mark.ops) for name in ("mask-rcnn_r50_fpn_15k", "retinanet"))


def read(name):
    return Config.fromfile(next(path for path in CONFIGS if path.stem.startswith(name)))


def classes_of(scenes):
    content = json.loads((scenes / "annotations/instances_train2017.json").read_text())
    return tuple(category["name"] for category in content["categories"])


def shrink_backbone(cfg, backbone):
    cfg.model.backbone.update(depth=18, base_channels=8, stem_channels=8)
    cfg.model.backbone.init_cfg.checkpoint = str(backbone)


def small_detector(name, scenes, backbone):
    cfg = read(name)
    shrink_backbone(cfg, backbone)
    cfg.model.neck.update(in_channels=[8, 16, 32, 64], out_channels=16)
    if name.startswith("mask"):
        roi = cfg.model.roi_head
        cfg.model.rpn_head.update(in_channels=16, feat_channels=16)
        roi.bbox_roi_extractor.out_channels = roi.mask_roi_extractor.out_channels = 16
        roi.bbox_head.update(in_channels=16, num_classes=12, conv_out_channels=16, fc_out_channels=16)
        roi.mask_head.update(in_channels=16, num_classes=12, conv_out_channels=16)
        cfg.model.test_cfg.rcnn.score_thr = 0.0
    else:
        cfg.model.bbox_head.update(in_channels=16, feat_channels=16, num_classes=12)
        cfg.model.test_cfg.score_thr = 0.0
    for part, loader in (("train", cfg.train_dataloader), ("val", cfg.val_dataloader)):
        loader.update(batch_size=2, num_workers=0, persistent_workers=False)
        loader.dataset.update(
            data_root=str(scenes),
            ann_file=f"annotations/instances_{part}2017.json",
            data_prefix=dict(img=f"{part}2017/"),
            metainfo=dict(classes=classes_of(scenes)),
        )
        for step in loader.dataset.pipeline:
            if "Resize" in step.type:
                step.update(dict(scales=[(96, 96)]) if "scales" in step else dict(scale=(96, 96)))
    cfg.val_evaluator.ann_file = str(scenes / "annotations/instances_val2017.json")
    cfg.default_hooks.precise_bn.num_iters = 2
    return cfg


def small_fcn(scenes, backbone):
    cfg = read("fcn_r50-d8_20k_voc12aug")
    shrink_backbone(cfg, backbone)
    cfg.model.data_preprocessor.size = (64, 64)
    cfg.model.decode_head.update(in_channels=64, channels=16, num_classes=13)
    cfg.model.auxiliary_head.update(in_channels=32, channels=16, num_classes=13)
    pipeline = cfg.train_dataloader.dataset.datasets[0].pipeline
    for step in pipeline:
        if step.type == "RandomResize":
            step.scale = (96, 96)
        for size in ("crop_size", "size"):
            if size in step:
                step[size] = (64, 64)
    common = dict(
        type="BaseSegDataset",
        data_root=str(scenes / "VOC2007"),
        data_prefix=dict(img_path="JPEGImages", seg_map_path="SegmentationClass"),
        metainfo=dict(classes=("background", *classes_of(scenes)), palette=[[i, i, i] for i in range(13)]),
    )
    for loader, split in ((cfg.train_dataloader, "trainval"), (cfg.val_dataloader, "test")):
        steps = pipeline if split == "trainval" else loader.dataset.pipeline
        loader.update(batch_size=2, num_workers=0, persistent_workers=False)
        listed = f"ImageSets/Segmentation/{split}.txt"
        loader.dataset = dict(common, ann_file=listed, pipeline=steps)
    return cfg
