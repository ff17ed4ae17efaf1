"""The detection and segmentation configs: what the protocols fix, and training at reduced size by a real Runner."""

import json
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmengine.runner import Runner
from mmpretrain.models import ResNet

import sspyr_mm  # noqa: F401
from sspyr_mm.checkpoints import export_backbone
from sspyr_mm.datasets.toy_scenes import generate
from sspyr_mm.engine.launch import fill_dataloaders, prepare_config

ROOT = Path(__file__).resolve().parents[2]
DETECTION = ROOT / "configs/benchmarks/mmdetection"
SEGMENTATION = ROOT / "configs/benchmarks/mmsegmentation"
CONFIGS = sorted([*DETECTION.glob("*.py"), *SEGMENTATION.glob("*.py")])
SYNC = {"type": "SyncBN", "requires_grad": True}
SGD = {"type": "SGD", "momentum": 0.9}


@pytest.fixture(autouse=True)
def _scope():
    """mmengine keeps the scope of the last runner for the whole process: other tests are to find ours."""
    yield
    init_default_scope("mmpretrain")


def read(name):
    return Config.fromfile(next(path for path in CONFIGS if path.stem.startswith(name)))


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    root = tmp_path_factory.mktemp("scenes")
    generate(str(root), num_train=8, num_val=4, size=96)
    return root


