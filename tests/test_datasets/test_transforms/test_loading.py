"""Decoding of all image formats, and handling of broken files."""

import io
import logging
import os
import re
import struct
import zlib

import cv2
import numpy as np
import pytest
import torch
from mmengine.logging import MMLogger
from PIL import Image

from sspyr_mm.datasets import LoadRGBImage
from sspyr_mm.datasets.transforms import decoding
from sspyr_mm.datasets.transforms.decode_problems import UnreadableImageError
from sspyr_mm.datasets.transforms.decoding import decode_rgb

EXIF_ORIENTATION = 0x112
Image.init()  # or Pillow has not loaded its writer of AVIF


def make_image(height=48, width=64, seed=0):
    """A smooth image whose three channels differ."""
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_LINEAR)


def encode(image, fmt, **options):
    buffer = io.BytesIO()
    image = image if isinstance(image, Image.Image) else Image.fromarray(image)
    image.save(buffer, fmt, **options)
    return buffer.getvalue()


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
    image = make_image()
    decoded = decode_rgb(encode(image, fmt, **options))
    assert decoded.dtype == np.uint8 and decoded.flags.c_contiguous
    assert np.abs(decoded.astype(int) - image).max() <= tolerance


@pytest.mark.parametrize("fmt", ["PNG", "JPEG", "TIFF"])
def test_greyscale_becomes_three_equal_channels(fmt):
    image = grey(make_image())
    options = dict(quality=98) if fmt == "JPEG" else {}
    decoded = decode_rgb(encode(image, fmt, **options))
    assert decoded.shape == (48, 64, 3)
    assert (decoded == decoded[..., :1]).all()
    assert np.abs(decoded[..., 0].astype(int) - image).max() <= (3 if fmt == "JPEG" else 0)


@pytest.mark.parametrize("fmt", ["PNG", "GIF", "TIFF", "BMP"])
def test_palette_images_are_converted(fmt):
    image = Image.fromarray(make_image()).quantize(32)
    expected = np.asarray(image.convert("RGB"))
    np.testing.assert_array_equal(decode_rgb(encode(image, fmt)), expected)


def test_bilevel_images_are_converted():
    image = Image.fromarray(make_image()).convert("1")
    expected = np.asarray(image.convert("RGB"))
    np.testing.assert_array_equal(decode_rgb(encode(image, "PNG")), expected)


def test_first_frame_of_an_animated_gif_is_used():
    frames = [Image.fromarray(make_image(seed=seed)).quantize(32) for seed in (0, 1)]
    data = encode(frames[0], "GIF", save_all=True, append_images=frames[1:])
    np.testing.assert_array_equal(decode_rgb(data), np.asarray(frames[0].convert("RGB")))


@pytest.mark.parametrize("fmt", ["JPEG", "TIFF"])
def test_cmyk_is_converted(fmt):
    image = make_image()
    options = dict(quality=98, subsampling=0) if fmt == "JPEG" else {}
    decoded = decode_rgb(encode(Image.fromarray(image).convert("CMYK"), fmt, **options))
    # Inverted or swapped channels would be off by a hundred and more.
    assert np.abs(decoded.astype(int) - image).mean() < 3
    assert np.abs(decoded.astype(int) - image).max() < 25


@pytest.mark.parametrize("suffix", [".png", ".tiff"])
@pytest.mark.parametrize("colour", [False, True])
def test_sixteen_bits_are_scaled_and_not_clipped(suffix, colour):
    image = make_image() if colour else grey(make_image())
    low = np.random.default_rng(1).integers(0, 256, image.shape)
    deep = (image.astype(np.uint16) * 256 + low).astype(np.uint16)
    data = cv2.imencode(suffix, deep[..., ::-1] if colour else deep)[1].tobytes()
    expected = image if colour else np.stack([image] * 3, -1)
    assert np.abs(decode_rgb(data).astype(int) - expected).max() <= 1


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("fmt", ["JPEG", "WEBP", "PNG", "TIFF", "AVIF"])
def test_exif_orientation_is_applied(orientation, fmt):
    image = make_image()
    exif = Image.Exif()
    exif[EXIF_ORIENTATION] = orientation
    # What a viewer shows, by the definition of the tag.
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
def test_one_pixel_is_enough(size):
    image = make_image(*size)
    np.testing.assert_array_equal(decode_rgb(encode(image, "PNG")), image)


