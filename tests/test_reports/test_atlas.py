"""The atlas shows the prototype of every cell, as the plain network gives it, and the cells where they are."""

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

from sspyr_mm.__main__ import main
from sspyr_mm.checkpoints import load_pretraining
from sspyr_mm.pyramid import PyramidSpec
from sspyr_mm.reports.atlas.atlas_files import cut, write_figure
from sspyr_mm.reports.atlas.scale_atlas import ScaleAtlas, cut_cells, measure_atlas

PYRAMID = PyramidSpec.from_config(
    {
        "s0": {"region": 64, "patch": 64, "num_prototypes": 8, "alpha": 1.0},
        "s1": {"region": 90, "patch": 24, "grid": 3, "num_prototypes": 6, "alpha": 0.5, "beta": 0.5},
    }
)


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    for number, size in enumerate([(120, 90), (90, 120), (100, 100), (400, 100)] * 3):
        pixels = rng.integers(0, 256, (5, 6, 3), np.uint8)
        Image.fromarray(pixels).resize(size).save(folder / f"{number:02}.png")
    return folder


def test_patches_are_in_the_middle_of_their_cells_and_boxes_say_where():
    scale = PYRAMID.scales[1]
    image = np.zeros((90, 90, 3), np.uint8)
    image[33:57, 63:87] = 200  # patch of cell 5: row 1, column 2, whose cell is 30..60, 60..90
    patches, boxes = cut_cells(image, scale)
    assert patches.shape == (9, 24, 24, 3)
    assert patches[5].min() == 200 and patches[[0, 1, 2, 3, 4, 6, 7, 8]].max() == 0
    assert boxes[5].tolist() == pytest.approx([63, 33, 87, 57])


@pytest.mark.parametrize(("size", "left", "top"), [((100, 400), 133.5, 0), ((400, 100), 0, 133.5), ((90, 120), 0, 0)])
def test_boxes_of_images_of_any_shape_are_in_pixels_of_the_image(size, left, top):
    """The region is cut to an aspect ratio of training, 3/4 to 4/3, in the middle."""
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
    _, (whole,) = cut_cells(image, PYRAMID.scales[0])
    assert whole.tolist() == pytest.approx([left, top, size[1] - left, size[0] - top], abs=0.6)
    patches, boxes = cut_cells(image, PYRAMID.scales[1])
    smooth = np.repeat(np.linspace(0, 255, size[1])[None], size[0], 0).astype(np.uint8)[..., None].repeat(3, 2)
    patches, boxes = cut_cells(smooth, PYRAMID.scales[1])
    for patch, (x0, _, x1, _) in zip(patches, boxes, strict=True):
        assert patch.mean() == pytest.approx((x0 + x1 - 1) / 2 / (size[1] - 1) * 255, abs=2)


def test_prototypes_and_margins_are_those_of_the_plain_network(checkpoint, images):
    _, model = load_pretraining(str(checkpoint))
    paths = sorted(map(str, images.iterdir()))
    found = measure_atlas(model, paths, batch_size=5)
    assert [part.scale for part in found] == [scale.name for scale in model.pyramid.scales]
    mean, std = torch.tensor([123.675, 116.28, 103.53]), torch.tensor([58.395, 57.12, 57.375])
    for part, scale in zip(found, model.pyramid.scales, strict=True):
        assert len(part.prototype) == len(paths) * scale.num_patches
        patches = np.concatenate([cut_cells(np.asarray(Image.open(path)), scale)[0] for path in paths])
        x = (torch.from_numpy(patches).float() - mean) / std
        with torch.no_grad():
            z = F.normalize(model.neck(model.backbone(x.permute(0, 3, 1, 2))[-1].mean((2, 3)), scale.name), dim=1)
            scores = (z @ F.normalize(model.head.prototypes_of(scale).weight, dim=1).T).numpy()
        best = np.sort(scores, axis=1)
        clear = best[:, -1] - best[:, -2] > 1e-4
        assert clear.mean() > 0.9 and (part.prototype == scores.argmax(1))[clear].all()
        assert np.allclose(part.score, best[:, -1], atol=1e-4)
        assert np.allclose(part.margin, best[:, -1] - best[:, -2], atol=1e-4)


