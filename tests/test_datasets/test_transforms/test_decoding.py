"""Decoding of all image formats to 8-bit RGB."""

import cv2
import numpy as np
import pytest
from encoded_images import encode, encode_cv2, png_file, smooth_image
from PIL import Image

from sspyr_mm.datasets.transforms import decoding
from sspyr_mm.datasets.transforms.decoding import decode_rgb

EXIF_ORIENTATION = 0x112


def grey(image):
    return np.asarray(Image.fromarray(image).convert("L"))


@pytest.mark.parametrize(
    ("fmt", "options", "tolerance"),
    [
        ("JPEG", dict(quality=98, subsampling=0), 4),
        ("JPEG", dict(quality=98, subsampling=0, progressive=True), 4),
        ("PNG", {}, 0),
        ("WEBP", dict(lossless=True), 0),
        ("TIFF", {}, 0),
        ("TIFF", dict(compression="tiff_lzw"), 0),
        ("BMP", {}, 0),
        ("PPM", {}, 0),
    ],
)
def test_formats_keep_rgb_order(fmt, options, tolerance):
    image = smooth_image()
    decoded = decode_rgb(encode(image, fmt, **options))
    assert decoded.dtype == np.uint8 and decoded.flags.c_contiguous
    assert np.abs(decoded.astype(int) - image).max() <= tolerance


@pytest.mark.parametrize("fmt", ["PNG", "JPEG", "TIFF"])
def test_greyscale_becomes_three_equal_channels(fmt):
    image = grey(smooth_image())
    options = dict(quality=98) if fmt == "JPEG" else {}
    decoded = decode_rgb(encode(image, fmt, **options))
    assert decoded.shape == (48, 64, 3)
    assert (decoded == decoded[..., :1]).all()
    assert np.abs(decoded[..., 0].astype(int) - image).max() <= (3 if fmt == "JPEG" else 0)


@pytest.mark.parametrize("fmt", ["PNG", "GIF", "TIFF", "BMP"])
def test_palette_images_are_converted(fmt):
    image = Image.fromarray(smooth_image()).quantize(32)
    expected = np.asarray(image.convert("RGB"))
    np.testing.assert_array_equal(decode_rgb(encode(image, fmt)), expected)


def test_bilevel_images_are_converted():
    image = Image.fromarray(smooth_image()).convert("1")
    expected = np.asarray(image.convert("RGB"))
    np.testing.assert_array_equal(decode_rgb(encode(image, "PNG")), expected)


def test_first_frame_of_an_animated_gif_is_used():
    frames = [Image.fromarray(smooth_image(seed=seed)).quantize(32) for seed in (0, 1)]
    data = encode(frames[0], "GIF", save_all=True, append_images=frames[1:])
    np.testing.assert_array_equal(decode_rgb(data), np.asarray(frames[0].convert("RGB")))


@pytest.mark.parametrize("fmt", ["JPEG", "TIFF"])
def test_cmyk_is_converted(fmt):
    image = smooth_image()
    options = dict(quality=98, subsampling=0) if fmt == "JPEG" else {}
    decoded = decode_rgb(encode(Image.fromarray(image).convert("CMYK"), fmt, **options))
    # Inverted or swapped channels would be off by a hundred and more.
    assert np.abs(decoded.astype(int) - image).mean() < 3
    assert np.abs(decoded.astype(int) - image).max() < 25


