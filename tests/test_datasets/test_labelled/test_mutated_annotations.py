"""Randomly changed annotations are read, or refused with a clear error."""

import json

import pytest
from mutations import count_refusals
from PIL import Image

from sspyr_mm.datasets.labelled import read_labelled

COUNTS = [30, pytest.param(2000, marks=pytest.mark.slow)]
VOC = """<annotation><filename>a.jpg</filename><size><width>8</width><height>8</height></size>
<object><name>dog</name><difficult>0</difficult><bndbox><xmin>1</xmin></bndbox></object>
<object><name>cat</name><difficult>1</difficult><part><name>head</name></part></object></annotation>
"""


@pytest.fixture
def images(tmp_path):
    for name in ("a.jpg", "b.jpg"):
        Image.new("RGB", (8, 8)).save(tmp_path / name)
    return tmp_path


@pytest.mark.parametrize("count", COUNTS)
def test_mutated_coco_jsons(count, images):
    content = {
        "images": [{"id": 1, "file_name": "a.jpg"}, {"id": 2, "file_name": "b.jpg", "width": 8}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 3, "bbox": [0, 0, 1, 1]}],
        "categories": [{"id": 3, "name": "dog"}, {"id": 4, "name": "cat"}],
    }
    path = images / "x.json"
    assert count_refusals(lambda: read_labelled(path), path.write_bytes, json.dumps(content).encode(), count)


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize(
    "table", ["file,labels\na.jpg,dog;cat\nb.jpg,\"['dog', 'bird']\"\n", "file,dog,cat\na.jpg,1,0\nb.jpg,0,-1\n"]
)
def test_mutated_tables(table, count, images):
    path = images / "x.csv"
    assert count_refusals(lambda: read_labelled(path), path.write_bytes, table.encode(), count)


@pytest.mark.parametrize("count", COUNTS)
def test_mutated_voc_annotations(count, images):
    for folder in ("Annotations", "ImageSets/Main"):
        (images / folder).mkdir(parents=True)
    (images / "ImageSets/Main/train.txt").write_text("a\n")
    path = images / "Annotations/a.xml"

    def read():
        return read_labelled(images, split="train", image_root=str(images))

    assert count_refusals(read, path.write_bytes, VOC.encode(), count)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.json", b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}", r"x\.json is not a COCO json.*nested too deeply"),
        ("x.json", b'{"images": [{"id": ' + b"9" * 5000 + b', "file_name": "a.jpg"}]}', r"x\.json is not a COCO json"),
        ("x.csv", b'file,labels\na.jpg,"[' + b"[" * 50_000 + b"]" * 50_000 + b']"\n', r"x\.csv:2: labels must be"),
        ("x.csv", b"file,labels\na.jpg," + b"dog " * 100_000 + b"\n", r"x\.csv:2: field larger than"),
    ],
)
def test_deep_and_long_annotations_are_refused(name, content, message, images):
    (images / name).write_bytes(content)
    with pytest.raises(ValueError, match=message):
        read_labelled(images / name)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
@pytest.mark.parametrize(
    "declared", ['<!ENTITY a "xxxxxxxxxx"><!ENTITY b "&a;&a;">', '<!ENTITY a SYSTEM "file:///etc/passwd">']
)
def test_entities_are_refused(declared, encoding, images):
    for folder in ("Annotations", "ImageSets/Main"):
        (images / folder).mkdir(parents=True)
    (images / "ImageSets/Main/train.txt").write_text("a\n")
    text = f"<!DOCTYPE annotation [{declared}]>{VOC.replace('dog', '&a;')}"
    (images / "Annotations/a.xml").write_text(text, encoding=encoding)
    with pytest.raises(ValueError, match=r"a\.xml is not a VOC annotation: it declares entities"):
        read_labelled(images, split="train", image_root=str(images))
