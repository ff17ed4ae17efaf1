"""Toy scenes: equal files for equal seeds, consistent layouts, and colours independent of the labels."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from sspyr_mm.__main__ import main
from sspyr_mm.datasets.toy_scenes import CLASSES, KINDS, VOID, Scene, draw_scene, generate, parse_size, scene
from sspyr_mm.datasets.toy_scenes.dataset import _draw_all
from sspyr_mm.datasets.toy_scenes.writers import bounding_box, polygons

PARAMETERS = dict(num_train=40, num_val=8, size=(96, 112), seed=3)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("toy") / "scenes"
    assert generate(folder, workers=1, **PARAMETERS)
    return folder


@pytest.fixture(scope="module")
def scenes() -> list[Scene]:
    return [draw_scene(np.random.default_rng([11, index]), (96, 96)) for index in range(300)]


def _digests(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def _visible(root: Path) -> Iterator[tuple[dict, list[dict], COCO]]:
    for split in ("train", "val"):
        coco = COCO(str(root / "annotations" / f"instances_{split}2017.json"))
        for image in coco.loadImgs(coco.getImgIds()):
            yield image, coco.loadAnns(coco.getAnnIds(image["id"])), coco


def test_files_do_not_depend_on_the_number_of_workers(root: Path, tmp_path: Path) -> None:
    generate(tmp_path / "again", workers=3, **PARAMETERS)
    assert _digests(tmp_path / "again") == _digests(root)


@pytest.mark.timeout(60)  # workers that wait for threads of OpenCV never end
def test_workers_start_after_opencv_has_used_its_threads(tmp_path: Path) -> None:
    before = cv2.getNumThreads()
    try:
        cv2.setNumThreads(4)
        cv2.GaussianBlur(cv2.resize(np.zeros((2000, 2000, 3), np.uint8), (3000, 3000)), (9, 9), 2)
        assert generate(tmp_path / "set", num_train=8, num_val=2, size=64, workers=2)
        assert cv2.getNumThreads() == 4
    finally:
        cv2.setNumThreads(before)


def test_image_does_not_depend_on_the_number_of_images(root: Path, tmp_path: Path) -> None:
    generate(tmp_path / "fewer", workers=1, **{**PARAMETERS, "num_train": 3, "num_val": 2})
    fewer, more = _digests(tmp_path / "fewer"), _digests(root)
    images = [name for name in fewer if name.endswith((".jpg", ".png", ".xml"))]
    assert len(images) == 5 * 4
    assert all(fewer[name] == more[name] for name in images)


def test_images_of_different_seeds_splits_and_indices_differ(root: Path, tmp_path: Path) -> None:
    generate(tmp_path / "other", workers=1, **{**PARAMETERS, "seed": 4})
    digests = [d for f in (root, tmp_path / "other") for n, d in _digests(f).items() if "2017/" in n and "/0" in n]
    assert len(digests) == 2 * (PARAMETERS["num_train"] + PARAMETERS["num_val"])
    assert len(set(digests)) == len(digests)


def test_coco_json_is_consistent(root: Path) -> None:
    for image, items, coco in _visible(root):
        assert [category["name"] for category in coco.loadCats(coco.getCatIds())] == list(CLASSES)
        folder = "val2017" if image["id"] > 500_000 else "train2017"
        pixels = cv2.imread(str(root / folder / image["file_name"]))
        assert pixels.shape == (image["height"], image["width"], 3) == (96, 112, 3)
        assert image["scene_kind"] in {kind.name for kind in KINDS}
        for item in items:
            assert item["iscrowd"] == 0
            assert all(len(ring) >= 6 for ring in item["segmentation"])


def test_polygons_agree_with_masks(root: Path) -> None:
    """The polygons of each class, drawn by pycocotools, cover its VOC mask."""
    inter = union = 0
    for image, items, coco in _visible(root):
        mask = np.asarray(Image.open(root / "VOC2007" / "SegmentationClass" / f"{image['id']:06d}.png"))
        drawn = np.zeros_like(mask)
        for item in items:
            single = coco.annToMask(item).astype(bool)
            assert abs(int(single.sum()) - item["area"]) <= max(0.12 * item["area"], 8)
            drawn[single] = item["category_id"]
        labels = np.where(mask == VOID, 0, mask)
        inter += int(((labels == drawn) & (labels > 0)).sum())
        union += int(((labels > 0) | (drawn > 0)).sum())
    assert inter / union > 0.95


def test_polygons_of_a_mask_with_holes_and_pieces() -> None:
    mask = np.zeros((40, 60), bool)
    mask[5:30, 4:34] = True
    mask[10:16, 8:14] = mask[20:26, 22:28] = False
    mask[12:20, 45:50] = True
    mask[35, 57] = True
    rings = polygons(mask)
    assert len(rings) >= 4
    drawn = coco_mask.decode(coco_mask.merge(coco_mask.frPyObjects(rings, *mask.shape))).astype(bool)
    assert (drawn & mask).sum() / (drawn | mask).sum() > 0.97
    assert not drawn[12, 10] and not drawn[22, 24]


def test_polygons_of_scenes_have_a_high_iou_with_masks(scenes: list[Scene]) -> None:
    for item in (item for drawn in scenes[:60] for item in drawn.objects):
        rle = coco_mask.merge(coco_mask.frPyObjects(polygons(item.mask), *item.mask.shape))
        again = coco_mask.decode(rle).astype(bool)
        assert (again & item.mask).sum() / (again | item.mask).sum() > 0.85


def test_voc_boxes_are_the_coco_boxes(root: Path) -> None:
    for image, items, _ in _visible(root):
        tree = ET.parse(root / "VOC2007" / "Annotations" / f"{image['id']:06d}.xml").getroot()
        assert tree.findtext("filename") == f"{image['id']:06d}.jpg"
        assert (int(tree.findtext("size/height")), int(tree.findtext("size/width"))) == (96, 112)
        found = []
        for item in tree.iter("object"):
            left, top, right, bottom = (int(item.findtext(f"bndbox/{k}")) for k in ("xmin", "ymin", "xmax", "ymax"))
            assert 1 <= left <= right <= 112 and 1 <= top <= bottom <= 96
            assert item.findtext("difficult") in "01" and item.findtext("truncated") in "01"
            found.append(
                (CLASSES.index(item.findtext("name")) + 1, [left - 1, top - 1, right - left + 1, bottom - top + 1])
            )
        assert found == [(item["category_id"], item["bbox"]) for item in items]


def test_voc_masks_and_image_sets_match_the_json(root: Path) -> None:
    voc = root / "VOC2007"
    for image, items, _ in _visible(root):
        labels = Image.open(voc / "SegmentationClass" / f"{image['id']:06d}.png")
        assert labels.mode == "P"
        assert labels.getpalette()[:9] == [0, 0, 0, 128, 0, 0, 0, 128, 0]
        assert labels.getpalette()[36:39] == [64, 0, 128]  # class 12 in VOC's colour map
        ids = set(np.unique(np.asarray(labels)).tolist()) - {0, VOID}
        assert ids == {item["category_id"] for item in items}
        folder = "val2017" if image["id"] > 500_000 else "train2017"
        jpeg = (voc / "JPEGImages" / f"{image['id']:06d}.jpg").read_bytes()
        assert jpeg == (root / folder / image["file_name"]).read_bytes()
    for purpose in ("Main", "Segmentation"):
        sets = {p.stem: p.read_text().split() for p in (voc / "ImageSets" / purpose).iterdir()}
        assert len(sets["train"]) == 40 and len(sets["val"]) == 8
        assert sets["trainval"] == sets["train"] and sets["test"] == sets["val"]
        assert not set(sets["train"]) & set(sets["val"])


def test_files_are_copied_without_hard_links(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError

    monkeypatch.setattr("os.link", refuse)
    generate(tmp_path / "copies", workers=1, **PARAMETERS)
    assert _digests(tmp_path / "copies") == _digests(root)


def test_interrupted_run_leaves_no_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def interrupt(*args: object) -> Scene:
        calls.append(args)
        if len(calls) == 5:
            raise KeyboardInterrupt
        return draw_scene(*args)  # type: ignore[arg-type]

    monkeypatch.setattr("sspyr_mm.datasets.toy_scenes.dataset.draw_scene", interrupt)
    with pytest.raises(KeyboardInterrupt):
        generate(tmp_path / "set", workers=1, **PARAMETERS)
    assert len(calls) == 5
    assert list(tmp_path.iterdir()) == []


def test_ctrl_c_ends_all_processes_with_one_message(tmp_path: Path) -> None:
    command = ["-m", "sspyr_mm", "toy-scenes", str(tmp_path / "set"), "--num-train", "100000"]
    process = subprocess.Popen(
        [sys.executable, *command, "--workers", "2"],
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,  # Ctrl-C reaches the workers, too
        # Python ignores SIGINT if its parent did, for example in a background job.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert process.stderr is not None
    err = ""
    while "train: 100/100000" not in err:  # the libraries may print warnings before
        character = process.stderr.read(1)
        assert character, err
        err += character
    os.killpg(process.pid, signal.SIGINT)
    err += process.communicate(timeout=120)[1]
    assert process.returncode == 130, err
    assert err.endswith("toy-scenes: interrupted; run the same command again\n")
    assert "Traceback" not in err and "KeyboardInterrupt" not in err
    assert list(tmp_path.iterdir()) == []


def handler_of_sigterm(index: int) -> signal.Handlers:
    return signal.getsignal(signal.SIGTERM)


def test_workers_end_at_once_when_the_pool_ends_them() -> None:
    """The handler of the commands would not run in a worker that has just begun to wait for a lock."""
    before = signal.signal(signal.SIGTERM, lambda *_: None)
    try:
        assert list(_draw_all(handler_of_sigterm, 2, 2)) == [signal.SIG_DFL] * 2
    finally:
        signal.signal(signal.SIGTERM, before)


def test_finished_folder_is_left_unchanged(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*")}
    assert not generate(root, workers=1, **PARAMETERS)
    args = [
        "toy-scenes",
        str(root),
        "--num-train",
        "40",
        "--num-val",
        "8",
        "--size",
        "96x112",
        "--seed",
        "3",
        "--workers",
        "1",
    ]
    assert main(args) == 0
    assert "left unchanged" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in root.rglob("*")} == before
    args[-3] = "5"
    assert main(args) == 2
    assert "other parameters (seed 3 instead of 5)" in capsys.readouterr().err


def test_folder_with_other_content_is_refused(tmp_path: Path) -> None:
    (tmp_path / "note.txt").write_text("mine")
    with pytest.raises(FileExistsError, match=r"does not contain toy scenes .*give another folder"):
        generate(tmp_path, workers=1, **PARAMETERS)
    assert [path.name for path in tmp_path.iterdir()] == ["note.txt"]


def test_record_and_readme_describe_the_data_set(root: Path) -> None:
    record = json.loads((root / "toy_scenes.json").read_text())
    assert (record["num_train"], record["height"], record["width"], record["seed"]) == (40, 96, 112, 3)
    text = (root / "README.txt").read_text()
    assert "--num-train 40 --num-val 8 --size 96x112 --seed 3" in text


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"size": 63}, r"size must be 64 to 4096 pixels .* got 63x63: give a larger one"),
        ({"size": "128x5000"}, r"got 128x5000: give a smaller one"),
        ({"size": "big"}, r"size must be a side in pixels or HxW, such as 128 or 96x128, got 'big'"),
        ({"size": (128.0, 128)}, r"size must be a side in pixels or HxW"),
        ({"num_train": 0}, r"num_train must be a whole number from 1 to 499999, got 0"),
        ({"num_val": -1}, r"num_val must be a whole number from 1"),
        ({"seed": -1}, r"seed must be a whole number from 0"),
        ({"workers": 1.5}, r"workers must be a whole number from 0"),
    ],
)
def test_wrong_parameters_are_refused(tmp_path: Path, change: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        generate(tmp_path / "set", **{**PARAMETERS, **change})
    assert not (tmp_path / "set").exists()


def test_sizes_are_parsed() -> None:
    assert parse_size("96x128") == parse_size((96, 128)) == (96, 128)
    assert parse_size("100") == parse_size(100) == (100, 100)


def test_draw_scene_refuses_small_sizes() -> None:
    with pytest.raises(ValueError, match="size must be 64 to 4096 pixels in height and width, got 64x63: give a"):
        draw_scene(np.random.default_rng(0), (64, 63))


@pytest.mark.parametrize("size", [(64, 64), (64, 300), (250, 70), (333, 257)])
def test_any_size_can_be_drawn(size: tuple[int, int]) -> None:
    for index in range(4):
        drawn = draw_scene(np.random.default_rng([5, index]), size)
        assert drawn.image.shape == (*size, 3) and drawn.image.dtype == np.uint8
        for item in drawn.objects:
            assert item.mask.shape == size and 0 < item.visible <= 1
            left, top, width, height = bounding_box(item.mask)
            outside = item.mask.copy()
            outside[top : top + height, left : left + width] = False
            assert not outside.any()


def test_kinds_mix_all_classes_and_prefer_their_own(scenes: list[Scene]) -> None:
    counts = np.zeros((len(KINDS), len(CLASSES)))
    for drawn in scenes:
        for item in drawn.objects:
            counts[drawn.kind, item.label] += 1
    assert (counts.sum(axis=0) > 0.5 * counts.sum() / len(CLASSES)).all()
    assert (counts.sum(axis=1) > 0.5 * counts.sum() / len(KINDS)).all()
    for row, kind in zip(counts, KINDS, strict=True):
        own = np.array([name in kind.common for name in CLASSES])
        assert row[own].min() > row[~own].mean()
        assert (row[~own] > 0).sum() >= 6  # exceptions happen
    for name in CLASSES:
        assert sum(name in kind.common for kind in KINDS) == 2
    assert all(len(set(a.common) & set(b.common)) <= 2 for a in KINDS for b in KINDS if a is not b)


def test_colour_and_area_do_not_reveal_class_or_kind(scenes: list[Scene]) -> None:
    colour: dict[int, list[np.ndarray]] = {label: [] for label in range(len(CLASSES))}
    side: dict[int, list[float]] = {label: [] for label in range(len(CLASSES))}
    for drawn in scenes:
        for item in drawn.objects:
            colour[item.label].append(drawn.image[item.mask].mean(axis=0))
            if item.visible > 0.95:
                side[item.label].append(float(np.sqrt(item.mask.sum())))
    every = np.concatenate([np.stack(values) for values in colour.values()])
    for label, values in colour.items():
        error = every.std(axis=0) / np.sqrt(len(values))
        assert (np.abs(np.mean(values, axis=0) - every.mean(axis=0)) < 4 * error).all(), CLASSES[label]
    medians = np.array([np.median(values) for values in side.values()])
    assert medians.max() / medians.min() < 1.2
    kinds = np.array([drawn.kind for drawn in scenes])
    means = np.stack([drawn.image.mean(axis=(0, 1)) for drawn in scenes])
    for kind in range(len(KINDS)):
        own = means[kinds == kind]
        assert (np.abs(own.mean(axis=0) - means.mean(axis=0)) < 4 * means.std(axis=0) / np.sqrt(len(own))).all()


def test_hidden_objects_are_void_and_not_annotated(scenes: list[Scene], monkeypatch: pytest.MonkeyPatch) -> None:
    # Few objects are hidden where they are spread over the image, so they are all drawn in the middle.
    monkeypatch.setattr(scene, "_place", lambda *_: (48.0, 48.0))
    crowded = [draw_scene(np.random.default_rng([12, index]), (96, 96)) for index in range(60)]
    assert any((drawn.class_mask == VOID).any() for drawn in crowded)
    visible = [item.visible for drawn in scenes + crowded for item in drawn.objects]
    assert min(visible) >= scene._MIN_VISIBLE
    assert np.mean(np.array(visible) < 0.9) > 0.2
    for drawn in scenes + crowded:
        expected = np.where(drawn.class_mask == VOID, VOID, 0)
        for item in drawn.objects:
            assert not expected[item.mask].any()
            expected[item.mask] = item.label + 1
        assert (expected == drawn.class_mask).all()
