"""The detection and segmentation configs: what the protocols fix, and training at reduced size by a real Runner."""

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmengine.runner import Runner
from mmpretrain.models import ResNet
from small_dense import CONFIGS, DETECTION, MASK_RCNN, RETINANET, read, small_detector, small_fcn

import sspyr_mm.registration  # noqa: F401
from sspyr_mm.checkpoints import export_backbone
from sspyr_mm.checkpoints.bounded import UnfilledParameters
from sspyr_mm.engine.config import fill_dataloaders
from sspyr_mm.engine.cpu import prepare_config

SYNC = {"type": "SyncBN", "requires_grad": True}
SGD = {"type": "SGD", "momentum": 0.9}


@pytest.fixture(autouse=True)
def _scope():
    """mmengine keeps the scope of the last runner for the whole process: other tests are to find ours."""
    yield
    init_default_scope("mmpretrain")


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


@pytest.mark.parametrize(("name", "steps"), [("mask-rcnn_r50_fpn_90k", 90000), ("mask-rcnn_r50_fpn_15k", 15000)])
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
    check_coco_training_images(cfg)
    assert cfg.train_dataloader.dataset.ann_file == "annotations/instances_train2014.json"
    assert cfg.val_dataloader.dataset.ann_file == "annotations/instances_val2014.json"
    assert cfg.test_dataloader.dataset.data_prefix == {"img": "val2014/"}
    assert cfg.val_evaluator.ann_file == "data/coco/annotations/instances_val2014.json"
    assert cfg.val_evaluator.metric == ["bbox", "segm"]
    assert cfg.default_hooks.precise_bn == {"type": "mmpretrain.PreciseBNBeforeValHook", "num_iters": 200}


def check_coco_training_images(cfg):
    pipeline = {t.type: t for t in cfg.train_dataloader.dataset.pipeline}
    sides = [640, 672, 704, 736, 768, 800]
    assert pipeline["RandomChoiceResize"].scales == [(1333, side) for side in sides]
    assert pipeline["RandomChoiceResize"].keep_ratio and pipeline["RandomFlip"].prob == 0.5
    (resize,) = (t for t in cfg.val_dataloader.dataset.pipeline if t.type == "Resize")
    assert resize.scale == (1333, 800) and resize.keep_ratio


def test_mask_rcnns_heads_are_detectron2s():
    model = read("mask-rcnn_r50_fpn_15k").model
    assert model.neck.out_channels == 256 and model.neck.num_outs == 5
    assert model.rpn_head.anchor_generator.scales == [8]
    assert model.rpn_head.anchor_generator.strides == [4, 8, 16, 32, 64]
    heads, train, test = model.roi_head, model.train_cfg, model.test_cfg
    assert heads.mask_head.num_convs == 4 and heads.bbox_head.num_classes == 80
    assert heads.bbox_roi_extractor.roi_layer == {"type": "RoIAlign", "output_size": 7, "sampling_ratio": 0}
    assert heads.mask_roi_extractor.roi_layer.output_size == 14
    assert train.rpn.sampler.num == 256 and train.rpn_proposal.nms_pre == 2000
    assert train.rcnn.sampler.num == 512 and train.rcnn.sampler.pos_fraction == 0.25
    assert (test.rcnn.score_thr, test.rcnn.nms.iou_threshold) == (0.05, 0.5)
    assert test.rcnn.max_per_img == 100 and test.rpn.nms_pre == test.rpn.max_per_img == 1000


def test_norm_layers_of_detectors_have_no_weight_decay():
    for name in ("mask-rcnn_r50_fpn_90k", "retinanet", "faster-rcnn"):
        assert read(name).optim_wrapper.paramwise_cfg == {"norm_decay_mult": 0.0}, name


def test_retinanet_is_detectron2s():
    cfg = read("retinanet")
    assert cfg.model.backbone.norm_cfg == cfg.model.neck.norm_cfg == SYNC
    assert cfg.model.backbone.frozen_stages == -1 and not cfg.model.backbone.norm_eval
    assert cfg.optim_wrapper.optimizer == {**SGD, "lr": 0.01, "weight_decay": 1e-4}
    assert cfg.train_cfg.max_iters == 90000 and cfg.param_scheduler[1].milestones == [60000, 80000]
    assert cfg.train_dataloader.batch_size * 8 == 16 and cfg.val_evaluator.metric == "bbox"
    check_coco_training_images(cfg)


