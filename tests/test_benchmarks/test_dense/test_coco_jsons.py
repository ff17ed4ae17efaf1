"""COCO jsons of annotation tools are completed, or rejected before training."""

import json
import warnings

import mmcv
import pytest
import torch
from mmdet.datasets import CocoDataset
from mmdet.evaluation import CocoMetric

from sspyr_mm.benchmarks.dense.read_coco import read_coco_instances

NAMES = ("a.jpg", "b c.jpg", "d.jpg")
CLASSES = ("cat", "dog")


def make_content():
    """Three images with two boxes each."""
    annotations = []
    for image_id in (1, 2, 3):
        for category, x in ((1, 1), (2, 12)):
            polygon = [x, 2, x + 8, 2, x + 8, 12, x, 12]
            annotations.append(
                dict(image_id=image_id, category_id=category, bbox=[x, 2, 8, 10], area=80,
                     segmentation=[polygon], iscrowd=0, id=len(annotations) + 1)
            )  # fmt: skip
    images = [dict(id=i, file_name=n, width=24, height=16) for i, n in enumerate(NAMES, 1)]
    categories = [dict(id=i, name=name) for i, name in enumerate(CLASSES, 1)]
    return dict(images=images, annotations=annotations, categories=categories)


@pytest.fixture
def layout(tmp_path, write_image):
    """Writes COCO's layout; a function may change the json of val."""

    def write(change=lambda content: None, *, below="", encoding="utf-8", orientation=None):
        (tmp_path / "annotations").mkdir()
        for part in ("train2017", "val2017"):
            content = make_content()
            if part == "val2017":
                change(content)
            data = json.dumps(content).encode(encoding if part == "val2017" else "utf-8")
            (tmp_path / f"annotations/instances_{part}.json").write_bytes(data)
            for number, name in enumerate(NAMES):  # images of other bytes in each part
                turned = orientation if part == "val2017" and number == 1 else None
                write_image(tmp_path / part / (below if part == "val2017" else "") / name, turned)
        return str(tmp_path)

    return write


def for_mmdet(data, folder):
    """Returns the json of val that mmdet reads."""
    return str(folder / data.write_annotations(str(folder / "work")).test.annotations[0])


def load(data, folder):
    """Returns mmdet's data set of val."""
    return CocoDataset(
        data_root=data.root,
        ann_file=for_mmdet(data, folder),
        data_prefix=dict(img=data.test.images),
        metainfo=dict(classes=data.classes),
    )


def perfect_score(json_file):
    """Average precision in percent of a detector that finds exactly the boxes of a json."""
    metric = CocoMetric(json_file, metric="bbox", format_only=False)
    metric.dataset_meta = dict(classes=CLASSES)
    with open(json_file) as file:
        content = json.load(file)
    for image in content["images"]:
        boxes = [a for a in content["annotations"] if a["image_id"] == image["id"]]
        corners = [(x, y, x + w, y + h) for x, y, w, h in (a["bbox"] for a in boxes)]
        found = dict(
            bboxes=torch.tensor(corners, dtype=torch.float),
            scores=torch.ones(len(boxes)),
            labels=torch.tensor([a["category_id"] - 1 for a in boxes]),
        )
        sample = dict(img_id=image["id"], ori_shape=(16, 24), pred_instances=found)
        metric.process({}, [sample])
    return 100 * metric.evaluate(size=len(content["images"]))["coco/bbox_mAP"]


def number_from_0(content):
    for number, one in enumerate(content["annotations"]):
        one["id"] = number


def number_alike(content):
    for one in content["annotations"]:
        one["id"] = 0


def restart_numbers(content):
    for one in content["annotations"]:
        one["id"] = one["category_id"]


def drop_numbers(content):
    for one in content["annotations"]:
        del one["id"]


def drop_crowds(content):
    for one in content["annotations"]:
        del one["iscrowd"]


def keep(content):
    return None


@pytest.mark.parametrize("change", [keep, number_from_0, number_alike, restart_numbers, drop_numbers, drop_crowds])
def test_a_perfect_detector_scores_100(layout, tmp_path, change):
    root = layout(change)
    given = for_mmdet(read_coco_instances(root), tmp_path)
    assert perfect_score(given) == pytest.approx(100)
    theirs = f"{root}/annotations/instances_val2017.json"
    assert (given == theirs) == (change is keep)
    if change in (number_from_0, number_alike):  # which is why they are renumbered
        assert perfect_score(theirs) < 95


