"""Damaged and unusual files from cameras, downloads and disks."""

import importlib.util
import re
import struct
import sys
import zlib

import numpy as np
import pytest
from encoded_images import encode, encode_cv2, png_file, smooth_image
from image_mutations import run_alone
from PIL import Image

from sspyr_mm.datasets.finding.file_kinds import stated_size
from sspyr_mm.datasets.transforms import decoding
from sspyr_mm.datasets.transforms.decoding import UnreadableImageError, decode_rgb, describe_problem
from sspyr_mm.datasets.transforms.pixel_values import DecodeOptions

IMAGE = smooth_image(96, 128)
JPEG = dict(baseline=dict(quality=92), progressive=dict(quality=92, progressive=True))


@pytest.mark.parametrize("kind", JPEG)
@pytest.mark.parametrize("end", [b"", b"\xff", bytes(9), bytes(5000)], ids=len)
@pytest.mark.parametrize("reduction", [1, 2])
def test_jpeg_without_end_marker_is_decoded(kind, end, reduction):
    data = encode(IMAGE, **JPEG[kind])
    assert data.endswith(b"\xff\xd9")
    found = decode_rgb(data[:-2] + end, reduction=reduction)
    np.testing.assert_array_equal(found, decode_rgb(data, reduction=reduction))


@pytest.mark.parametrize("kind", JPEG)
@pytest.mark.parametrize("share", [0.3, 0.5, 0.9])
@pytest.mark.parametrize("filled", [False, True], ids=["cut", "zeros"])
def test_jpeg_without_all_image_data_is_not_decoded(kind, share, filled):
    """A full disk or an interrupted download leaves such files."""
    data = encode(smooth_image(480, 640), exif=thumbnail_exif(), **JPEG[kind])
    kept = data[: int(len(data) * share)]
    for reduction in (1, 8):
        found = decode_rgb(kept + bytes(len(data) - len(kept)) * filled, reduction=reduction)
        assert found is None


def thumbnail_exif():
    """Returns an EXIF segment that contains an end marker, that of a thumbnail."""
    return b"Exif\0\0" + encode(smooth_image(16, 16))


def test_bytes_after_the_end_are_ignored():
    data = encode(IMAGE)
    for more in (bytes(3000), b"\xff\xd8 another image", b"x" * 77):
        np.testing.assert_array_equal(decode_rgb(data + more), decode_rgb(data))


def without_adobe_marker(data):
    at = data.index(b"\xff\xee")
    return data[:at] + data[at + 2 + int.from_bytes(data[at + 2 : at + 4], "big") :]


def test_cmyk_is_converted_with_and_without_adobes_marker():
    """Adobe stores inverted inks, with a marker."""
    inks = Image.fromarray(IMAGE).convert("CMYK")
    adobe = encode(inks, quality=95, subsampling=0)
    inverted = Image.merge("CMYK", [band.point(lambda v: 255 - v) for band in inks.split()])
    plain = without_adobe_marker(encode(inverted, quality=95, subsampling=0))
    for data in (adobe, plain):
        assert np.abs(decode_rgb(data).astype(int) - IMAGE).mean() < 3


@pytest.mark.parametrize("fmt", ["AVIF", "JPEG2000", "MPO", "PPM"])
def test_less_common_formats_are_decoded(fmt):
    if fmt not in Image.SAVE:
        pytest.skip(f"this Pillow does not write {fmt}")
    assert np.abs(decode_rgb(encode(IMAGE, fmt)).astype(int) - IMAGE).mean() < 4


# ---- limit of pixels


