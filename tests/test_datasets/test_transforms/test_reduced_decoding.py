"""Large JPEGs are decoded at a reduced size if no region needs more."""

import cv2
import numpy as np
import pytest
from encoded_images import encode
from PIL import Image
from small_images import noise_of_all_sizes

from sspyr_mm.datasets import LoadRGBImage, PyramidViewTransform
from sspyr_mm.datasets.transforms.cropping import resize
from sspyr_mm.datasets.transforms.decoding import decode_rgb, jpeg_size
from sspyr_mm.pyramid import PyramidSpec

PAPER = PyramidSpec.from_config(
    dict(
        s0=dict(region=224, patch=224, num_prototypes=3, alpha=1.0, area=(0.14, 1.0)),
        s1=dict(region=314, grid=2, patch=112, num_prototypes=3, alpha=1.0, beta=1.0),
        s2=dict(region=383, grid=3, patch=96, num_prototypes=3, alpha=1.0, beta=1.0),
    )
)


@pytest.mark.parametrize(
    "options",
    [
        {},
        dict(progressive=True),
        dict(quality=100, subsampling=0),
        dict(exif=b"Exif\0\0" + b"\xff\xc0 no frame" * 90, comment=b"\xff\xc0"),
        dict(dpi=(300, 300), icc_profile=b"x" * 70000),
    ],
    ids=["plain", "progressive", "fine", "exif", "profile"],
)
def test_size_is_read_from_the_header(options):
    image = np.random.default_rng(0).integers(0, 256, (37, 91, 3), np.uint8)
    data = encode(image, **options)
    assert jpeg_size(data) == (37, 91)
    assert all(jpeg_size(data[:length]) in (None, (37, 91)) for length in range(200))


@pytest.mark.parametrize("marker", [0xC4, 0xC8, 0xCC], ids=["Huffman", "reserved", "arithmetic"])
def test_tables_before_the_frame_are_skipped(marker):
    data = encode(np.zeros((37, 91, 3), np.uint8))
    frame = data.index(b"\xff\xc0")
    table = bytes([0xFF, marker, 0, 12]) + bytes(range(10))
    assert jpeg_size(data[:frame] + table + data[frame:]) == (37, 91)


def test_other_data_has_no_size():
    for data in (b"", b"\xff\xd8", b"\xff\xd8\xff\xc0", b"\x89PNG" * 20, b"\xff\xd8" * 50):
        assert jpeg_size(data) is None


@pytest.mark.parametrize(
    ("size", "reduction"),
    [
        ((480, 640), 1),
        ((1080, 1920), 2),  # COCO and ImageNet are below, photographs of phones above
        ((3000, 4000), 4),
        ((4000, 3000), 4),
        ((6000, 8000), 8),
        ((60000, 80000), 8),
        ((1, 1), 1),
    ],
)
def test_reduction_keeps_the_resolution_that_regions_need(size, reduction):
    assert PAPER.views.reduction(size) == reduction
    side = np.sqrt(size[0] * size[1])
    for group in PAPER.groups:  # of the narrowest crop of least area, at the size it is decoded at
        narrow = side * np.sqrt(group.area[0] * 3 / 4) / reduction
        assert reduction == 1 or narrow >= group.region


def load(data, tmp_path, spec):
    (tmp_path / "image.jpg").write_bytes(data)
    step = LoadRGBImage()
    if spec:
        step.set_views(spec.views)
    return step({"img_path": str(tmp_path / "image.jpg")})["img"]


def test_images_are_reduced_if_a_pyramid_is_set(tmp_path):
    data = encode(noise_of_all_sizes(1400, 2000), quality=92)
    assert load(data, tmp_path, None).shape == (1400, 2000, 3)
    small = load(data, tmp_path, PAPER)
    assert small.shape == (700, 1000, 3)
    # The same image, in the same order of channels.
    plain = cv2.resize(decode_rgb(data), (1000, 700), interpolation=cv2.INTER_AREA)
    assert np.abs(small.astype(int) - plain).mean() < 1.5


@pytest.mark.parametrize(("size", "reduction"), [((12, 16), 1), ((24, 32), 2), ((48, 64), 4), ((96, 128), 8)])
def test_reduced_image_matches_the_downscaled_one(tmp_path, size, reduction):
    spec = PyramidSpec.from_config(dict(s0=dict(region=8, patch=8, num_prototypes=3, alpha=1.0, area=(1.0, 1.0))))
    coarse = np.random.default_rng(0).integers(0, 256, (3, 4, 3), np.uint8)
    data = encode(cv2.resize(coarse, size[::-1]), quality=95)
    assert spec.views.reduction(size) == reduction
    image = load(data, tmp_path, spec)
    assert image.shape == (12, 16, 3)
    plain = cv2.resize(decode_rgb(data), (16, 12), interpolation=cv2.INTER_AREA)
    assert np.abs(image.astype(int) - plain).mean() < 3


def test_reduced_images_keep_orientation_and_grey(tmp_path):
    image = noise_of_all_sizes(1400, 2000)
    exif = Image.Exif()
    exif[0x0112] = 6  # rotated by 90 degrees
    assert load(encode(image, exif=exif), tmp_path, PAPER).shape == (1000, 700, 3)
    assert load(encode(image[..., 0]), tmp_path, PAPER).shape == (700, 1000, 3)


@pytest.mark.parametrize("size", [(1400, 2000), (2304, 3072)])
def test_regions_of_reduced_images_match_full_decoding(size):
    """Regions of equal windows cannot be distinguished above 40 dB."""
    image = noise_of_all_sizes(*size)
    data = encode(image, quality=92)
    reduction = PAPER.views.reduction(size)
    full, small = decode_rgb(data), decode_rgb(data, reduction=reduction)
    assert reduction > 1
    for group in PAPER.groups:
        side = int(np.sqrt(group.area[0] * size[0] * size[1])) // reduction * reduction
        window = full[8 : 8 + side, 16 : 16 + side]
        at = [v // reduction for v in (8, 8 + side, 16, 16 + side)]
        wanted = resize(window, group.region).astype(float)
        found = resize(small[at[0] : at[1], at[2] : at[3]], group.region)
        psnr = 10 * np.log10(255**2 / ((found - wanted) ** 2).mean())
        assert psnr > 40, group.name


def test_views_of_a_large_image_have_the_configured_sizes(tmp_path):
    image = load(encode(noise_of_all_sizes(1400, 2000)), tmp_path, PAPER)
    regions = PyramidViewTransform(PAPER)({"img": image})["regions"]
    assert {n: r.shape[1] for n, r in regions.items()} == dict(s0=224, s1=314, s2=383)