def rename(template):
    def change(content):
        for image in content["images"]:
            image["file_name"] = template.format(image["file_name"].replace(" ", "%20"))

    return change


@pytest.mark.parametrize(
    ("change", "below", "encoding"),
    [
        (keep, "", "utf-8-sig"),
        (keep, "", "utf-16"),
        (rename("images\\{}"), "images", "utf-8"),
        (rename("/data/local-files/?d=images/{}"), "images", "utf-8"),
        (rename("http://localhost:8080/data/upload/1/{}"), "", "utf-8"),
    ],
)
def test_mmdet_reads_jsons_of_annotation_tools(layout, tmp_path, change, below, encoding):
    data = read_coco_instances(layout(change, below=below, encoding=encoding))
    wanted = [str(tmp_path / "val2017" / below / name) for name in NAMES]
    assert list(data.test.paths) == wanted
    dataset = load(data, tmp_path)
    assert [dataset.get_data_info(at)["img_path"] for at in range(3)] == wanted
    assert [len(dataset.get_data_info(at)["instances"]) for at in range(3)] == [2, 2, 2]


@pytest.mark.parametrize("swapped", [False, True])
@pytest.mark.parametrize("orientation", [None, 3, 5, 6, 8])
def test_sizes_are_checked_against_loaded_images(layout, tmp_path, orientation, swapped):
    def change(content):
        if swapped:
            content["images"][1].update(width=16, height=24)

    root = layout(change, orientation=orientation)
    height, width = mmcv.imread(f"{root}/val2017/b c.jpg").shape[:2]
    if (width, height) == ((16, 24) if swapped else (24, 16)):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of boxes outside of the swapped image
            read_coco_instances(root)
        return
    reason = "EXIF orientation is applied" if width == 16 else "the wrong pixels"
    message = (
        rf"val2017\.json: 1 of 3 images differ in size .*First: .*b c\.jpg is loaded as {width} x {height} .*{reason}"
    )
    with pytest.raises(ValueError, match=message):
        read_coco_instances(root)


def test_unreadable_image_is_rejected(layout, tmp_path):
    root = layout()
    (tmp_path / "train2017/d.jpg").write_bytes(b"text")
    with pytest.raises(ValueError, match=r"train2017/d\.jpg cannot be read as an image"):
        read_coco_instances(root)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c["images"][1].update(id=1), "two images have the same id"),
        (lambda c: c["images"][1].update(file_name="./a.jpg"), "have the same file_name"),
        (lambda c: c["images"][1].update(file_name=3), "file_name must be text, got 3"),
        (lambda c: c["images"][1].update(width="24"), r"width and height of b c\.jpg must be numb"),
        (lambda c: c["annotations"][2].pop("area"), "annotation 3 has no area"),
        (lambda c: c["annotations"][2].update(bbox=[1, 2]), r"annotation 3 has the box \[1, 2\]"),
        (lambda c: c["annotations"][2].update(segmentation=[[1, 2, 3, 4]]), "3 has a polygon of fe"),
        (
            lambda c: c["annotations"][2].update(segmentation=dict(counts="", size=[24, 16])),
            r"annotation 3 has a mask of \[24, 16\] \(height, width\), its image \[16, 24\]",
        ),
    ],
)  # fmt: skip
def test_json_with_invalid_values_is_rejected(layout, change, message):
    with pytest.raises(ValueError, match=message):
        read_coco_instances(layout(change))


@pytest.mark.parametrize("box", [[30, 2, 8, 10], [1, 2, 0.5, 10], [-9, 2, 8, 10]])
def test_skipped_boxes_are_counted(layout, tmp_path, box):
    root = layout(lambda content: content["annotations"][2].update(bbox=box))
    message = r"val2017\.json: 1 of 6 boxes .* not learned\. First: .* of image 2"
    with pytest.warns(UserWarning, match=message):
        data = read_coco_instances(root)
    dataset = load(data, tmp_path)
    assert [len(dataset.get_data_info(at)["instances"]) for at in range(3)] == [2, 1, 2]


def test_alike_classes_are_reported(tmp_path, layout):
    def change(content):
        content["categories"][1]["name"] = "C at"

    root = layout(change)
    for part in ("train", "val"):
        path = tmp_path / f"annotations/instances_{part}2017.json"
        content = json.loads(path.read_text())
        change(content)
        path.write_text(json.dumps(content))
    with pytest.warns(UserWarning, match="differ only in case or spaces: 'cat' / 'C at'"):
        read_coco_instances(root)