def test_pillow_is_used_for_formats_that_opencv_lacks(monkeypatch):
    image = make_image()
    exif = Image.Exif()
    exif[EXIF_ORIENTATION] = 6
    monkeypatch.setattr(decoding.cv2, "imdecode", lambda *_: None)
    decoded = decode_rgb(encode(image, "PNG", exif=exif))
    np.testing.assert_array_equal(decoded, np.rot90(image, -1))


def test_older_opencv_without_rgb_decoding_gives_rgb(monkeypatch):
    monkeypatch.setattr(decoding, "_DECODES_RGB", False)
    monkeypatch.setattr(decoding, "_CV2_MODE", cv2.IMREAD_COLOR)
    np.testing.assert_array_equal(decode_rgb(encode(make_image(), "PNG")), make_image())


def png_header(width, height):
    def chunk(name, content):
        crc = zlib.crc32(name + content)
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", crc)

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    body = chunk(b"IDAT", zlib.compress(bytes(100))) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + header + body


def broken_files():
    whole = {fmt: encode(make_image(480, 640), fmt) for fmt in ("JPEG", "PNG", "WEBP", "BMP", "TIFF")}
    for fmt, data in whole.items():
        for share in (0.99, 0.5, 0.1):
            yield pytest.param(data[: int(len(data) * share)], id=f"{share} of a {fmt}")
    yield pytest.param(b"", id="empty")
    yield pytest.param(b"<html>404</html>", id="text")
    yield pytest.param(bytes(1000), id="zeros")
    yield pytest.param(png_header(100_000, 100_000), id="more pixels than OpenCV allows")
    yield pytest.param(png_header(0, 5), id="no pixels")


@pytest.mark.parametrize("data", broken_files())
def test_broken_files_are_decoded_to_none(data):
    assert decode_rgb(data) is None


@pytest.mark.filterwarnings("ignore")
def test_no_flipped_byte_raises():
    rng = np.random.default_rng(0)
    blobs = [encode(make_image(), fmt) for fmt in ("JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP", "PPM")]
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


