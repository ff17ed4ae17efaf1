"""Images with more than 8 bits per channel, floating point or transparency."""

import numpy as np
import pytest
from encoded_images import encode, encode_cv2
from PIL import Image, PngImagePlugin

from sspyr_mm.datasets.transforms.decoding import decode_rgb
from sspyr_mm.datasets.transforms.pixel_values import DecodeOptions, to_8_bits

RAMP = np.linspace(0, 1, 48 * 64).reshape(48, 64)
"""From black to white."""
SHOWN = (RAMP * 255 + 0.5).astype(np.uint8)


def tiff(values, **tags):
    return encode(values, "TIFF", tiffinfo={int(name[1:]): value for name, value in tags.items()})


def pgm(values, largest):
    return f"P5 64 48 {largest}\n".encode() + values.astype(">u2").tobytes()


def bits(count, dtype=np.uint16):
    return (RAMP * (2**count - 1) + 0.5).astype(dtype)


@pytest.mark.parametrize(
    "data",
    [
        encode_cv2(".png", bits(16)),
        encode_cv2(".png", bits(12)),
        encode_cv2(".png", np.dstack([bits(12)] * 3)),
        encode_cv2(".tiff", np.dstack([bits(10)] * 3)),
        tiff(bits(10)),
        tiff(bits(9), t281=511),
        tiff(bits(15), t281=2**15 - 1),
        tiff(bits(31, np.int32)),
        tiff(bits(12, np.int32)),
        encode_cv2(".jp2", bits(12)),
        tiff(RAMP.astype(np.float32)),
        tiff((RAMP * 255).astype(np.float32)),
        tiff((RAMP * 2550 + 500).astype(np.float32)),
        tiff((RAMP * 3000 - 1000).astype(np.int32)),
        encode_cv2(".tiff", (RAMP * 3000 - 1000).astype(np.int16)),
        encode_cv2(".tiff", (RAMP * 2000 - 1000).astype(np.float64)),
        encode_cv2(".tiff", np.dstack([RAMP] * 4).astype(np.float32)),
        pgm(bits(12), 4095),
        pgm(RAMP * 300, 300),
    ],
    ids=lambda data: f"{data[:2]!r} {len(data)}",
)
def test_black_and_white_levels_are_kept(data):
    decoded = decode_rgb(data)
    assert decoded.dtype == np.uint8 and decoded.flags.c_contiguous
    np.testing.assert_allclose(decoded, np.stack([SHOWN] * 3, -1), atol=1)


def test_dark_image_with_a_bit_depth_tag_stays_dark():
    """Without the tag, 10 bits would be white."""
    dark = bits(10)
    for data in (tiff(dark, t281=4095), png_with_sbit(dark, 12), pgm(dark, 4095)):
        np.testing.assert_allclose(decode_rgb(data)[..., 0], RAMP * 255 / 4, atol=1)


def png_with_sbit(values, count):
    """Returns a PNG with a chunk of the bit depth, which Pillow writes before the image data."""
    info = PngImagePlugin.PngInfo()
    info.add(b"sBIT", bytes([count]))
    return encode(values, "PNG", pnginfo=info)


def test_black_stays_at_zero_and_white_at_a_power_of_two():
    """A narrow range of integers is not stretched; one of floating point is, unless it fits 0 to 1 or 0 to 255."""
    values = RAMP * 2000 + 1000
    for data in (tiff(values.astype(np.uint16)), tiff(values.astype(np.int32))):
        np.testing.assert_allclose(decode_rgb(data)[..., 0], values * 255 / 4095, atol=1)
    for scale, white in ((0.5, 1), (100, 255)):
        data = tiff((RAMP * scale).astype(np.float32))
        np.testing.assert_allclose(decode_rgb(data)[..., 0], RAMP * scale * 255 / white, atol=1)
    np.testing.assert_allclose(decode_rgb(tiff(values.astype(np.float32)))[..., 0], SHOWN, atol=1)


def test_tag_below_the_largest_value_is_ignored():
    np.testing.assert_allclose(decode_rgb(tiff(bits(12), t281=255))[..., 1], SHOWN, atol=1)
    np.testing.assert_allclose(decode_rgb(png_with_sbit(bits(16), 12))[..., 1], SHOWN, atol=1)


