"""Search for images in every kind of source, and replacement of broken ones."""

import json
import os
import re
import tempfile
import tracemalloc
from pathlib import Path

import cv2
import numpy as np
import pytest
from mmengine.config import Config
from torch.utils.data import DataLoader

from sspyr_mm.datasets import LoadRGBImage, UnlabelledImages
from sspyr_mm.datasets.transforms.decoding import UnreadableImageError
from sspyr_mm.engine.config import set_data_root


def image_file(path, value=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.full((6, 8, 3), 200, np.uint8)
    pixels[0, 0] = value  # because constant images are reported
    assert cv2.imwrite(str(path), pixels)
    return path


def found(*args, **kwargs):
    dataset = UnlabelledImages(*args, **kwargs)
    return [dataset.get_data_info(i)["img_path"] for i in range(len(dataset))]


def touch(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def relative(paths, root):
    return [os.path.relpath(path, root) for path in paths]


def test_folder_is_searched_recursively_and_sorted(tmp_path):
    names = ["b.jpg", "a.PNG", "deep/er/c.webp", "deep/d.JPEG", "e.tif", "deep/f.gif", "z/g.bmp"]
    touch(tmp_path, *names, "notes.txt", "labels.json", "deep/movie.mp4", "jpg", "f.jpg.part")
    assert relative(found(tmp_path), tmp_path) == sorted(names)
    assert relative(found(str(tmp_path)), tmp_path) == sorted(names)


def test_home_folder_is_expanded(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "images").mkdir()
    (tmp_path / "images/a.jpg").touch()
    assert found("~/images") == [str(tmp_path / "images/a.jpg")]


def test_hidden_files_and_folders_are_skipped(tmp_path):
    touch(tmp_path, "a.jpg", "._a.jpg", ".thumbnails/a.jpg", "b/.git/c.png")
    assert relative(found(tmp_path), tmp_path) == ["a.jpg"]


def test_hidden_folder_can_be_the_root(tmp_path):
    touch(tmp_path, ".cache/a.jpg")
    assert relative(found(tmp_path / ".cache"), tmp_path) == [".cache/a.jpg"]


def test_links_are_followed_and_loops_end(tmp_path):
    root = tmp_path / "root"
    touch(tmp_path, "root/a.jpg", "root/sub/b.jpg", "elsewhere/c.jpg")
    (root / "sub/up").symlink_to(root)
    (root / "linked").symlink_to(tmp_path / "elsewhere")
    (root / "d.jpg").symlink_to(tmp_path / "elsewhere/c.jpg")
    assert relative(found(root), root) == ["a.jpg", "d.jpg", "linked/c.jpg", "sub/b.jpg"]


def test_each_folder_is_listed_once_despite_links_to_parents(tmp_path, monkeypatch):
    """Two links upwards double the paths at every level."""
    touch(tmp_path, "sub/a.jpg")
    for name in ("one", "two", "sub/one", "sub/two"):
        (tmp_path / name).symlink_to(tmp_path)
    listed, scan = [], os.scandir

    def scandir(path):
        listed.append(path)
        assert len(listed) < 20, "endless"
        return scan(path)

    monkeypatch.setattr(os, "scandir", scandir)
    assert relative(found(tmp_path), tmp_path) == ["sub/a.jpg"]


def test_choice_between_two_paths_of_a_folder_is_deterministic(tmp_path, monkeypatch):
    touch(tmp_path, "b/x.jpg")
    (tmp_path / "a").symlink_to(tmp_path / "b")
    (tmp_path / "c").symlink_to(tmp_path / "b")
    scan = os.scandir

    class Entries:
        def __init__(self, entries):
            self.entries = iter(entries)

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

        def __iter__(self):
            return self.entries

    for reverse in (False, True):

        def ordered(path, reverse=reverse):
            with scan(path) as entries:
                return Entries(sorted(entries, key=lambda e: e.name, reverse=reverse))

        monkeypatch.setattr(os, "scandir", ordered)
        assert relative(found(tmp_path), tmp_path) == ["a/x.jpg"]


def test_sub_folder_and_suffixes_can_be_set(tmp_path):
    touch(tmp_path, "train/a.jpg", "train/b.jp2", "val/c.jpg")
    assert relative(found(tmp_path, data_prefix=dict(img_path="train")), tmp_path) == ["train/a.jpg", "train/b.jp2"]
    assert relative(found(tmp_path, suffixes=[".JP2"]), tmp_path) == ["train/b.jp2"]


def test_list_file_is_read(tmp_path):
    inner = image_file(tmp_path / "lists/images/a.png")
    outer = image_file(tmp_path / "other/b.png")
    listing = tmp_path / "lists/train.txt"
    listing.write_text(f"# chosen by hand\nimages/a.png\n\n  {outer}  \n", encoding="utf-8")
    assert found(listing) == [str(inner), str(outer)]
    listing.write_text("b.png\n")
    assert found(listing, data_prefix=dict(img_path=str(tmp_path / "other"))) == [str(outer)]


def test_list_file_that_is_not_utf_8_is_reported(tmp_path):
    (tmp_path / "list.txt").write_bytes("a.png\nHäuser/b.png\n".encode("latin-1"))
    message = f"{tmp_path}/list.txt is not UTF-8 text (byte 0xe4 at 7): save it as UTF-8, e.g. iconv -f"
    with pytest.raises(ValueError, match=re.escape(message)):
        UnlabelledImages(tmp_path / "list.txt")


def listing_of(folder, count):
    (folder / "list.txt").write_text("".join(f"images/{i:08}.jpg\n" for i in range(count)))
    (folder / "images").mkdir()
    for i in range(count):
        (folder / f"images/{i:08}.jpg").touch()
    return folder / "list.txt"


def test_lists_of_millions_need_little_memory(tmp_path):
    """mmengine's dict and array per image would take about 700 bytes per image."""
    count = 5_000
    listing = listing_of(tmp_path, count)
    tracemalloc.start()
    try:
        dataset = UnlabelledImages(listing)
        used = tracemalloc.get_traced_memory()[1] / count
    finally:
        tracemalloc.stop()
    assert dataset.data_bytes.nbytes == dataset.data_address[-1] and len(dataset) == count
    assert used < 2.5 * (len(str(tmp_path)) + 150), used


@pytest.mark.parametrize("serialize", [True, False])
def test_images_are_the_same_with_and_without_serialisation(tmp_path, serialize):
    listing = listing_of(tmp_path, 9)
    paths = [f"{tmp_path}/images/{i:08}.jpg" for i in range(9)]
    options = dict(serialize_data=serialize)
    dataset = UnlabelledImages(listing, **options)
    assert [dataset.get_data_info(i) for i in range(9)] == [
        dict(img_path=path, sample_idx=i) for i, path in enumerate(paths)
    ]
    assert dataset.load_data_list() == [dict(img_path=path) for path in paths]
    assert found(listing, indices=3, **options) == paths[:3]
    assert found(listing, indices=[7, 2], **options) == [paths[7], paths[2]]
    lazy = UnlabelledImages(listing, lazy_init=True, **options)
    assert len(lazy.get_subset([1, 4])) == 2 and len(lazy) == 9


def test_list_file_keeps_its_order(tmp_path):
    for name in "cab":
        image_file(tmp_path / f"{name}.png")
    (tmp_path / "list.txt").write_text("c.png\na.png\nb.png\n")
    assert relative(found(tmp_path / "list.txt"), tmp_path) == ["c.png", "a.png", "b.png"]


@pytest.mark.parametrize(
    ("annotations", "images"),
    [
        ("annotations/instances_train2017.json", "train2017"),
        ("annotations/image_info_unlabeled2017.json", "unlabeled2017"),
        ("train2017.json", "train2017"),
        ("coco.json", "."),
        ("annotations/anything.json", "."),
        ("annotations/instances_val2017.json", "images/val2017"),
    ],
)
def test_images_of_a_coco_json_are_found(tmp_path, annotations, images):
    names = ["000000000009.jpg", "000000000002.jpg"]
    expected = [image_file(tmp_path / images / name) for name in names]
    path = tmp_path / annotations
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(dict(images=[dict(file_name=n) for n in names], annotations=[])))
    assert [os.path.realpath(p) for p in found(path)] == [str(p.resolve()) for p in expected]


def test_images_of_a_coco_json_are_found_by_prefix(tmp_path):
    expected = image_file(tmp_path / "far/away/1.jpg")
    path = tmp_path / "instances_mine.json"
    path.write_text(json.dumps(dict(images=[dict(file_name="1.jpg")])))
    assert found(path, data_prefix=dict(img_path=str(expected.parent))) == [str(expected)]
    with pytest.raises(FileNotFoundError, match=r"were not found: no 1\.jpg in .*mine.*Set data_prefix=dict\(img_"):
        UnlabelledImages(path)


@pytest.mark.parametrize(
    "text", ["[1, 2]", "{}", '{"images": [{"id": 3}]}', '{"images": [{"file_name": 5}]}', "{not json"]
)
def test_other_json_is_refused(tmp_path, text):
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(ValueError, match=r"a\.json is not a COCO json: it needs images\[\]\.file_name \("):
        UnlabelledImages(tmp_path / "a.json")


def test_several_roots_are_concatenated(tmp_path):
    second = image_file(tmp_path / "a/x.png")
    first = image_file(tmp_path / "b/y.png")
    (tmp_path / "list.txt").write_text("a/x.png\n")
    roots = [tmp_path / "b", tmp_path / "list.txt", tmp_path / "a"]
    assert found(roots) == [str(first), str(second), str(second)]


def test_no_images_is_an_error_with_the_places_searched(tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub/readme.md").touch()
    message = (
        f"No images in {tmp_path}, also in sub-folders (1 of 1 files skipped: 1 .md). Set data_root to a folder of "
        "images, a list file (.txt) or a COCO json"
    )
    with pytest.raises(ValueError, match=re.escape(message)):
        UnlabelledImages(tmp_path)
    (tmp_path / "empty.txt").write_text("# nothing\n")
    with pytest.raises(ValueError, match=r"No images in .*empty\.txt"):
        UnlabelledImages(tmp_path / "empty.txt")
    (tmp_path / "empty.json").write_text('{"images": []}')
    with pytest.raises(ValueError, match=r"No images in .*empty\.json"):
        UnlabelledImages(tmp_path / "empty.json")
    with pytest.raises(ValueError, match="data_root is empty: give a folder of images"):
        UnlabelledImages([])


def test_missing_and_unsupported_roots_are_refused(tmp_path):
    message = f"data_root {tmp_path}/gone does not exist: give an existing folder, list file or"
    with pytest.raises(FileNotFoundError, match=re.escape(message)):
        UnlabelledImages(tmp_path / "gone")
    with pytest.raises(ValueError, match=r"a\.png is neither a folder nor a regular file that is a \.txt"):
        UnlabelledImages(image_file(tmp_path / "a.png"))
    image_file(tmp_path / "train/a.png")
    with pytest.raises(FileNotFoundError, match=r"/val: No such file or directory; give an existing folder"):
        UnlabelledImages(tmp_path, data_prefix=dict(img_path="val"))


@pytest.mark.parametrize("locked", [".", "sub"])
def test_unreadable_folder_is_reported(tmp_path, monkeypatch, locked):
    """root can read every folder, so the system call is patched."""
    image_file(tmp_path / "a.png")
    image_file(tmp_path / "sub/b.png")
    closed = os.path.normpath(tmp_path / locked)
    scan = os.scandir

    def scandir(path):
        if os.path.normpath(path) == closed:
            raise PermissionError(13, "Permission denied", closed)
        return scan(path)

    monkeypatch.setattr(os, "scandir", scandir)
    message = f"Cannot read {closed}: grant this user read access (chmod u+rx)"
    with pytest.raises(PermissionError, match=re.escape(message)):
        UnlabelledImages(tmp_path)


@pytest.fixture
def closed_folder():
    """A folder without permissions, in one that has them; root, who reads every folder, becomes another user."""
    user = os.geteuid()
    with tempfile.TemporaryDirectory() as root:
        os.chmod(root, 0o755)
        closed = Path(root, "closed")
        image_file(closed / "sub/b.png")
        closed.chmod(0)
        if user == 0:
            os.seteuid(65534)
        try:
            yield closed
        finally:
            os.seteuid(user)
            closed.chmod(0o755)


def test_folder_without_permissions_is_reported(closed_folder):
    cfg = Config(dict(train_dataloader=dict(dataset=dict(type="UnlabelledImages"))))
    set_data_root(cfg, str(closed_folder))  # asks for an index of shards
    message = rf"^Cannot read {closed_folder}: grant this user read access \(chmod u\+rx\)$"
    for root in (closed_folder, closed_folder.parent):
        with pytest.raises(PermissionError, match=message):
            UnlabelledImages(str(root))
    with pytest.raises(FileNotFoundError, match=r"sub does not exist: .* in a folder that this user may read"):
        UnlabelledImages(str(closed_folder / "sub"))
    with pytest.raises(FileNotFoundError, match="sub' does not exist, or this user may not read its folder"):
        set_data_root(cfg, str(closed_folder / "sub"))


LOAD = [LoadRGBImage()]


@pytest.fixture
def folder_with_broken_files(tmp_path):
    for value in range(10):
        image_file(tmp_path / f"{value}.png", value)
    whole = (tmp_path / "3.png").read_bytes()
    (tmp_path / "3.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "5.png").write_bytes(b"")
    (tmp_path / "7.png").write_text("not an image")
    return tmp_path


def test_broken_image_is_replaced(folder_with_broken_files, log):
    for idx in range(10):
        log.clear()
        dataset = UnlabelledImages(folder_with_broken_files, pipeline=[LoadRGBImage()])
        results = dataset[idx]
        value = int(results["img"][0, 0, 0])
        assert results["img_path"].endswith(f"{value}.png")
        # The replacement keeps the index, so that its views differ from those at its own index.
        assert results["sample_idx"] == idx
        if idx in (3, 5, 7):
            assert value not in (3, 5, 7)
            assert log[0].getMessage().startswith(f"Skipped {folder_with_broken_files}/{idx}.png: ")
        else:
            assert value == idx and not log


def test_replacement_does_not_depend_on_generators_or_workers(folder_with_broken_files):
    dataset = UnlabelledImages(folder_with_broken_files, pipeline=LOAD)

    def epoch(**kwargs):
        loader = DataLoader(dataset, batch_size=None, **kwargs)
        return [results["img_path"] for results in loader]

    np.random.seed(0)
    first = epoch()
    np.random.seed(1)
    assert epoch() == first
    assert epoch(num_workers=2) == first
    assert len({first[3], first[5], first[7]}) > 1


def test_only_broken_files_are_an_error(tmp_path):
    for name in "ab":
        (tmp_path / f"{name}.jpg").write_bytes(b"")
    dataset = UnlabelledImages(tmp_path, pipeline=LOAD, max_refetch=3)
    message = (
        f"Image 1 of {tmp_path} and 3 replacements cannot be read: see 'Skipped ...' above; "
        "remove or repair these files"
    )
    with pytest.raises(UnreadableImageError, match=re.escape(message)):
        dataset[1]


def test_negative_indices_count_from_the_end_and_large_ones_raise(tmp_path):
    for value in (1, 2):
        image_file(tmp_path / f"{value}.png", value)
    dataset = UnlabelledImages(tmp_path, pipeline=LOAD)
    assert dataset[-1]["img"][0, 0, 0] == 2 and dataset[-1]["sample_idx"] == 1
    assert [results["sample_idx"] for results in dataset] == [0, 1]
    with pytest.raises(IndexError, match="out of range"):
        dataset[2]


@pytest.mark.real_data
def test_real_photographs_are_found_and_loaded(real_data):
    root = real_data
    coco = root / "coco_mini"
    from_json = found(coco / "annotations/instances_train2017.json")
    assert sorted(map(os.path.realpath, from_json)) == sorted(map(os.path.realpath, found(coco / "train2017")))
    dataset = UnlabelledImages([coco / "train2017", root / "unlabelled"], pipeline=LOAD)
    assert len(dataset) > 500
    for idx in range(0, len(dataset), 25):
        results = dataset[idx]
        assert results["img_path"] == dataset.get_data_info(idx)["img_path"]
        assert results["img"].std() > 1
