"""Detection and segmentation through `evaluate`: completed configs, and runs in separate processes."""

import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import pytest
import torch
from mmpretrain.models import ConvNeXt, ResNet

from sspyr_mm.__main__ import main
from sspyr_mm.benchmarks.base_protocol import DataOptions, Settings
from sspyr_mm.benchmarks.dense.read_coco import read_coco_instances
from sspyr_mm.benchmarks.dense.read_voc import read_voc_masks
from sspyr_mm.benchmarks.dense.run import make_config
from sspyr_mm.benchmarks.dense.transfer import check_backbone
from sspyr_mm.benchmarks.protocols import find_protocol
from sspyr_mm.benchmarks.training.process import default_processes
from sspyr_mm.benchmarks.training.recipes import parse_options
from sspyr_mm.checkpoints import read_backbone
from sspyr_mm.datasets.toy_scenes import generate

FULL = Settings()


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    root = tmp_path_factory.mktemp("images")
    generate(str(root), num_train=8, num_val=4, size=64, seed=0)
    return str(root)


def config(name, checkpoint, data, settings=FULL, num_processes=1):
    return make_config(
        find_protocol(name).config,
        read_backbone(checkpoint),
        data,
        weights="weights.pth",
        num_processes=num_processes,
        settings=settings,
    )


def test_mask_rcnn_config_fits_data_and_network(checkpoint, images):
    data = read_coco_instances(images)
    assert data.counts == {"train": 8, "test": 4, "classes": 12} and not data.is_official
    cfg = config("mask_rcnn_coco", checkpoint, data)
    assert cfg.model.backbone.depth == 18 and cfg.model.backbone.base_channels == 8
    assert cfg.model.backbone.norm_cfg.type == "SyncBN"
    assert cfg.model.backbone.init_cfg.checkpoint == "weights.pth"
    assert cfg.model.neck.in_channels == [8, 16, 32, 64]
    heads = cfg.model.roi_head
    assert heads.bbox_head.num_classes == heads.mask_head.num_classes == 12
    assert cfg.train_dataloader.batch_size == 16 and cfg.optim_wrapper.optimizer.lr == 0.02
    assert cfg.train_cfg.max_iters == 15000 and cfg.param_scheduler[0].end == 1000
    assert cfg.default_hooks.checkpoint.interval == 1000
    colours = cfg.val_dataloader.dataset.metainfo.palette
    assert len(set(colours)) == 12 and {type(one) for one in colours} == {tuple}  # mmdet draws no others
    assert os.path.samefile(cfg.val_evaluator.ann_file, f"{images}/annotations/instances_val2017.json")


def test_changed_settings_keep_their_proportions(checkpoint, images):
    settings = Settings(iterations=150, size=400, batch_size=4)
    cfg = config("mask_rcnn_coco", checkpoint, read_coco_instances(images), settings, 2)
    assert cfg.train_dataloader.batch_size == 2 and cfg.optim_wrapper.optimizer.lr == 0.005
    assert cfg.train_cfg.max_iters == 150 and cfg.param_scheduler[0].end == 10
    assert cfg.param_scheduler[1].milestones == [600, 800]
    (resize,) = (t for t in cfg.train_dataloader.dataset.pipeline if "scales" in t)
    assert [side for _, side in resize.scales] == [320, 336, 352, 368, 384, 400]
    (resize,) = (t for t in cfg.val_dataloader.dataset.pipeline if t.type == "Resize")
    assert resize.scale == (666, 400)
    with pytest.raises(ValueError, match="cannot be divided among 2 processes"):
        config("fcn_voc", checkpoint, read_voc_masks(images), Settings(batch_size=3), 2)
    cfg = config("fcn_voc", checkpoint, read_voc_masks(images), Settings(size=64))
    steps = {t.type: t for t in cfg.train_dataloader.dataset.datasets[0].pipeline}
    assert steps["RandomResize"].scale == (256, 64) and steps["RandomCrop"].crop_size == (64, 64)
    assert cfg.model.data_preprocessor.size == (64, 64)
    assert cfg.model.decode_head.in_channels == 64 and cfg.model.auxiliary_head.in_channels == 32
    assert cfg.model.decode_head.num_classes == 13


