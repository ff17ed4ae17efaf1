"""Multi-label data sets, from a config through mmpretrain's pipeline and a data loader."""

import json

import numpy as np
import pytest
import torch
from labelled_files import write_coco, write_image, write_voc
from mmengine.config import ConfigDict
from mmengine.registry import DefaultScope
from mmengine.runner import Runner
from mmpretrain.registry import DATASETS

PIPELINE = [
    {"type": "LoadImageFromFile"},
    {"type": "CenterCrop", "crop_size": 16},
    {"type": "PackInputs", "meta_keys": ("img_path", "image_id", "sample_idx")},
]


def load(dataset, num_workers=0):
    """Loads all samples with the loader of a config."""
    loader = ConfigDict(
        dataset=dataset,
        batch_size=2,
        num_workers=num_workers,
        sampler={"type": "DefaultSampler", "shuffle": False},
        collate_fn={"type": "pseudo_collate"},
    )
    with DefaultScope.overwrite_default_scope("mmpretrain"):
        batches = list(Runner.build_dataloader(loader))
    images = [image for batch in batches for image in batch["inputs"]]
    assert all(image.shape == (3, 16, 16) and image.dtype == torch.uint8 for image in images)
    return [sample for batch in batches for sample in batch["data_samples"]]


@pytest.mark.parametrize("num_workers", [0, 1])
def test_coco_labels_pass_through_a_loader(tmp_path, num_workers):
    write_coco(tmp_path)
    dataset = {
        "type": "CocoMultiLabel",
        "ann_file": "annotations/instances_val2017.json",
        "data_root": str(tmp_path),
        "data_prefix": {"img_path": "val2017/"},
        "pipeline": PIPELINE,
    }
    samples = load(dataset, num_workers)
    assert [sample.image_id for sample in samples] == ["5", "6", "7"]
    labels = [sample.gt_label for sample in samples]
    assert [label.tolist() for label in labels] == [[0, 1], [], [0]]  # category-list order
    assert all(label.dtype == torch.int64 for label in labels)
    scores = torch.stack([sample.gt_score for sample in samples])
    assert scores.dtype == torch.float32 and scores.tolist() == [[1, 1], [0, 0], [1, 0]]


def test_coco_finds_images_and_names_classes(tmp_path):
    write_coco(tmp_path)
    args = {"ann_file": "annotations/instances_val2017.json", "data_root": str(tmp_path)}
    dataset = DATASETS.build({"type": "CocoMultiLabel", **args})
    assert dataset.metainfo["classes"] == ("cart", "tree")
    assert dataset.get_cat_ids(0) == [0, 1] and dataset.get_cat_ids(1) == []
    other = DATASETS.build({"type": "CocoMultiLabel", "classes": ["tree", "dog", "cart"], **args})
    assert other.metainfo["classes"] == ("tree", "dog", "cart")
    assert other[0]["gt_score"].tolist() == [1, 0, 1]
    with pytest.raises(ValueError, match="Labels outside of the 1 classes given: tree"):
        DATASETS.build({"type": "CocoMultiLabel", "classes": ["cart"], **args})
    assert DATASETS.build({"type": "CocoMultiLabel", **args}).metainfo["classes"] == ("cart", "tree")


def test_coco_uses_the_images_of_a_list(tmp_path):
    write_coco(tmp_path)
    listed = tmp_path / "part.txt"
    args = {
        "type": "CocoMultiLabel",
        "ann_file": str(tmp_path / "annotations" / "instances_val2017.json"),
        "image_ids": str(listed),
    }
    listed.write_text("# two of three\n7\n5\n")
    dataset = DATASETS.build(args)
    assert [dataset[i]["image_id"] for i in range(len(dataset))] == ["5", "7"]
    listed.write_text("7\n8\n")
    with pytest.raises(ValueError, match=r"part\.txt: 1 of 2 listed images are missing .*: 8; the"):
        DATASETS.build(args)
    with pytest.raises(FileNotFoundError, match=r"No list of image ids at .*gone\.txt"):
        DATASETS.build({**args, "image_ids": str(tmp_path / "gone.txt")})
    with pytest.raises(FileNotFoundError, match=r"No labelled set at .*gone\.json"):
        DATASETS.build({**args, "ann_file": "gone.json", "data_root": str(tmp_path)})


def test_voc_marks_ignored_classes(tmp_path):
    annotations = {"a": [("dog", False), ("person", True)], "b": [("cow", False)], "c": []}
    write_voc(tmp_path, annotations, {"trainval": ["a", "c"], "test": ["b"]})
    dataset = {"type": "MultiLabelImages", "data_root": str(tmp_path), "split": "trainval", "pipeline": PIPELINE}
    first, second = load(dataset)
    dog, person = 11, 14
    assert first.gt_label.tolist() == [dog] and second.gt_label.tolist() == []
    expected = np.zeros(20)
    expected[dog], expected[person] = 1, -1
    assert first.gt_score.tolist() == expected.tolist() and not second.gt_score.any()
    assert (first.num_classes, first.image_id) == (20, "a")


def test_table_uses_the_classes_of_another_part(tmp_path):
    for name in ("a.jpg", "b.jpg"):
        write_image(tmp_path / name)
    (tmp_path / "test.csv").write_text("file,labels\na.jpg,dog\nb.jpg,\n")
    args = {"type": "MultiLabelImages", "data_root": str(tmp_path / "test.csv")}
    dataset = DATASETS.build({**args, "classes": ["cat", "dog"]})
    assert [info["gt_score"].tolist() for info in (dataset[0], dataset[1])] == [[0, 1], [0, 0]]
    assert "test.csv" in repr(dataset)


def test_samples_are_the_same_with_and_without_serialisation(tmp_path):
    source = write_coco(tmp_path)
    args = {"type": "CocoMultiLabel", "ann_file": str(source)}
    plain, serialised = (DATASETS.build({**args, "serialize_data": serialize}) for serialize in (False, True))
    for _ in range(2):  # loading a sample must not change the stored one
        for one, other in zip(plain, serialised, strict=False):
            assert json.dumps(one, default=np.ndarray.tolist) == json.dumps(other, default=np.ndarray.tolist)
            assert one["gt_score"].any() == bool(len(one["gt_label"]))