def test_nearest_cells_are_the_best_of_different_images():
    prototype = np.array([2, 2, 0, 2, 2, 1, 2, 0])
    score = np.array([0.1, 0.9, 0.5, 0.8, 0.95, 0.2, 0.3, 0.4])
    part = ScaleAtlas("s1", 2, 4, np.zeros((8, 4)), prototype, score, score)
    assert part.nearest(2, 3).tolist() == [4, 1, 3]  # images 2, 0, 1; row 0 is of image 0 as well
    assert part.nearest(2, 2).tolist() == [4, 1] and part.nearest(3, 5).tolist() == []
    assert part.usage().tolist() == [2, 1, 5, 0]


def test_command_writes_table_and_figure(checkpoint, images, tmp_path, capsys):
    parquet = pytest.importorskip("pyarrow.parquet")
    line = ["atlas", str(checkpoint), "--images", str(images), "-o", str(tmp_path / "out"), "--workers", "0"]
    assert main([*line, "--rows", "3", "--columns", "4", "--points", "0"]) == 0
    shown = capsys.readouterr().out
    _, model = load_pretraining(str(checkpoint))
    paths = sorted(map(str, images.iterdir()))
    rows = parquet.read_table(tmp_path / "out/atlas.parquet").to_pylist()
    expected = measure_atlas(model, paths)
    assert len(rows) == sum(len(part.prototype) for part in expected)
    last = expected[-1]
    row = rows[-2]
    assert (row["image"], row["scale"], row["cell"]) == (paths[-1], last.scale, last.num_cells - 2)
    assert row["prototype"] == last.prototype[-2] and row["margin"] == pytest.approx(last.margin[-2], abs=1e-5)
    assert [row[side] for side in ("left", "top", "right", "bottom")] == pytest.approx(last.box[-2].tolist())
    assert f"{last.scale}: {(last.usage() > 0).sum()} of {last.num_prototypes} prototypes used" in shown
    assert (tmp_path / "out/figure.pdf").read_bytes()[:5] == b"%PDF-"
    assert Image.open(tmp_path / "out/figure.png").size[0] > 400


def test_tile_shows_the_box():
    image = np.zeros((50, 80, 3), np.uint8)
    image[10:20, 30:40] = 250
    assert cut(image, [30, 10, 40, 20], 64).min() == 250
    assert cut(image, [0, 0, 80, 50], 16).max() > 100
    image[49, 79] = 100
    assert cut(image, [79.6, 49.7, 79.9, 49.9], 8).min() == 100  # smaller than a pixel


def test_figure_shows_images_as_training_decodes_them(tmp_path):
    """Values of 0 to 40 of 16 bits would be black."""
    deep = (np.random.default_rng(0).random((50, 50)) * 40).astype(np.uint16)
    cv2.imwrite(str(tmp_path / "deep.png"), deep)
    box = np.array([[0, 0, 50, 50]])
    part = ScaleAtlas("s0", 1, 1, box, np.zeros(1, int), np.ones(1), np.ones(1))
    decoding = {"value_range": (0, 40)}
    for options, is_dark in ((decoding, False), (None, True)):
        png, _ = write_figure(tmp_path, [part], [str(tmp_path / "deep.png")], decoding=options, num_cells=1)
        tile = np.asarray(Image.open(png).convert("L"))
        assert (np.median(tile[tile < 250]) < 30) == is_dark


def test_methods_without_prototypes_are_refused():
    with pytest.raises(ValueError, match="An atlas shows prototypes, which Linear does not have"):
        measure_atlas(torch.nn.Linear(1, 1), [])