def test_train_aug_is_two_lists(checkpoint, images, tmp_path):
    tree = tmp_path / "VOC2012"
    lists = tree / "ImageSets/Segmentation"
    lists.mkdir(parents=True)
    for name in ("JPEGImages", "SegmentationClass"):
        (tree / name).symlink_to(f"{images}/VOC2007/{name}")
    (tree / "SegmentationClassAug").symlink_to(f"{images}/VOC2007/SegmentationClass")
    ids = Path(images, "VOC2007/ImageSets/Segmentation/trainval.txt").read_text().split()
    (lists / "train.txt").write_text("\n".join(ids[:3]))
    (lists / "aug.txt").write_text("\n".join(ids[3:]))
    (lists / "val.txt").write_text(ids[0])
    data = read_voc_masks(str(tmp_path))
    assert data.name == "voc12aug" and data.counts == {"train": 8, "test": 1, "classes": 20}
    parts = config("fcn_voc", checkpoint, data).train_dataloader.dataset.datasets
    assert [part.data_prefix.seg_map_path for part in parts] == ["SegmentationClass", "SegmentationClassAug"]
    # The lists share their transforms, which version 0.2 resized once per list.
    parts = config("fcn_voc", checkpoint, data, Settings(size=64)).train_dataloader.dataset.datasets
    for part in parts:
        assert [one.crop_size for one in part.pipeline if one.type == "RandomCrop"] == [(64, 64)]
    (lists / "aug.txt").write_text("none")
    with pytest.raises(FileNotFoundError, match=r"1 of 4 files do not exist: .*none"):
        read_voc_masks(str(tmp_path))


def test_networks_are_checked_before_the_first_is_trained(checkpoint, images, tmp_path, capsys):
    cfg = dict(type="ConvNeXt", arch="atto")
    state = ConvNeXt(arch="atto").state_dict()
    torch.save({"state_dict": state, "meta": {"backbone": cfg}}, tmp_path / "x.pth")
    line = ["evaluate", checkpoint, str(tmp_path / "x.pth"), "--voc-masks", images]
    assert main([*line, "--work-dir", str(tmp_path / "work")]) == 2
    assert "fcn_voc is for ResNets; x.pth is a ConvNeXt" in capsys.readouterr().err
    assert not (tmp_path / "work").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--protocol", "fcn_voc"], "give --voc-masks DIR"),
        (["--protocol", "mask_rcnn_coco"], "give --coco DIR"),
        (["--voc-masks", "nowhere"], "No VOC tree with masks in nowhere"),
        (["--coco", "@", "--protocol", "linear", "--iterations", "2"], "not for linear"),
        (["--voc-masks", "@", "--epochs", "2"], "--epochs is for linear, semi1"),
        (["--voc-masks", "@", "--cfg-options", "param_scheduler.9.end=1"], "Index 9 exceeds"),
        (
            ["--coco", "@", "--protocol", "linear", "--cfg-options", "a=1"],
            "--cfg-options is for semi1, semi10, semi100, asl, asl224, mask_rcnn_coco, fcn_voc, not for linear",
        ),
        (["--voc-masks", "@", "--cfg-options", "model.rpn_head.in_channels=8"], "has no setting `rpn_head`"),
        (
            ["--voc-masks", "@", "--cfg-options", "optim_wraper.optimizer.lr=1"],
            "nothing reads `optim_wraper`; use optim_wrapper.optimizer.lr=1",
        ),
        (
            ["--voc-masks", "@", "--cfg-options", "model.backbone.init_cfg.checkpoint=x.pth"],
            "is set by the command itself",
        ),
        (["--voc-masks", "@", "--cfg-options", "randomness.seed=7"], "is set by the command itself"),
        (["--voc-masks", "@", "--coco", "@", "--protocol", "fcn_voc"], "--coco is not read by fcn_voc"),
    ],
)
def test_invalid_options_are_reported(checkpoint, images, options, message, capsys):
    options = [images if option == "@" else option for option in options]
    assert main(["evaluate", checkpoint, *options]) == 2
    assert message in capsys.readouterr().err