def bilevel_png(width, height):
    return png_file(width, height, bits=1, colour=0, rows=bytes((1 + (width + 7) // 8) * height))


def jpeg_that_claims(width, height):
    data = bytearray(encode(IMAGE))
    at = data.index(b"\xff\xc0")
    data[at + 5 : at + 9] = struct.pack(">HH", height, width)
    return bytes(data)


@pytest.mark.parametrize(
    "data",
    [bilevel_png(2000, 1500), jpeg_that_claims(2000, 1500), encode(smooth_image(1500, 2000), "TIFF")],
    ids=["PNG", "JPEG", "TIFF"],
)
def test_too_many_pixels_are_not_decoded(data):
    limit = DecodeOptions(max_pixels=2_999_999)
    assert decode_rgb(data, options=limit) is None
    assert describe_problem(data, limit).startswith("2000 x 1500 pixels, more than the limit of 29")
    assert decode_rgb(data, options=DecodeOptions(max_pixels=3_000_000)) is not None


def test_pixel_limit_is_the_same_for_all_libraries():
    """Pillow's own limit is restored."""
    data, before = bilevel_png(20_000, 20_000), Image.MAX_IMAGE_PIXELS
    assert decode_rgb(data) is None
    assert "20000 x 20000 pixels" in describe_problem(data, DecodeOptions())
    assert before == Image.MAX_IMAGE_PIXELS


# ---- reports


HEIC = struct.pack(">I", 24) + b"ftypheic" + b"\0\0\0\0mif1heic" + bytes(range(200))


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"", "an empty file"),
        (bytes(100), r"only zeros \(100 bytes\)"),
        (b"version https://git-lfs.github.com/spec/v1\n", "run git lfs pull"),
        (b"\n<!DOCTYPE html><html></html>", "an HTML or XML page"),
        (HEIC, "HEIC image: pip install pillow-heif"),
        (encode(IMAGE)[:900], "a JPEG image that is truncated, damaged"),
        (encode(IMAGE, "PNG")[:900], "a PNG image that is truncated, damaged"),
        (b"RIFF....WEBPVP8 ", "a WebP image that is truncated, damaged"),
        (b"text", "not an image"),
    ],
    ids=lambda value: str(value)[:12],
)
def test_problem_of_a_file_is_described(data, problem):
    if data is HEIC and importlib.util.find_spec("pillow_heif"):
        pytest.skip("HEIC can be read here")
    assert decode_rgb(data) is None
    assert re.search(problem, describe_problem(data, DecodeOptions()))


def test_messages_of_libraries_are_suppressed(capfd):
    deep = encode_cv2(".tiff", np.ones((8, 8), np.float32))
    png = encode(IMAGE, "PNG")
    spoilt = png[:-40] + bytes(40)
    for data in (deep, png[:-900], spoilt, encode(IMAGE)[:-300]):
        decode_rgb(data)
    assert capfd.readouterr() == ("", "")
    print("stderr works", file=sys.stderr)
    assert capfd.readouterr().err == "stderr works\n"


def test_summary_of_a_worker_error_is_one_line():
    text = "a.jpg: a pipe. Remove it"
    error = UnreadableImageError(
        f"Caught UnreadableImageError in DataLoader worker process 0.\nOriginal Traceback:\n  x\n"
        f"sspyr_mm.UnreadableImageError: {text}\n"
    )
    assert error.summary == UnreadableImageError(text).summary == text


@pytest.mark.parametrize("name", [b"IDAT", b"PLTE", b"IEND"])
def test_png_with_a_chunk_longer_than_the_file_takes_no_memory(name):
    """OpenCV allocates as many bytes as the chunk claims."""
    data = bytearray(encode(Image.fromarray(smooth_image()).quantize(16), "PNG"))
    at = data.index(name)
    data[at - 4 : at] = b"\x7f\xff\xff\xff"
    _, peak = run_alone(decode_with_reason, bytes(data), seconds=60)
    assert peak < 100 << 10


def decode_with_reason(data):
    return decode_rgb(data), describe_problem(data, DecodeOptions())


@pytest.mark.parametrize("fmt", ["BMP", "PPM", "JPEG2000"])
def test_size_is_limited_where_pillow_cannot_open_the_file(fmt, monkeypatch):
    if fmt not in Image.SAVE:
        pytest.skip(f"this Pillow does not write {fmt}")
    data = encode(IMAGE, fmt)
    assert stated_size(data) == (128, 96)
    monkeypatch.setattr(decoding, "_open", lambda data: 1 / 0)
    assert decode_rgb(data) is not None
    assert decode_rgb(data, options=DecodeOptions(max_pixels=128 * 96 - 1)) is None


def test_size_of_other_headers_is_read():
    assert stated_size(png_file(70000, 80000, bits=8, colour=2, rows=b"")) == (70000, 80000)
    assert stated_size(encode_cv2(".hdr", np.zeros((3, 5, 3), np.float32))) in ((5, 3), (3, 5))
    assert stated_size(b"P7\nWIDTH 5\nHEIGHT 3\nDEPTH 3\n") == (5, 3)
    assert stated_size(encode(IMAGE)) == stated_size(b"") == stated_size(b"\x89PNG\r\n\x1a\n") == (0, 0)


def test_bomb_in_a_text_chunk_does_not_hide_the_size():
    """Pillow refuses the file, OpenCV would decode it."""
    data = png_file(2000, 1500, bits=8, colour=0, rows=bytes(2001 * 1500))
    text = zlib.compress(bytes(100_000_000))
    chunk = b"zTXtk\0\0" + text
    bomb = data[:33] + struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk)) + data[33:]
    assert decode_rgb(bomb, options=DecodeOptions(max_pixels=2_999_999)) is None
    assert describe_problem(bomb, DecodeOptions(max_pixels=2_999_999)).startswith("2000 x 1500 pixels, more than")
    assert decode_rgb(bomb).shape == (1500, 2000, 3)
