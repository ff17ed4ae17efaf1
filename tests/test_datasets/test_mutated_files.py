"""Thousands of damaged images, lists and jsons: read or refused with one clear line, without a crash or a hang."""

import json
import random
from collections import Counter

import numpy as np
import pytest
from encoded_images import encode, encode_cv2, random_image, smooth_image
from image_mutations import mutated, run_alone
from PIL import Image

from sspyr_mm.datasets import UnlabelledImages
from sspyr_mm.datasets.transforms.decoding import decode_rgb, describe_problem
from sspyr_mm.datasets.transforms.pixel_values import DecodeOptions

LIMIT = DecodeOptions(max_pixels=1_000_000)
MAX_KIB = 400 << 10
"""Additional memory of a process that decodes at most LIMIT.max_pixels at a time."""


def image_files():
    image, noise = smooth_image(), random_image()
    deep = (noise.astype(np.uint16) << 4) + 7
    alpha = Image.fromarray(image).convert("RGBA")
    alpha.putalpha(77)
    return [
        encode(image),
        encode(image, progressive=True),
        encode(Image.fromarray(image).convert("CMYK")),
        encode(noise, "PNG"),
        encode(alpha, "PNG"),
        encode(Image.fromarray(image).quantize(16), "PNG"),
        encode_cv2(".png", deep),
        encode(image, "WEBP"),
        encode(image, "WEBP", lossless=True),
        encode(image, "TIFF"),
        encode(image, "TIFF", compression="tiff_lzw"),
        encode_cv2(".tif", deep),
        encode(image, "GIF"),
        encode(image, "GIF", save_all=True, append_images=[Image.fromarray(image[::-1])]),
        encode(image, "BMP"),
        encode(image, "PPM"),
        encode(Image.fromarray(image).convert("L"), "PPM"),
    ]


def decode_all(count, seed):
    """Returns how many files were decoded, and how many refused."""
    rng, files = random.Random(seed), image_files()
    counts = Counter()
    for number in range(count):
        data = mutated(files[number % len(files)], rng)
        image = decode_rgb(data, reduction=rng.choice((1, 1, 2, 8)), options=LIMIT)
        if image is None:
            reason = describe_problem(data, LIMIT)
            assert reason and reason.isprintable() and len(reason) < 200, (number, reason)
        else:
            assert image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3, number
            assert 0 < image.size <= 3 * LIMIT.max_pixels, (number, image.shape)
        counts[image is not None] += 1
    return counts


def write_lists(folder):
    (folder / "images").mkdir()
    names = [f"images/{index:02} \u00e4.png" for index in range(30)]
    for name in names:
        (folder / name).touch()
    lines = "# comment\n" + "\n".join([*names, f"file://{folder}/{names[0]}", "http://host/a.png"]) + "\n"
    content = dict(
        images=[dict(id=i, file_name=name, width=3, height=2) for i, name in enumerate(names)], info={"a": []}
    )
    return {
        "list.txt": [lines.encode(), lines.encode("utf-16"), lines.replace("\n", " 3\r\n").encode()],
        "coco.json": [json.dumps(content).encode(), json.dumps(content, indent=1, ensure_ascii=False).encode()],
    }


def read_all(folder, count, seed):
    """Returns how many lists were read, and how many refused."""
    rng, sources = random.Random(seed), write_lists(folder)
    counts = Counter()
    for number in range(count):
        name = rng.choice(list(sources))
        (folder / name).write_bytes(mutated(rng.choice(sources[name]), rng))
        try:
            images = UnlabelledImages(folder / name, max_missing=rng.choice((0.05, 1.0)), lazy_init=True)
            paths = images.list_images()
            assert paths and all(len(line.splitlines()) == 1 for line in images.notices), number
            counts[True] += 1
        except (ValueError, FileNotFoundError) as error:
            text = str(error)
            text.encode()
            assert name in text and len(text.splitlines()) == 1 and len(text) < 3000, (number, text)
            counts[False] += 1
    return counts


@pytest.mark.parametrize(("count", "seconds"), [(170, 60), pytest.param(10_000, 1800, marks=pytest.mark.slow)])
def test_mutated_images_are_decoded_or_refused(count, seconds):
    counts, peak = run_alone(decode_all, count, 0, seconds=seconds)
    assert counts.total() == count and min(counts[True], counts[False]) > count // 10
    assert peak < MAX_KIB, peak


@pytest.mark.parametrize(("count", "seconds"), [(100, 60), pytest.param(2_000, 900, marks=pytest.mark.slow)])
def test_mutated_lists_are_read_or_refused(tmp_path, count, seconds):
    counts, peak = run_alone(read_all, tmp_path, count, 0, seconds=seconds)
    assert counts.total() == count and min(counts[True], counts[False]) > count // 10
    assert peak < MAX_KIB, peak