@pytest.mark.parametrize("suffix", [".png", ".tiff"])
@pytest.mark.parametrize("colour", [False, True])
def test_sixteen_bits_are_scaled_and_not_clipped(suffix, colour):
    image = smooth_image() if colour else grey(smooth_image())
    low = np.random.default_rng(1).integers(0, 256, image.shape)
    deep = (image.astype(np.uint16) * 256 + low).astype(np.uint16)
    data = encode_cv2(suffix, deep[..., ::-1] if colour else deep)
    expected = image if colour else np.stack([image] * 3, -1)
    assert np.abs(decode_rgb(data).astype(int) - expected).max() <= 1


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("fmt", ["JPEG", "WEBP", "PNG", "TIFF", "AVIF"])
def test_exif_orientation_is_applied(orientation, fmt):
    image = smooth_image()
    exif = Image.Exif()
    exif[EXIF_ORIENTATION] = orientation
    # The definition of the tag.
    upright = {
        1: image,
        2: image[:, ::-1],
        3: image[::-1, ::-1],
        4: image[::-1],
        5: image.transpose(1, 0, 2),
        6: np.rot90(image, -1),
        7: image[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(image, 1),
    }[orientation]
    if fmt == "AVIF" and "AVIF" not in Image.SAVE:
        pytest.skip("this Pillow does not write AVIF")
    options = {
        "JPEG": dict(exif=exif, quality=98, subsampling=0),
        "WEBP": dict(exif=exif, lossless=True),
        "PNG": dict(exif=exif),
        "TIFF": dict(tiffinfo={EXIF_ORIENTATION: orientation}),
        "AVIF": dict(exif=exif, quality=98, subsampling="4:4:4"),
    }[fmt]
    decoded = decode_rgb(encode(image, fmt, **options))
    assert decoded.shape == upright.shape
    tolerance = {"JPEG": 4, "AVIF": 12}.get(fmt, 0)
    assert np.abs(decoded.astype(int) - upright).max() <= tolerance


@pytest.mark.parametrize("size", [(1, 40), (40, 1), (1, 1)])
def test_images_of_one_row_or_column_are_decoded(size):
    image = smooth_image(*size)
    np.testing.assert_array_equal(decode_rgb(encode(image, "PNG")), image)


def test_pillow_is_used_for_formats_that_opencv_lacks(monkeypatch):
    image = smooth_image()
    exif = Image.Exif()
    exif[EXIF_ORIENTATION] = 6
    monkeypatch.setattr(decoding.cv2, "imdecode", lambda *_: None)
    decoded = decode_rgb(encode(image, "PNG", exif=exif))
    np.testing.assert_array_equal(decoded, np.rot90(image, -1))


def test_older_opencv_without_rgb_decoding_gives_rgb(monkeypatch):
    monkeypatch.setattr(decoding, "_DECODES_RGB", False)
    monkeypatch.setattr(decoding, "_CV2_MODE", cv2.IMREAD_COLOR)
    np.testing.assert_array_equal(decode_rgb(encode(smooth_image(), "PNG")), smooth_image())


RGB = dict(bits=8, colour=2, rows=bytes(100))


def broken_files():
    whole = {fmt: encode(smooth_image(480, 640), fmt) for fmt in ("JPEG", "PNG", "WEBP", "BMP", "TIFF")}
    for fmt, data in whole.items():
        for share in (0.99, 0.5, 0.1):
            yield pytest.param(data[: int(len(data) * share)], id=f"{share} of a {fmt}")
    yield pytest.param(b"", id="empty")
    yield pytest.param(b"<html>404</html>", id="text")
    yield pytest.param(bytes(1000), id="zeros")
    yield pytest.param(png_file(100_000, 100_000, **RGB), id="more pixels than OpenCV allows")
    yield pytest.param(png_file(0, 5, **RGB), id="no pixels")


@pytest.mark.parametrize("data", list(broken_files()))
def test_broken_files_are_decoded_to_none(data):
    assert decode_rgb(data) is None


@pytest.mark.filterwarnings("ignore")
def test_no_flipped_byte_raises():
    rng = np.random.default_rng(0)
    blobs = [encode(smooth_image(), fmt) for fmt in ("JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP", "PPM")]
    outcomes = set()
    for index in range(700):
        data = bytearray(blobs[index % len(blobs)])
        for position in rng.integers(0, min(len(data), 200), rng.integers(1, 10)):
            data[position] = rng.integers(256)
        decoded = decode_rgb(bytes(data))
        outcomes.add(decoded is None)
        if decoded is not None:
            assert decoded.ndim == 3 and decoded.shape[2] == 3 and decoded.dtype == np.uint8
    assert outcomes == {True, False}