def test_the_transform_adds_image_and_shape_and_keeps_the_rest(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(encode(make_image(), "PNG"))
    given = dict(img_path=str(path), sample_idx=3)
    results = LoadRGBImage()(given)
    np.testing.assert_array_equal(results.pop("img"), make_image())
    shapes = dict(ori_shape=(48, 64), img_shape=(48, 64))
    assert results == dict(img_path=str(path), sample_idx=3, **shapes)
    assert given == dict(img_path=str(path), sample_idx=3)


@pytest.fixture
def log():
    """What is said through mmengine's current logger."""
    logger = MMLogger.get_instance("test_loading")
    records = []
    handler = logging.Handler()
    handler.emit = records.append
    logger.addHandler(handler)
    yield records
    logger.removeHandler(handler)


def test_broken_file_is_reported_and_skipped(tmp_path, log):
    path = tmp_path / "broken.jpg"
    path.write_bytes(encode(make_image(), "JPEG")[:200])
    assert LoadRGBImage()(dict(img_path=str(path))) is None
    (record,) = log
    assert record.levelno == logging.WARNING
    assert f"Skipped {path}: a JPEG image that is truncated, damaged or" in record.getMessage()


def test_a_file_is_reported_once_and_an_error_of_the_disk_each_time(tmp_path, log):
    (tmp_path / "broken.jpg").write_bytes(b"no image")
    load = LoadRGBImage()
    for name in ("broken.jpg", "gone.jpg") * 3:
        assert load(dict(img_path=str(tmp_path / name))) is None
    assert [record.getMessage().count("broken") for record in log] == [1, 0, 0, 0]


class Files(torch.utils.data.Dataset):
    """Reads the same files again and again."""

    def __init__(self, paths):
        self.paths, self.load = paths, LoadRGBImage()

    def __len__(self):
        return len(self.paths)

    def __getitem__(self, index):
        logger = MMLogger.get_instance("test_loading")
        counts = []
        handler = logging.Handler()
        handler.emit = counts.append
        logger.addHandler(handler)
        self.load(dict(img_path=self.paths[index]))
        logger.removeHandler(handler)
        return len(counts)


def test_workers_and_epochs_report_a_file_once(tmp_path, log):
    (tmp_path / "broken.jpg").write_bytes(b"no image")
    loader = torch.utils.data.DataLoader(Files([str(tmp_path / "broken.jpg")] * 4), num_workers=2)
    assert sum(int(count) for _ in range(2) for count in loader) == 1


def test_names_that_are_not_utf_8_are_printed(tmp_path, log):
    path = os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9\n.jpg")
    with open(path, "wb") as file:
        file.write(b"no image")
    assert LoadRGBImage()(dict(img_path=path)) is None
    log[0].getMessage().encode("utf-8")
    assert f"{tmp_path}/caf\\udce9\\n.jpg: not an image" in log[0].getMessage()


@pytest.mark.parametrize("make", [os.mkfifo, lambda path: os.symlink("/dev/zero", path)])
def test_pipes_and_devices_are_refused(tmp_path, log, make):
    make(tmp_path / "endless.jpg")
    assert LoadRGBImage()(dict(img_path=str(tmp_path / "endless.jpg"))) is None
    assert "endless.jpg: a pipe, socket or device" in log[0].getMessage()


@pytest.mark.parametrize(
    ("level", "spread", "kind"), [(0, 1, "constant"), (90, 1, "constant"), (0, 15, "nearly black")]
)
def test_the_first_image_without_content_is_reported(tmp_path, log, level, spread, kind):
    load = LoadRGBImage()
    for name, value in (("bright", 40), ("flat", spread), ("another", spread)):
        image = np.full((32, 40, 3), level, np.uint8)
        image[5:9, 7:20] += value
        cv2.imwrite(str(tmp_path / f"{name}.png"), image)
        assert load(dict(img_path=str(tmp_path / f"{name}.png"))) is not None
    assert [record.getMessage().partition(";")[0] for record in log] == [f"{tmp_path}/flat.png is {kind}"]


def test_invalid_options_are_refused():
    with pytest.raises(ValueError, match=r"value_range must be .*got \(5, 5\)"):
        LoadRGBImage(value_range=(5, 5))
    with pytest.raises(ValueError, match="max_pixels must be a number >= 1, got 0"):
        LoadRGBImage(max_pixels=0)


def test_missing_file_is_reported_and_skipped(tmp_path, log):
    path = tmp_path / "gone.jpg"
    assert LoadRGBImage()(dict(img_path=str(path))) is None
    assert f"Skipped {path}: " in log[0].getMessage()
    assert "No such file" in log[0].getMessage()


def test_a_broken_or_missing_file_with_a_label_is_an_error(tmp_path, log):
    load = LoadRGBImage(skip_broken=False)
    path = tmp_path / "broken.jpg"
    path.write_bytes(encode(make_image(), "JPEG")[:200])
    for problem in ("a JPEG image that is truncated", "No such file"):
        with pytest.raises(UnreadableImageError, match=f"^{re.escape(str(path))}: {problem}.*It has a label"):
            load(dict(img_path=str(path)))
        path.unlink(missing_ok=True)
    assert not log


def test_files_of_another_backend_are_read(tmp_path):
    """backend_args reach mmengine's file client: here a backend that knows one name only."""
    from mmengine.fileio import BaseStorageBackend, register_backend

    class Names(BaseStorageBackend):
        def get(self, filepath):
            return {"remote": encode(make_image(), "PNG")}[filepath]

        def get_text(self, filepath):
            raise NotImplementedError

    register_backend("names_of_test_loading", Names, force=True)
    load = LoadRGBImage(backend_args=dict(backend="names_of_test_loading"))
    np.testing.assert_array_equal(load(dict(img_path="remote"))["img"], make_image())
