"""VOC annotations written by other programs."""

import pytest

from sspyr_mm.datasets.labelled import read_labelled

OBJECT = "<object><name>жук</name><difficult>0</difficult><bndbox><xmin>1</xmin></bndbox></object>"


@pytest.fixture
def read(tmp_path):
    for below in ("Annotations", "ImageSets/Main", "JPEGImages"):
        (tmp_path / below).mkdir(parents=True)
    (tmp_path / "JPEGImages/a.jpg").touch()
    (tmp_path / "ImageSets/Main/TRAIN.TXT").write_bytes("a.jpg\r\n".encode("utf-16"))

    def read(text, encoding="utf-8"):
        (tmp_path / "Annotations/a.xml").write_bytes(text.encode(encoding))
        found = read_labelled(tmp_path, split="TRAIN")
        return [found.classes[column] for column in found.targets[0].nonzero()[0]]

    return read


@pytest.mark.parametrize(
    ("declared", "encoding"),
    [
        ("", "utf-8"),
        ("", "utf-8-sig"),
        ("", "utf-16"),
        ("UTF-8", "utf-16"),
        ("UTF-16", "utf-16"),
        ("windows-1251", "windows-1251"),
    ],
)
def test_declared_and_undeclared_encodings_are_read(read, declared, encoding):
    head = f'<?xml version="1.0" encoding="{declared}"?>' if declared else ""
    assert read(f"{head}<annotation>{OBJECT}</annotation>", encoding) == ["жук"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (f'<annotation xmlns="http://x">{OBJECT}</annotation>', r"1 objects, of which 0 .*xmlns"),
        (f"<annotation><objects>{OBJECT}</objects></annotation>", "1 objects, of which 0"),
        (f"<annotation>{OBJECT}<more>{OBJECT}</more></annotation>", "2 objects, of which 1"),
        (f"<root><annotation>{OBJECT}</annotation></root>", "1 objects, of which 0 .* root <root>"),
        ("<annotation><Object><name>x</name></Object></annotation>", "1 objects, of which 0"),
        ("<annotation><item><bndbox/></item></annotation>", "0 objects, of which 0"),
        ("<annotations><image><box label='x'/></image></annotations>", "root is <annotations>"),
    ],
)
def test_objects_outside_of_the_layout_are_refused(read, text, message):
    with pytest.raises(ValueError, match=rf"a\.xml is not a VOC annotation: .*{message}"):
        read(text)


def test_images_without_objects_and_parts_of_objects_are_valid(read):
    assert read("<annotation><filename>a.jpg</filename></annotation>") == []
    part = "<part><name>head</name><bndbox/></part>"
    text = f"<annotation><!-- by hand --><object><name>dog</name>{part}</object></annotation>"
    assert read(text) == ["dog"]
