"""Image labels of COCO jsons."""

import os

import numpy as np
import pytest
from labelled_files import COCO, names_of, write_coco

from sspyr_mm.datasets.labelled import read_labelled


def test_crowds_count_and_images_without_objects_are_kept(tmp_path):
    found = read_labelled(str(write_coco(tmp_path)))
    assert names_of(found) == ["ab.jpg", "cd.jpg", "ef.jpg"]
    assert found.multi_label and found.targets.dtype == np.int8
    assert found.classes == ("cart", "tree")
    assert found.targets.tolist() == [[1, 1], [0, 0], [1, 0]]
    assert found.image_ids == ("5", "6", "7")


def test_images_of_another_folder_are_found(tmp_path):
    source = write_coco(tmp_path)
    (tmp_path / "val2017").rename(tmp_path / "elsewhere")
    with pytest.raises(
        FileNotFoundError, match=r"no ab\.jpg in .* image_root=FOLDER of a labelled set .*evaluate --train-images"
    ):
        read_labelled(source)
    found = read_labelled(source, image_root=str(tmp_path / "elsewhere"))
    assert all(map(os.path.isfile, found.paths))


def test_missing_image_is_reported(tmp_path):
    source = write_coco(tmp_path)
    (tmp_path / "val2017" / "ef.jpg").unlink()
    with pytest.raises(FileNotFoundError, match=r"1 of 3 files do not exist: .*/ef\.jpg;"):
        read_labelled(source)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"categories": []}, "has no categories"),
        ({"images": []}, "has no images"),
        (
            {"annotations": [{"id": 9, "image_id": 5, "category_id": 4}]},
            "annotation 9 has category_id 4, not in categories",
        ),
        (
            {"annotations": [{"id": 9, "image_id": 4, "category_id": 3}]},
            "annotation 9 has image_id 4, not in images",
        ),
        ({"images": [{"id": 5, "file_name": "ab.jpg"}] * 2}, "duplicate ids of images"),
        (
            {"categories": [{"id": 7, "name": "cart"}, {"id": 3, "name": "cart"}]},
            r"several categories have the same name: cart; rename",
        ),
        (
            {"categories": [{"id": 7, "name": 1}, {"id": 3, "name": ["a"]}]},
            r"names of categories must be text, got 1, \['a'\]: put them in quotes",
        ),
        (
            {"images": [{"id": i, "file_name": "ab.jpg"} for i in (5, 6, 7)]},
            r"several images have the same file_name: .*/ab\.jpg; merge them",
        ),
        *(
            ({"images": [{"id": 5, "file_name": name}]}, f"COCO json .*file_name must be text, got {shown}")
            for name, shown in ((5, "5"), (None, "None"), (["a"], r"\['a'\]"), ("", "''"))
        ),
        *(
            ({part: [{**COCO[part][0], key: [5]}]}, rf"COCO json .*: {key} must be a number or text, got \[5\]")
            for part, key in (
                ("images", "id"),
                ("categories", "id"),
                ("annotations", "image_id"),
                ("annotations", "category_id"),
            )
        ),
        ({"images": [{"id": 5}]}, r"not a COCO json of instances: .*KeyError: 'file_name'"),
    ],
)
def test_malformed_annotations_are_reported(tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        read_labelled(write_coco(tmp_path, **changes))


def test_split_of_a_json_is_refused(tmp_path):
    with pytest.raises(ValueError, match="a single split: give the file of split 'train'"):
        read_labelled(write_coco(tmp_path), split="train")
