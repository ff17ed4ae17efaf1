"""Detection and segmentation on photographs: metrics equal independent ones, and a few images can be overfitted."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pretrained_files import save_resnet18
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from sspyr_mm.__main__ import main

pytestmark = [pytest.mark.real_data, pytest.mark.slow, pytest.mark.timeout(2400)]

NUM_IMAGES = 8
NARROW_FCN = ["model.decode_head.channels=128", "model.auxiliary_head.channels=64"]
NARROW = [  # heads that a CPU can train
    "model.train_cfg.rcnn.sampler.num=64",
    "model.train_cfg.rpn_proposal.max_per_img=200",
    "model.test_cfg.rpn.max_per_img=100",
    "model.neck.out_channels=64",
    "model.rpn_head.in_channels=64",
    "model.rpn_head.feat_channels=64",
    "model.roi_head.bbox_roi_extractor.out_channels=64",
    "model.roi_head.mask_roi_extractor.out_channels=64",
    "model.roi_head.bbox_head.in_channels=64",
    "model.roi_head.bbox_head.conv_out_channels=64",
    "model.roi_head.bbox_head.fc_out_channels=256",
    "model.roi_head.mask_head.in_channels=64",
    "model.roi_head.mask_head.conv_out_channels=64",
    "default_hooks.precise_bn.num_iters=4",
]


@pytest.fixture(scope="module")
def few_instances(real_data, tmp_path_factory):
    """COCO's layout with the same images for training and evaluation."""
    source, root = real_data / "coco_mini", tmp_path_factory.mktemp("coco")
    content = json.loads((source / "annotations/instances_train2017.json").read_text())
    large = [a for a in content["annotations"] if not a["iscrowd"] and a["area"] > 9000]
    chosen = sorted({a["image_id"] for a in large})[:2]
    content["images"] = [image for image in content["images"] if image["id"] in chosen]
    content["annotations"] = [a for a in large if a["image_id"] in chosen]
    (root / "annotations").mkdir()
    for part in ("train2017", "val2017"):
        (root / part).symlink_to(source / "train2017")
        (root / f"annotations/instances_{part}.json").write_text(json.dumps(content))
    return root


@pytest.fixture(scope="module")
def few_masks(real_data, tmp_path_factory):
    """VOC's layout with the same images for training and evaluation."""
    source, root = real_data / "voc_mini/VOC2007", tmp_path_factory.mktemp("voc") / "VOC2007"
    lists = root / "ImageSets/Segmentation"
    lists.mkdir(parents=True)
    for name in ("JPEGImages", "SegmentationClass"):
        (root / name).symlink_to(source / name)
    ids = (source / "ImageSets/Segmentation/trainval.txt").read_text().split()
    for name in ("trainval", "test"):
        (lists / f"{name}.txt").write_text("\n".join(ids[:NUM_IMAGES]))
    return root


def evaluate(checkpoint, work_dir, *options):
    assert main(["evaluate", checkpoint, "--work-dir", str(work_dir), *map(str, options)]) == 0
    (result,) = (json.loads(path.read_text()) for path in work_dir.glob("result-*.json"))
    return result


def losses(work_dir):
    (log,) = work_dir.rglob("scalars.json")
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    return [line["loss"] for line in lines if "loss" in line]


def independent_miou(truths, predictions, num_classes):
    """Computes the mean intersection over union of the classes that occur, from one confusion matrix."""
    matrix = np.zeros((num_classes, num_classes), np.int64)
    for truth, prediction in zip(truths, predictions, strict=True):
        counted = truth < num_classes  # 255: void
        pairs = num_classes * truth[counted].astype(int) + prediction[counted]
        matrix += np.bincount(pairs, minlength=num_classes**2).reshape(matrix.shape)
    union = matrix.sum(0) + matrix.sum(1) - matrix.diagonal()
    occur = union > 0
    return 100 * (matrix.diagonal()[occur] / union[occur]).mean()


def test_fcn_overfits_eight_images(few_masks, narrow_file, tmp_path):
    written = tmp_path / "masks"
    result = evaluate(
        narrow_file,
        tmp_path / "work",
        *["--voc-masks", few_masks, "--size", 96, "--iterations", 200, "--batch-size", 8],
        *["--cfg-options", *NARROW_FCN, f"val_evaluator.output_dir={written}"],
    )
    assert result["value"] > 30  # predicting the background alone has 10.9
    curve = losses(tmp_path)
    assert curve[-1] < 0.5 * curve[0]
    files = sorted(written.glob("*.png"))
    assert len(files) == NUM_IMAGES
    masks = few_masks / "SegmentationClass"
    truths = [np.asarray(Image.open(masks / file.name)) for file in files]
    predictions = [np.asarray(Image.open(file)) for file in files]
    assert independent_miou(truths, predictions, 21) == pytest.approx(result["value"], abs=0.006)


@pytest.mark.ops
def test_mask_rcnn_overfits_two_images(few_instances, narrow_file, tmp_path):
    written = tmp_path / "found"
    result = evaluate(
        narrow_file,
        tmp_path / "work",
        *["--coco", few_instances, "--protocol", "mask_rcnn_coco"],
        *["--size", 128, "--iterations", 200, "--batch-size", 2],
        *["--cfg-options", *NARROW, f"val_evaluator.outfile_prefix={written}"],
    )
    assert result["further"]["bbox_mAP_50"] > 50 and result["further"]["segm_mAP_50"] > 50
    curve = losses(tmp_path)
    assert curve[-1] < 0.5 * curve[0]
    truth = COCO(str(few_instances / "annotations/instances_val2017.json"))
    for kind in ("bbox", "segm"):
        measured = COCOeval(truth, truth.loadRes(f"{written}.{kind}.json"), kind)
        measured.evaluate()
        measured.accumulate()
        measured.summarize()
        figures = {**result["further"], "segm_mAP": result["value"]}
        assert figures[f"{kind}_mAP"] == pytest.approx(100 * measured.stats[0], abs=0.06)
        assert figures[f"{kind}_mAP_50"] == pytest.approx(100 * measured.stats[1], abs=0.06)


@pytest.mark.parametrize("protocol", ["fcn_voc", pytest.param("mask_rcnn_coco", marks=pytest.mark.ops)])
def test_protocol_runs_on_real_files(real_data, narrow_file, tmp_path, protocol):
    data = {
        "fcn_voc": ["--voc-masks", real_data / "voc_mini", "--cfg-options", *NARROW_FCN],
        "mask_rcnn_coco": ["--coco", real_data / "coco_mini", "--cfg-options", *NARROW],
    }[protocol]
    quick = ["--size", 64, "--iterations", 4, "--batch-size", 4, "--protocol", protocol]
    result = evaluate(narrow_file, tmp_path, *quick, *data)
    assert 0 <= result["value"] < 60 and not result["as_published"]
    counts = {"fcn_voc": (156, 109, 20), "mask_rcnn_coco": (165, 70, 80)}[protocol]
    assert tuple(result["counts"].values()) == counts
    assert Path(tmp_path, f"predictions-{protocol}-{result['data']}.jpg").is_file()


@pytest.fixture(scope="module")
def narrow_file(tmp_path_factory):
    return save_resnet18(tmp_path_factory.mktemp("checkpoint") / "narrow.pth", width=32, seed=0)
