"""VOC trees with masks of various tools are read, or rejected before training."""

import warnings

import mmcv
import numpy as np
import pytest
from mmengine.registry import DefaultScope
from mmseg.registry import DATASETS
from PIL import Image

from sspyr_mm.benchmarks.base_protocol import Settings
from sspyr_mm.benchmarks.dense.dense_data import loaded_size
from sspyr_mm.benchmarks.dense.read_voc import read_voc_masks
from sspyr_mm.benchmarks.dense.run import make_config
from sspyr_mm.benchmarks.protocols import find_protocol
from sspyr_mm.checkpoints import read_backbone

LISTS = "ImageSets/Segmentation"
PARTS = {"train": 3, "val": 2}
MASK = np.zeros((16, 24), np.uint8)
MASK[4:10, 3:15] = 1


def palette(mask):
    image = Image.fromarray(mask).convert("P")
    image.putdata(mask.ravel().tolist())
    image.putpalette([0, 0, 0, 128, 0, 0])
    return image


@pytest.fixture
def tree(tmp_path, write_image):
    """Writes a tree of one class; its masks may depend on the image's id."""

    def write(mask=lambda one: MASK, *, suffixes=(".jpg", ".png"), orientation=None, names="thing\n"):
        (tmp_path / LISTS).mkdir(parents=True)
        (tmp_path / "SegmentationClass").mkdir()
        for part, count in PARTS.items():
            ids = [f"{part} {number}" for number in range(count)]
            (tmp_path / LISTS / f"{part}.txt").write_text("\n".join(ids) + "\n")
            for one in ids:
                write_image(tmp_path / f"JPEGImages/{one}{suffixes[0]}", orientation)
                made = mask(one)
                image = made if isinstance(made, Image.Image) else Image.fromarray(made)
                image.save(tmp_path / f"SegmentationClass/{one}{suffixes[1]}", "PNG")
        (tmp_path / LISTS / "class_names.txt").write_text(names)
        return str(tmp_path)

    return write


def dataset(data, checkpoint, folder):
    """The training set that mmseg builds from the config of a run."""
    data = data.write_annotations(str(folder))
    settings = Settings(size=16)
    kwargs = dict(weights="", num_processes=1, settings=settings)
    cfg = make_config(find_protocol("fcn_voc").config, read_backbone(checkpoint), data, **kwargs)
    with DefaultScope.overwrite_default_scope("mmseg"):
        return DATASETS.build(cfg.train_dataloader.dataset)


@pytest.mark.parametrize(
    ("mask", "suffixes"),
    [
        (MASK, (".jpg", ".png")),
        (palette(MASK), (".png", ".png")),
        (Image.fromarray(MASK * 255).convert("1"), (".JPG", ".PNG")),
        (MASK.astype(np.uint16), (".webp", ".png")),
    ],
)
def test_mmseg_loads_masks_and_file_extensions(tree, checkpoint, tmp_path, mask, suffixes):
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        data = read_voc_masks(tree(lambda one: mask, suffixes=suffixes))
    sample = dataset(data, checkpoint, tmp_path / "work")[0]
    assert set(np.unique(sample["data_samples"].gt_sem_seg.data)) <= {0, 1, 255}
    assert sample["data_samples"].seg_map_path == data.train.mask_paths[0]
    assert len(data.train.paths) == 3 and len(data.test.mask_paths) == 2


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        ("{0}\r\n\r\n{1}\r\n{2}\r\n", "utf-8-sig"),
        ("{0}\n{1}\n{2}\n", "utf-16"),
        ("{0}.jpg\nJPEGImages/{1}.jpg\n{2} 1\n", "utf-8"),
        ("/JPEGImages/{0}.jpg /SegmentationClass/{0}.png\n{1}\n{2}", "utf-8"),
    ],
)
def test_mmseg_reads_lists_as_plain_ids(tree, checkpoint, tmp_path, text, encoding):
    root = tree()
    plain = read_voc_masks(root)
    assert plain.write_annotations(str(tmp_path / "none")).train.annotations == plain.train.annotations
    text = text.format("train 0", "train 1", "train 2")
    (tmp_path / LISTS / "train.txt").write_bytes(text.encode(encoding))
    data = read_voc_masks(root)
    assert data.train.paths == plain.train.paths
    (part,) = dataset(data, checkpoint, tmp_path / "work").datasets
    assert [part[at]["data_samples"].img_path for at in range(3)] == list(plain.train.paths)
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("values", [(0, 255), (255, 0)])
@pytest.mark.parametrize("parts", [("train", "val"), ("train",), ("val",)])
def test_binary_masks_are_rejected_with_a_remedy(tree, parts, values):
    binary = np.where(MASK > 0, values[1], values[0]).astype(np.uint8)
    root = tree(lambda one: binary if one.startswith(parts) else MASK)
    message = (
        rf"No mask of .*/{parts[0]}\.txt shows a class: all \d hold only 0 and 255, such as .*/"
        rf"{parts[0]} 0\.png; 255 means void.* replace it by the number of its class"
    )
    with pytest.raises(ValueError, match=message):
        read_voc_masks(root)