def test_options_are_read_and_must_have_a_key(checkpoint, images):
    options = parse_options(["model.decode_head.num_convs=1", "a=[1,2]", "b=text"])
    assert options == {"model.decode_head.num_convs": 1, "a": [1, 2], "b": "text"}
    options = {"model.decode_head.num_convs": 1}
    cfg = config("fcn_voc", checkpoint, read_voc_masks(images), Settings(options=options))
    assert cfg.model.decode_head.num_convs == 1
    cfg = config(
        "fcn_voc",
        checkpoint,
        read_voc_masks(images),
        Settings(batch_size=8, options={"optim_wrapper.optimizer.lr": 0.7}),
    )
    assert cfg.optim_wrapper.optimizer.lr == 0.7  # options are applied last
    with pytest.raises(ValueError, match=r"must be KEY=VALUE, such as .* got 'text'"):
        parse_options(["text"])


def test_schedule_is_rescaled(checkpoint, images):
    data = read_coco_instances(images)
    cfg = config("mask_rcnn_coco", checkpoint, data, Settings(iterations=90000))
    assert cfg.train_cfg.max_iters == 90000 and cfg.param_scheduler[0].end == 1000
    assert cfg.param_scheduler[1].milestones == [60000, 80000]
    cfg = config("mask_rcnn_coco", checkpoint, data, Settings(iterations=15))
    assert [schedule.type for schedule in cfg.param_scheduler] == ["MultiStepLR"]  # no warm-up of one step
    cfg = config("fcn_voc", checkpoint, read_voc_masks(images), Settings(iterations=40000))
    assert cfg.param_scheduler[0].end == 40000


def test_strides_are_set_by_the_protocol(images, tmp_path):
    backbone = dict(type="ResNet", depth=18, stem_channels=8, base_channels=8)
    state = {"state_dict": ResNet(18, stem_channels=8, base_channels=8).state_dict()}
    usual = dict(backbone, strides=(1, 2, 2, 2), dilations=(1, 1, 1, 1), num_stages=4)
    torch.save({**state, "meta": {"backbone": usual}}, tmp_path / "usual.pth")
    cfg = config("fcn_voc", tmp_path / "usual.pth", read_voc_masks(images))
    assert cfg.model.backbone.strides == (1, 2, 1, 1)
    assert cfg.model.backbone.dilations == (1, 1, 2, 4)
    with pytest.raises(ValueError, match=r"fcn_voc sets the strides of its network itself"):
        check_backbone("fcn_voc", dict(backbone, strides=(1, 2, 2, 1)), "x")


def test_detection_needs_compiled_ops(images, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match="mask_rcnn_coco needs mmcv's compiled ops"):
        find_protocol("mask_rcnn_coco").load_data(DataOptions(coco=images))
    find_protocol("fcn_voc").load_data(DataOptions(voc_masks=images))


@pytest.mark.parametrize(("devices", "batch", "processes"), [(8, 16, 8), (6, 16, 4), (8, 12, 6), (0, 5, 1), (3, 9, 3)])
def test_number_of_processes_divides_the_batch(monkeypatch, devices, batch, processes):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: devices)
    assert default_processes(batch) == processes