def test_channel_order_is_kept():
    colour = np.dstack([bits(12), bits(12)[::-1], bits(12)[:, ::-1]])  # BGR
    wanted = np.dstack([SHOWN, SHOWN[::-1], SHOWN[:, ::-1]])[..., ::-1]
    for suffix in (".png", ".tiff"):
        np.testing.assert_allclose(decode_rgb(encode_cv2(suffix, colour)), wanted, atol=1)


def test_tiff_with_white_as_zero_is_inverted():
    np.testing.assert_allclose(decode_rgb(tiff(bits(12), t262=0))[..., 0], 255 - SHOWN, atol=1)


def test_value_range_maps_to_black_and_white():
    options = DecodeOptions(value_range=(1000, 3000))
    values = np.full((4, 5), 2000, np.uint16)
    values[0], values[1] = 7, 4000
    decoded = decode_rgb(encode_cv2(".png", values), options=options)
    np.testing.assert_array_equal(decoded[:3, 0, 0], [0, 255, 128])
    plain = encode_cv2(".png", SHOWN)
    np.testing.assert_array_equal(decode_rgb(plain, options=options)[..., 0], SHOWN)


def test_not_a_number_is_black_and_infinity_white():
    values = np.array([[np.nan, 0, 50, 100, np.inf, -np.inf]])
    np.testing.assert_array_equal(to_8_bits(values - 20), [[0, 0, 127, 255, 255, 0]])
    np.testing.assert_array_equal(to_8_bits(np.full((2, 2), np.nan)), np.zeros((2, 2)))


@pytest.mark.parametrize("fmt", ["PNG", "TIFF"])
def test_orientation_of_deep_images_is_applied(fmt):
    exif = Image.Exif()
    exif[274] = 6
    options = dict(exif=exif) if fmt == "PNG" else dict(tiffinfo={274: 6})
    np.testing.assert_allclose(decode_rgb(encode(bits(12), fmt, **options))[..., 0], np.rot90(SHOWN, -1), atol=1)


# ---- transparency


def cut_out(seed):
    """Left half transparent with noise below, right half red."""
    pixels = np.zeros((20, 30, 4), np.uint8)
    pixels[:, :15, :3] = np.random.default_rng(seed).integers(0, 256, (20, 15, 3))
    pixels[:, 15:] = (200, 10, 20, 255)
    return pixels


@pytest.mark.parametrize("fmt", ["PNG", "WEBP", "TIFF"])
def test_hidden_colours_do_not_show(fmt):
    options = dict(lossless=True, exact=True) if fmt == "WEBP" else {}
    first, second = (decode_rgb(encode(cut_out(seed), fmt, **options)) for seed in (0, 1))
    np.testing.assert_array_equal(first, second)
    np.testing.assert_array_equal(first[3, 3], (124, 116, 104))
    np.testing.assert_array_equal(first[3, 20], (200, 10, 20))


def test_hidden_colours_of_16_bits_do_not_show():
    bgra = cut_out(0)[..., [2, 1, 0, 3]]
    for data in (encode_cv2(".png", bgra.astype(np.uint16) * 257), encode_cv2(".png", bgra)):
        decoded = decode_rgb(data)
        np.testing.assert_array_equal(decoded[3, 3], (124, 116, 104))
        np.testing.assert_array_equal(decoded[3, 20], (200, 10, 20))


def test_transparent_palette_colour_becomes_background():
    image = Image.fromarray(cut_out(0)[..., :3]).quantize(16)
    index = image.getpixel((20, 3))
    for fmt in ("PNG", "GIF"):
        decoded = decode_rgb(encode(image, fmt, transparency=index))
        np.testing.assert_array_equal(decoded[3, 20], (124, 116, 104))
        assert decoded[:, :15].std() > 30


def test_half_transparent_pixels_are_blended_with_the_background():
    pixels = np.full((4, 4, 4), (200, 100, 0, 128), np.uint8)
    data = encode(pixels, "PNG")
    options = DecodeOptions(background=(0, 0, 255))
    np.testing.assert_array_equal(decode_rgb(data, options=options)[0, 0], (100, 50, 127))


def test_alpha_that_is_zero_everywhere_is_ignored():
    pixels = cut_out(0)
    for alpha in (0, 255):
        pixels[..., 3] = alpha
        decoded = decode_rgb(encode(pixels, "PNG"))
        np.testing.assert_array_equal(decoded, pixels[..., :3])
