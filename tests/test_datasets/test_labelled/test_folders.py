"""Sets with one folder per class."""

import pytest
from PIL import Image

from sspyr_mm.datasets.labelled import read_labelled


def test_files_skipped_in_a_class_are_reported(tmp_path):
    for name in ("cat/1.jpg", "cat/2.jpg", "dog/1.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (9, 9)).save(tmp_path / name)
    (tmp_path / "cat/notes.txt").write_text("about cats")
    with pytest.warns(UserWarning, match=r"cat: 1 of 3 files skipped: 1 \.txt"):
        found = read_labelled(tmp_path)
    assert len(found.paths) == 3