def test_json_with_only_crowds_is_rejected(images, tmp_path):
    for name in ("train2017", "val2017"):
        (tmp_path / name).symlink_to(f"{images}/{name}")
    folder = tmp_path / "annotations"
    folder.mkdir()
    for part in ("train", "val"):
        content = json.loads(Path(images, f"annotations/instances_{part}2017.json").read_text())
        for one in content["annotations"]:
            one["iscrowd"] = int(part == "val")
        (folder / f"instances_{part}2017.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"instances_val2017.json .* all annotations are crowds"):
        read_coco_instances(str(tmp_path))


def evaluate(checkpoint, work_dir, *options):
    line = ["evaluate", checkpoint, "--work-dir", str(work_dir), "--size", "64"]
    assert main([*line, "--iterations", "2", "--batch-size", "2", *options]) == 0
    (file,) = work_dir.glob("result-*.json")
    return json.loads(file.read_text())


def test_fcn_is_evaluated_and_two_networks_are_drawn(checkpoint, images, tmp_path, capsys, worker_in_process):
    result = evaluate(checkpoint, tmp_path, "--voc-masks", images)
    assert result["protocol"] == "fcn_voc" and result["metric"] == "mIoU"
    assert 0 <= result["value"] <= 100 and not result["as_published"]
    assert result["settings"]["iterations"] == 2 and result["settings"]["batch"] == 2
    assert not list(tmp_path.rglob("*.pth"))
    shown = capsys.readouterr().out
    assert "| voc07 | fcn_voc" in shown
    assert f"Predictions and ground truth: {tmp_path}/predictions-fcn_voc-voc07.jpg" in shown
    check_images(tmp_path, result, count=4)
    (log,) = tmp_path.rglob("log.txt")
    assert "SyncBatchNorm (SyncBN) layers in the model will be automatically" in log.read_text()
    assert {"mmdet", "mmsegmentation"} & {n.removeprefix("onedl-") for n in result["versions"]}
    other = tmp_path / "other.pth"
    torch.save(ResNet(18, stem_channels=8, base_channels=8).state_dict(), other)
    line = ["evaluate", str(other), "--work-dir", str(tmp_path), "--size", "64"]
    assert main([*line, "--iterations", "2", "--batch-size", "2", "--voc-masks", images]) == 0
    (sheet,) = tmp_path.glob("predictions-*.jpg")
    assert cv2.imread(str(sheet)).shape[1] == 3 * 240 + 2 * 6


@pytest.mark.slow
def test_diverged_run_reports_no_result(checkpoint, images, tmp_path, capsys, worker_in_process):
    options = ["--voc-masks", images, "--iterations", "4", "--batch-size", "2", "--size", "64"]
    options += ["--cfg-options", "optim_wrapper.optimizer.lr=1e30", "--work-dir", str(tmp_path)]
    assert main(["evaluate", checkpoint, *options]) == 2
    assert "Training has diverged: " in capsys.readouterr().err
    assert not list(tmp_path.glob("result-*.json"))


def check_images(work_dir, result, count):
    """Checks the drawn predictions and ground truth of all test images, and the sheet."""
    files = sorted((work_dir / result["further"]["predictions"]).glob("*.jpg"))
    assert len(files) == 2 * count
    assert sum(file.name.endswith("_truth.jpg") for file in files) == count
    (sheet,) = work_dir.glob("predictions-*.jpg")
    height, width = cv2.imread(str(sheet)).shape[:2]
    assert width == 2 * 240 + 6 and height > count * 240


@pytest.mark.slow
def test_killed_run_resumes_from_its_last_checkpoint(checkpoint, images, tmp_path):
    options = ["--voc-masks", images, "--work-dir", str(tmp_path), "--size", "64"]
    line = [sys.executable, "-m", "sspyr_mm", "evaluate", checkpoint, *options]
    line += ["--iterations", "40", "--batch-size", "2"]
    process = subprocess.Popen(line, start_new_session=True)
    deadline = time.monotonic() + 300
    while not list(tmp_path.rglob("iter_8.pth")):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert not list(tmp_path.glob("result-*.json"))
    subprocess.run(line, check=True, capture_output=True)
    (log,) = tmp_path.rglob("log.txt")
    (start,) = re.findall(r"resumed epoch: \d+, iter: (\d+)", log.read_text())
    assert 4 <= int(start) < 40
    assert len(list(tmp_path.glob("result-*.json"))) == 1 and not list(tmp_path.rglob("*.pth"))


@pytest.mark.ops
@pytest.mark.slow
def test_mask_rcnn_is_evaluated(checkpoint, images, tmp_path):
    options = ["--coco", images, "--protocol", "mask_rcnn_coco"]
    result = evaluate(checkpoint, tmp_path, *options)
    assert result["metric"] == "segm_mAP" and 0 <= result["further"]["bbox_mAP"] <= 100
    assert "bbox_mAP_l" not in result["further"]  # no test image shows a large one
    check_images(tmp_path, result, count=4)


def test_neck_channels_follow_the_network(tmp_path, images):
    torch.save(ResNet(50).state_dict(), tmp_path / "r50.pth")
    cfg = config("mask_rcnn_coco", tmp_path / "r50.pth", read_coco_instances(images))
    assert cfg.model.neck.in_channels == [256, 512, 1024, 2048]