@pytest.fixture(scope="module")
def backbone(tmp_path_factory):
    """A whole checkpoint of torchvision's layout, brought over by `export`."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("weights")
    torch.save(ResNet(18, stem_channels=8, base_channels=8).state_dict(), folder / "source.pth")
    export_backbone(folder / "source.pth", folder / "backbone.pth", target="mmdet")
    return folder / "backbone.pth"


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: p.stem)
def test_header_says_command_and_cost(path):
    head = path.read_text().split("_base_")[0]
    folder = path.parent.name
    assert f"# Command: tools/dist_train.sh configs/benchmarks/{folder}/{path.name}" in head
    assert "# Cost: " in head and "backbone.init_cfg.checkpoint=backbone.pth" in head


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: p.stem)
def test_images_are_rgb_under_imagenets_normalisation(path):
    given = Config.fromfile(path).model.data_preprocessor
    assert given.bgr_to_rgb  # mm's loaders decode BGR
    assert given.mean == [123.675, 116.28, 103.53] and given.std == [58.395, 57.12, 57.375]


@pytest.mark.parametrize(
    ("name", "steps"), [("mask-rcnn_r50_fpn_90k", 90000), ("mask-rcnn_r50_fpn_15k", 15000)]
)
def test_mask_rcnn_is_the_protocols(name, steps):
    cfg = read(name)
    model = cfg.model
    assert model.backbone.type == "ResNet" and model.backbone.depth == 50
    assert model.backbone.style == "pytorch" and model.backbone.frozen_stages == -1
    assert not model.backbone.norm_eval
    heads = model.roi_head
    for part in (model.backbone, model.neck, heads.bbox_head, heads.mask_head):
        assert part.norm_cfg == SYNC
    assert heads.bbox_head.type == "Shared4Conv1FCBBoxHead"
    assert heads.bbox_head.fc_out_channels == 1024
    assert cfg.train_cfg.max_iters == steps and steps % cfg.train_cfg.val_interval == 0
    assert cfg.optim_wrapper.optimizer == {**SGD, "lr": 0.02, "weight_decay": 1e-4}
    warm_up, drops = cfg.param_scheduler
    assert warm_up.end == 1000 and warm_up.start_factor == 0.001
    assert drops.milestones == [60000, 80000] and drops.gamma == 0.1
    assert cfg.auto_scale_lr.base_batch_size == 16 == 8 * cfg.train_dataloader.batch_size
    (resize,) = (t for t in cfg.train_dataloader.dataset.pipeline if "Resize" in t.type)
    assert [side for _, side in resize.scales] == [640, 672, 704, 736, 768, 800]
    assert cfg.train_dataloader.dataset.ann_file == "annotations/instances_train2014.json"
    assert cfg.val_dataloader.dataset.ann_file == "annotations/instances_val2014.json"
    assert cfg.test_dataloader.dataset.data_prefix == {"img": "val2014/"}
    assert cfg.val_evaluator.ann_file == "data/coco/annotations/instances_val2014.json"
    assert cfg.val_evaluator.metric == ["bbox", "segm"]
    assert cfg.default_hooks.precise_bn == {
        "type": "mmpretrain.PreciseBNBeforeValHook",
        "num_iters": 200,
    }


def test_fcn_is_the_protocols():
    cfg = read("fcn_r50-d8_20k_voc12aug")
    backbone = cfg.model.backbone
    assert backbone.type == "ResNet" and backbone.depth == 50 and cfg.model.pretrained is None
    assert backbone.strides == (1, 2, 1, 1) and backbone.dilations == (1, 1, 2, 4)
    assert backbone.contract_dilation and backbone.norm_cfg == SYNC and not backbone.norm_eval
    head, auxiliary = cfg.model.decode_head, cfg.model.auxiliary_head
    assert head.type == auxiliary.type == "FCNHead"
    assert head.num_convs == 2 and auxiliary.loss_decode.loss_weight == 0.4
    assert head.num_classes == auxiliary.num_classes == 21
    assert head.norm_cfg == auxiliary.norm_cfg == SYNC
    assert cfg.train_cfg.max_iters == 20000 and cfg.train_dataloader.batch_size * 4 == 16
    assert cfg.optim_wrapper.optimizer == {**SGD, "lr": 0.05, "weight_decay": 5e-4}
    (schedule,) = cfg.param_scheduler
    assert (schedule.type, schedule.power, schedule.eta_min) == ("PolyLR", 0.9, 1e-4)
    assert schedule.end == 20000 and not schedule.by_epoch
    parts = cfg.train_dataloader.dataset.datasets
    assert [p.ann_file.split("/")[-1] for p in parts] == ["train.txt", "aug.txt"]
    for part in parts:
        steps = {t.type: t for t in part.pipeline}
        assert steps["RandomResize"].scale == (2048, 512)
        assert steps["RandomResize"].ratio_range == (0.5, 2.0)
        assert steps["RandomCrop"].crop_size == (512, 512)
        assert steps["RandomCrop"].cat_max_ratio == 0.75
        assert steps["RandomFlip"].prob == 0.5 and "PhotoMetricDistortion" in steps
    assert cfg.model.test_cfg.mode == "whole"
    assert "TestTimeAug" not in str(cfg.val_dataloader)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: p.stem)
def test_builds_at_full_size_and_takes_a_whole_resnet50(path, tmp_path, monkeypatch):
    torch.manual_seed(0)
    torch.save(ResNet(50).state_dict(), tmp_path / "source.pth")
    export_backbone(tmp_path / "source.pth", tmp_path / "backbone.pth")
    monkeypatch.chdir(tmp_path)
    cfg = Config.fromfile(path)
    init_default_scope(cfg.default_scope)
    registry = __import__(f"{cfg.default_scope}.registry", fromlist=["MODELS"])
    model = registry.MODELS.build(cfg.model)
    model.init_weights()
    source = torch.load(tmp_path / "source.pth")
    found = model.backbone.state_dict()
    if "c4" in path.stem:
        found |= model.roi_head.shared_head.state_dict()
    assert found.keys() == source.keys()
    assert all(torch.equal(found[name], source[name]) for name in source)


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
        roi.bbox_head.update(
            in_channels=16, num_classes=12, conv_out_channels=16, fc_out_channels=16
        )
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
        metainfo=dict(
            classes=("background", *classes_of(scenes)), palette=[[i, i, i] for i in range(13)]
        ),
    )
    for loader, split in ((cfg.train_dataloader, "trainval"), (cfg.val_dataloader, "test")):
        steps = pipeline if split == "trainval" else loader.dataset.pipeline
        loader.update(batch_size=2, num_workers=0, persistent_workers=False)
        listed = f"ImageSets/Segmentation/{split}.txt"
        loader.dataset = dict(common, ann_file=listed, pipeline=steps)
    return cfg


def make_runner(cfg, tmp_path, steps=2):
    cfg.work_dir = str(tmp_path)
    cfg.visualizer.name = str(tmp_path)  # mmengine keeps one of each name
    cfg.train_cfg.update(max_iters=steps, val_interval=steps)
    cfg.default_hooks.checkpoint.interval = steps
    cfg.default_hooks.logger.interval = 1
    cfg.test_dataloader = cfg.test_cfg = cfg.test_evaluator = None
    fill_dataloaders(cfg)
    return Runner.from_cfg(prepare_config(cfg))


@pytest.mark.parametrize("name", ["mask-rcnn_r50_fpn_15k", "retinanet"])
def test_detectors_train_and_measure_at_reduced_size(name, scenes, backbone, tmp_path):
    runner = make_runner(small_detector(name, scenes, backbone), tmp_path)
    runner.train()
    for kind in ["bbox", "segm"] if name.startswith("mask") else ["bbox"]:
        assert 0 <= runner.message_hub.get_scalar(f"val/coco/{kind}_mAP").current() <= 1
    saved = torch.load(tmp_path / "iter_2.pth", weights_only=False)["state_dict"]
    for key, value in runner.model.state_dict().items():
        assert torch.equal(saved[key], value), key
    assert all(p.requires_grad for p in runner.model.backbone.parameters())


def test_fcn_trains_and_measures_at_reduced_size(scenes, backbone, tmp_path):
    runner = make_runner(small_fcn(scenes, backbone), tmp_path)
    runner.train()
    assert 0 <= runner.message_hub.get_scalar("val/mIoU").current() <= 100
    assert (tmp_path / "iter_2.pth").exists()


@pytest.mark.parametrize("name", ["mask-rcnn_r50_fpn_15k", "fcn"])
def test_a_partial_backbone_is_an_error(name, scenes, backbone, tmp_path):
    """mmengine alone would warn, and train from noise."""
    state = torch.load(backbone)["state_dict"]
    del state["layer4.1.conv2.weight"]
    part = tmp_path / "part.pth"
    torch.save({"state_dict": state}, part)
    cfg = small_fcn(scenes, part) if name == "fcn" else small_detector(name, scenes, part)
    runner = make_runner(cfg, tmp_path)
    with pytest.raises(ValueError, match=r"does not fit this ResNet: 1 of \d+ tensors are missing"):
        runner.train()