def test_binary_masks_among_others_are_counted(tree):
    root = tree(lambda one: MASK * 255 if one == "train 1" else MASK)
    with pytest.warns(UserWarning, match=r"1 of 3 masks of .*train\.txt hold only .*/train 1\.png"):
        read_voc_masks(root)


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (MASK * 0, r"No mask of .*train\.txt shows a class: all 3 hold only 0$"),
        (MASK + 1, r"train 0\.png has class 2: .* 1 to 1 for .* 3 of 3 masks"),
        (np.dstack([MASK] * 3), r"train 0\.png is uint8 \(16, 24, 3\)"),
        (MASK[::2, ::2], r"train\.txt: 3 of 3 images differ in size from the mask\. First: .*"
         r"train 0\.jpg is loaded as 24 x 16 .* is 12 x 8"),
    ],
)  # fmt: skip
def test_unusable_masks_are_counted_and_the_first_is_named(tree, mask, message):
    with pytest.raises(ValueError, match=message):
        read_voc_masks(tree(lambda one: mask))


def test_jpeg_mask_is_reported_as_the_cause(tree, tmp_path):
    root = tree()
    Image.fromarray(MASK * 255).save(tmp_path / "SegmentationClass/val 1.png", "JPEG", quality=50)
    with pytest.raises(ValueError, match=r"val 1\.png has class \d+ and is a JPEG"):
        read_voc_masks(root)


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("orientation", [None, 1, 3, 6, 8])
@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".tif"])
def test_mask_sizes_are_checked_against_loaded_images(tree, tmp_path, suffix, orientation, turned):
    mask = MASK.T.copy() if turned else MASK
    root = tree(lambda one: mask, suffixes=(suffix, ".png"), orientation=orientation)
    loaded = mmcv.imread(str(tmp_path / f"JPEGImages/train 0{suffix}")).shape[:2]
    if loaded == mask.shape:
        read_voc_masks(root)
    else:
        reason = "EXIF orientation is applied" if loaded == (24, 16) else "the wrong pixels"
        with pytest.raises(ValueError, match=f"3 of 3 images differ in size.*{reason}"):
            read_voc_masks(root)


def test_orientation_in_xmp_is_ignored_like_in_opencv(tmp_path):
    xmp = b"""<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
    <rdf:Description xmlns:tiff="http://ns.adobe.com/tiff/1.0/" tiff:Orientation="6"/></rdf:RDF></x:xmpmeta>"""
    path = str(tmp_path / "a.jpg")
    Image.new("RGB", (60, 40)).save(path, xmp=xmp)
    with Image.open(path) as opened:
        assert opened.getexif().get(274) == 6  # Pillow also reads XMP
    assert loaded_size(path) == ((60, 40), False)
    assert mmcv.imread(path).shape == (40, 60, 3)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_class_names_are_read_in_any_encoding_and_checked(tree, tmp_path, encoding):
    root = tree()
    names = tmp_path / LISTS / "class_names.txt"
    names.write_bytes("thing one\r\nthing two\r\n".encode(encoding))
    with pytest.warns(UserWarning, match="shows 1 of 2 classes: thing two. If the tree has other"):
        assert read_voc_masks(root).classes == ("thing one", "thing two")
    names.write_bytes("Thing\nthing\n".encode(encoding))
    with pytest.warns(UserWarning, match=r"names\.txt: .* differ only in case .*'Thing' / 'thing'"):
        read_voc_masks(root)
    names.write_bytes("Background\nthing\n".encode(encoding))
    with pytest.raises(ValueError, match="without background; got Background, thing"):
        read_voc_masks(root)