def test_faster_rcnn_c4_is_that_of_moco():
    cfg = read("faster-rcnn")
    model, head = cfg.model, cfg.model.roi_head.shared_head
    for part in (model.backbone, head):
        assert part.norm_cfg == SYNC and not part.norm_eval and part.style == "pytorch"
    assert model.backbone.frozen_stages == -1 and model.backbone.out_indices == (2,)
    assert model.roi_head.bbox_head.num_classes == 20
    assert cfg.optim_wrapper.optimizer == {**SGD, "lr": 0.02, "weight_decay": 1e-4}
    assert cfg.train_cfg.max_iters == 24000 and cfg.train_dataloader.batch_size * 8 == 16
    warm_up, drops = cfg.param_scheduler
    assert warm_up.end == 100 and drops.milestones == [18000, 22000]
    repeated = cfg.train_dataloader.dataset
    assert repeated.times == 1
    parts = repeated.dataset.datasets
    assert [p.ann_file for p in parts] == [f"VOC{year}/ImageSets/Main/trainval.txt" for year in (2007, 2012)]
    for part in parts:
        steps = {t.type: t for t in part.pipeline}
        sides = [side for _, side in steps["RandomChoiceResize"].scales]
        assert sides == list(range(480, 801, 32)) and steps["RandomFlip"].prob == 0.5
        assert "bbox_min_size" not in part.filter_cfg
    assert cfg.val_dataloader.dataset.ann_file == "VOC2007/ImageSets/Main/test.txt"
    assert cfg.val_evaluator.eval_mode == cfg.test_evaluator.eval_mode == "11points"
    thresholds = cfg.val_evaluator.iou_thrs
    assert thresholds == pytest.approx([0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95])


@pytest.mark.parametrize(
    ("name", "steps", "crop", "classes"),
    [("fcn_r50-d8_40k_cityscapes", 40000, (769, 769), 19), ("fcn_r50-d8_80k_ade20k", 80000, (512, 512), 150)],
)
def test_other_segmenters_are_mmsegs(name, steps, crop, classes):
    cfg = read(name)
    model = cfg.model
    assert model.backbone.type == "ResNet" and model.pretrained is None
    assert model.backbone.dilations == (1, 1, 2, 4) and model.backbone.contract_dilation
    for part in (model.backbone, model.decode_head, model.auxiliary_head):
        assert part.norm_cfg == SYNC
    assert model.decode_head.num_classes == model.auxiliary_head.num_classes == classes
    assert model.data_preprocessor.size == crop
    assert cfg.train_cfg.max_iters == steps == cfg.param_scheduler[0].end
    assert cfg.train_dataloader.batch_size * 4 == 16
    assert cfg.optim_wrapper.optimizer == {**SGD, "lr": 0.01, "weight_decay": 5e-4}
    assert model.test_cfg.mode == ("slide" if "cityscapes" in name else "whole")


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
    assert cfg.val_dataloader.dataset.ann_file == "ImageSets/Segmentation/val.txt"
    assert cfg.val_evaluator.iou_metrics == ["mIoU"]
    assert cfg.model.test_cfg.mode == "whole"
    assert "TestTimeAug" not in str(cfg.val_dataloader)


@pytest.mark.parametrize(
    "path",
    [pytest.param(path, marks=[pytest.mark.ops] * (path.parent == DETECTION), id=path.stem) for path in CONFIGS],
)
def test_builds_at_full_size_and_takes_a_whole_resnet50(path, tmp_path, monkeypatch):
    torch.manual_seed(0)
    torch.save(ResNet(50).state_dict(), tmp_path / "source.pth")
    export_backbone(tmp_path / "source.pth", tmp_path / "backbone.pth")
    monkeypatch.chdir(tmp_path)
    cfg = Config.fromfile(path)
    init_default_scope(cfg.default_scope)
    registry = __import__(f"{cfg.default_scope}.registry", fromlist=["MODELS"])
    with UnfilledParameters():
        model = registry.MODELS.build(cfg.model)
        model.init_weights()
    source = torch.load(tmp_path / "source.pth")
    found = model.backbone.state_dict()
    if "c4" in path.stem:
        found |= model.roi_head.shared_head.state_dict()
    assert found.keys() == source.keys()
    assert all(torch.equal(found[name], source[name]) for name in source)


def make_runner(cfg, tmp_path, steps=2):
    cfg.work_dir = str(tmp_path)
    cfg.visualizer.name = str(tmp_path)  # mmengine keeps one of each name
    cfg.train_cfg.update(max_iters=steps, val_interval=steps)
    cfg.default_hooks.checkpoint.interval = steps
    cfg.default_hooks.logger.interval = 1
    cfg.test_dataloader = cfg.test_cfg = cfg.test_evaluator = None
    fill_dataloaders(cfg)
    return Runner.from_cfg(prepare_config(cfg))


@pytest.mark.parametrize("name", [MASK_RCNN, RETINANET])
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


@pytest.mark.parametrize("name", [MASK_RCNN, "fcn"])
def test_a_partial_backbone_is_an_error(name, scenes, backbone, tmp_path):
    """mmengine alone would warn, and train from noise."""
    state = torch.load(backbone)["state_dict"]
    del state["layer4.1.conv2.weight"]
    part = tmp_path / "part.pth"
    torch.save({"state_dict": state}, part)
    cfg = small_fcn(scenes, part) if name == "fcn" else small_detector(name, scenes, part)
    runner = make_runner(cfg, tmp_path)
    with pytest.raises(ValueError, match=r"does not match this ResNet: 1 of \d+ tensors are missing"):
        runner.train()
