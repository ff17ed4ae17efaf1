"""Shards: packing, order of images, and resuming within an epoch."""

import multiprocessing
import os
import re
import signal
import subprocess
import sys
import time
from contextlib import suppress

import cv2
import numpy as np
import pytest
from PIL import Image
from torch.utils.data import DataLoader

from sspyr_mm.__main__ import main
from sspyr_mm.datasets import StreamedImages, UnlabelledImages, set_epoch, set_views
from sspyr_mm.datasets.streaming.litdata_patches import litdata_settings
from sspyr_mm.datasets.streaming.shards import _Packer, is_packed, pack
from sspyr_mm.datasets.transforms.decoding import UnreadableImageError
from sspyr_mm.pyramid import PyramidSpec

NUM_IMAGES, BATCH = 61, 4
PYRAMID = dict(s0=dict(grid=1, region=32, patch=32, num_prototypes=6, area=(0.2, 1.0), alpha=1.0))
PIPELINE = [dict(type="mmpretrain.LoadRGBImage"), dict(type="mmpretrain.PyramidViewTransform")]


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """Different images in two folders, and two files that are not images."""
    folder = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    for index in range(NUM_IMAGES):
        path = folder / "ab"[index % 2] / f"{index:02}.png"
        path.parent.mkdir(exist_ok=True)
        cv2.imwrite(str(path), rng.integers(0, 256, (8, 10, 3), dtype=np.uint8))
    (folder / "a/text.jpg").write_text("no image")
    (folder / "a/empty.png").touch()
    return folder


@pytest.fixture(scope="module")
def shards(images, tmp_path_factory):
    out = tmp_path_factory.mktemp("packed") / "shards"
    paths = UnlabelledImages(str(images)).list_images()
    skipped = pack(paths, str(out), shard_bytes=1500, num_workers=2)
    assert sorted(skipped) == [
        f"{images}/a/empty.png: an empty file",
        f"{images}/a/text.jpg: not an image that can be decoded",
    ]
    assert len(list(out.glob("chunk-*.bin"))) > 8
    return out


def item(results):
    return results


def make_loader(shards, num_workers, batch_size=BATCH, **kwargs):
    dataset = StreamedImages(str(shards), pipeline=[item], **kwargs)
    return DataLoader(
        dataset,
        batch_size,
        num_workers=num_workers,
        persistent_workers=num_workers > 0,
        drop_last=True,
        collate_fn=list,
    )


def epoch_of(loader, epoch, *, seed=3, **kwargs):
    """Returns batches of indices, and the state that a checkpoint would save."""
    begun = loader.dataset.start_epoch(
        epoch, seed=seed, batch_size=loader.batch_size, num_workers=loader.num_workers, **kwargs
    )
    return [[results["sample_idx"] for results in batch] for batch in loader], begun


def close(loader):
    if loader._iterator is not None:
        loader._iterator._shutdown_workers()


def flat(batches):
    return [index for batch in batches for index in batch]


def test_files_are_packed_unchanged_and_shuffled(images, shards):
    packed = [results for batch in make_loader(shards, 0, 1, shuffle=False) for results in batch]
    names = [results["img_path"] for results in packed]
    on_disk = sorted(str(p.relative_to(images)) for p in images.rglob("*.png") if p.stat().st_size)
    assert sorted(names) == on_disk
    assert names != on_disk
    assert 15 < sum(name.startswith("a/") for name in names[:NUM_IMAGES]) < 46
    first_half = sum(name.startswith("a/") for name in names[: NUM_IMAGES // 2])
    assert 5 < first_half < 25  # not one folder after the other
    assert all(r["img_bytes"] == (images / r["img_path"]).read_bytes() for r in packed)
    assert len({results["sample_idx"] for results in packed}) == NUM_IMAGES


@pytest.mark.parametrize("num_workers", [0, 1, 2, 3])
def test_each_epoch_has_its_own_order_without_repeats(shards, num_workers):
    loader = make_loader(shards, num_workers)
    assert multiprocessing.get_start_method() == "fork"  # packing restores it
    assert len(loader.dataset) == loader.dataset.num_images == NUM_IMAGES
    epochs = [epoch_of(loader, epoch)[0] for epoch in (0, 1, 2)]
    assert [len(epoch) for epoch in epochs] == [len(loader)] * 3 == [NUM_IMAGES // BATCH] * 3
    assert all(len(set(flat(epoch))) == NUM_IMAGES // BATCH * BATCH for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2]
    # The order depends only on the epoch, not on earlier ones.
    assert [epoch_of(loader, epoch)[0] for epoch in (2, 0)] == [epochs[2], epochs[0]]
    close(loader)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_order_depends_on_the_seed_of_the_run(shards, num_workers):
    orders = []
    for seed in (3, 4, 3):
        loader = make_loader(shards, num_workers)
        orders.append(epoch_of(loader, 1, seed=seed)[0])
        close(loader)
    assert orders[0] == orders[2] != orders[1]


@pytest.mark.parametrize("num_workers", [0, 1, 2, 3])
@pytest.mark.parametrize("local", [True, False], ids=["in_place", "fetched"])
def test_interrupted_epoch_continues_exactly(shards, tmp_path, num_workers, local):
    root = shards if local else f"local:{shards}"
    options = {} if local else {"cache_dir": str(tmp_path)}
    whole = make_loader(root, num_workers, **options)
    (second, begun), third = epoch_of(whole, 1), epoch_of(whole, 2)[0]
    close(whole)
    for done in (1, 2, 5, 7, len(second) - 1):
        loader = make_loader(root, num_workers, **options)
        rest, kept = epoch_of(loader, 1, done=done, begun=begun)
        assert rest == second[done:]
        assert kept == begun
        assert epoch_of(loader, 2)[0] == third
        close(loader)
    assert local or list(tmp_path.rglob("chunk-*.bin"))


def test_other_workers_continue_with_the_remaining_images(shards):
    """The number of workers changes three times, and no image is repeated."""
    loader = make_loader(shards, 2)
    batches, begun = epoch_of(loader, 0)
    seen, done = flat(batches[:3]), 3
    for num_workers, more in ((3, 4), (2, 3), (1, 100)):
        loader = make_loader(shards, num_workers)
        rest, begun = epoch_of(loader, 0, done=done, begun=begun)
        assert begun["dealt_anew"]
        assert len(batches) - done - num_workers < len(rest) <= len(batches) - done
        assert not set(seen) & set(flat(rest))
        seen, done = seen + flat(rest[:more]), done + more
        close(loader)
    assert len(seen) == len(set(seen)) > NUM_IMAGES - 3 * BATCH


def test_views_equal_those_of_the_file(images, shards):
    """The seed, the epoch and the index are the same."""
    spec = PyramidSpec.from_config(PYRAMID)
    streamed = StreamedImages(str(shards), pipeline=PIPELINE)
    files = UnlabelledImages(str(images), pipeline=PIPELINE)
    for dataset in (streamed, files):
        set_views(dataset, spec.views)
        set_epoch(dataset, 1, seed=5)
    results = next(iter(streamed))
    path = str(images / results["img_path"])
    same = files.pipeline(dict(img_path=path, sample_idx=results["sample_idx"]))
    assert results["view_seed"] == same["view_seed"]
    np.testing.assert_array_equal(results["regions"]["s0"], same["regions"]["s0"])
    assert "img_bytes" not in results


@pytest.fixture
def damaged(images, shards, tmp_path):
    """Returns a function that copies the shards, without checksums, and overwrites some images."""

    def damage(names):
        left = set(names)
        for path in shards.iterdir():
            data = path.read_bytes()
            for name in names:
                image = (images / name).read_bytes()
                if image in data:
                    data = data.replace(image, bytes(len(image)))
                    left.discard(name)
            if path.suffix == ".json":
                data = re.sub(rb'"crc32": \d+, ', b"", data)
            (tmp_path / path.name).write_bytes(data)
        assert not left
        return tmp_path

    return damage


@pytest.mark.parametrize("which", ["some", "last"])
def test_damaged_image_is_replaced(images, shards, damaged, which):
    order = [r["img_path"] for r in StreamedImages(str(shards), pipeline=PIPELINE[:1])]
    names = {"some": ["a/04.png", "b/05.png"], "last": order[-3:]}[which]
    results = list(StreamedImages(str(damaged(names)), pipeline=PIPELINE[:1]))
    assert len(results) == NUM_IMAGES
    assert len({r["sample_idx"] for r in results}) == NUM_IMAGES
    assert {r["img_path"] for r in results} == set(order) - set(names)


def test_damaged_shards_are_an_error(images, damaged):
    root = damaged([str(p.relative_to(images)) for p in images.rglob("*.png") if p.stat().st_size])
    with pytest.raises(UnreadableImageError, match=r"and 100 replacements cannot be read"):
        list(StreamedImages(str(root), pipeline=PIPELINE[:1]))


def test_folder_of_images_is_not_a_packed_set(images, shards, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"contains no shards \(no index\.json.*sspyr_mm pack"):
        StreamedImages(str(images))
    with pytest.raises(FileNotFoundError, match=r"nowhere contains no shards"):
        StreamedImages(str(tmp_path / "nowhere"))
    with pytest.raises(FileNotFoundError, match=r"No shards can be read at local:.*nowhere"):
        StreamedImages(f"local:{tmp_path}/nowhere", cache_dir=str(tmp_path))
    with pytest.raises(ValueError, match=r"contains packed shards: pass it to .*--data-root"):
        UnlabelledImages(str(shards))


def test_unrelated_index_is_not_a_packed_set(images, shards, tmp_path):
    (tmp_path / "index.json").write_text("{}")
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    assert is_packed(str(shards)) and not is_packed(str(tmp_path)) and not is_packed(str(images))


def test_missing_library_is_reported(shards, monkeypatch):
    monkeypatch.setitem(sys.modules, "litdata", None)
    with pytest.raises(ImportError, match=r"needs litdata: pip install 'sspyr_mm\[streaming\]'"):
        StreamedImages(str(shards))


def test_command_packs_and_reports_skipped_files(images, tmp_path, capsys):
    out = tmp_path / "deep/er/packed"
    assert main(["pack", str(images / "a"), str(images / "b"), str(out), "--num-workers", "2"]) == 0
    assert re.search(rf"{out}: {NUM_IMAGES} images, 2 skipped in [\d.]+ s", capsys.readouterr().out)
    assert [path.name for path in out.parent.iterdir()] == ["packed"]
    assert len(StreamedImages(str(out))) == NUM_IMAGES

    assert main(["pack", str(images), str(out)]) == 2
    assert f"{out} already exists: remove it, or give another" in capsys.readouterr().err


def test_names_that_are_not_utf_8_are_packed_and_reported(images, tmp_path, capsys):
    folder = os.fsencode(tmp_path) + b"/caf\xe9"
    os.mkdir(folder)
    for name, data in ((b"\xe9.png", (images / "a/04.png").read_bytes()), (b"\xea.png", b"text")):
        with open(folder + b"/" + name, "wb") as file:
            file.write(data)
    (tmp_path / "notes.txt").touch()
    out = tmp_path / "packed"
    assert main(["pack", str(tmp_path), str(out), "--num-workers", "1"]) == 0
    err = capsys.readouterr().err.splitlines()
    assert "pack: 1 of 3 files skipped: 1 .txt" in err
    skipped = f"pack: skipped {tmp_path}/caf\\udce9/\\udcea.png: not an image that can be decoded"
    assert skipped in err
    (packed,) = StreamedImages(str(out), pipeline=[item])
    assert packed["img_path"] == "\\udce9.png"


def test_packing_without_readable_images_leaves_no_files(images, tmp_path, capsys):
    listed = tmp_path / "list.txt"
    listed.write_text(f"{images}/a/text.jpg\n{images}/a/empty.png\n")
    assert main(["pack", str(listed), str(tmp_path / "out")]) == 2
    assert "None of 2 images can be decoded, e.g." in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["list.txt"]


def test_killed_process_is_reported(images, tmp_path, monkeypatch):
    """litdata itself reports nothing."""

    def die_at_ten(self, index):
        if index == 10:
            os._exit(1)
        yield {"index": index, "name": "", "image": b""}

    monkeypatch.setattr(_Packer, "__call__", die_at_ten)
    paths = UnlabelledImages(str(images)).list_images()
    with pytest.raises(RuntimeError, match=r"Only \d+ of 63 images were packed: a process exited"):
        pack(paths, str(tmp_path / "out"), shard_bytes=1500, num_workers=2)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("number", "whole_group"),
    [
        (signal.SIGINT, True),  # Ctrl-C
        pytest.param(signal.SIGTERM, False, marks=pytest.mark.slow),  # kill
        pytest.param(signal.SIGINT, False, marks=pytest.mark.slow),
        pytest.param(signal.SIGTERM, True, marks=pytest.mark.slow),
    ],
)
def test_interrupted_packing_leaves_no_files(tmp_path, number, whole_group):
    """litdata itself exits with status 0 and leaves an incomplete data set and its processes."""
    images, folder = tmp_path / "images", tmp_path / "made"
    images.mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (300, 400, 3), dtype=np.uint8)
    cv2.imwrite(str(images / "0.png"), pixels)
    for index in range(1, 4000):
        os.link(images / "0.png", images / f"{index}.png")
    command = [sys.executable, "-m", "sspyr_mm", "pack", str(images), str(folder / "out")]
    options = ["--num-workers", "2", "--shard-mb", "1"]
    process = subprocess.Popen([*command, *options], stderr=subprocess.PIPE, text=True, start_new_session=True)
    while not list(folder.glob("*.partial/**/*.bin")) and process.poll() is None:
        time.sleep(0.05)
    assert process.poll() is None, "packing ended before it could be interrupted"
    (os.killpg if whole_group else os.kill)(process.pid, number)
    err = process.communicate(timeout=60)[1]
    assert process.returncode == 130 and "pack: interrupted" in err
    assert not list(folder.iterdir())
    with pytest.raises(ProcessLookupError):
        os.killpg(process.pid, 0)


def test_interrupt_while_a_process_forks_is_not_lost(tmp_path):
    with pytest.raises(KeyboardInterrupt), litdata_settings(str(tmp_path)), suppress(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)


def test_relative_and_absolute_folders_are_packed_together(images, tmp_path, monkeypatch):
    (tmp_path / "more").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "more/x.png")
    monkeypatch.chdir(tmp_path)
    assert main(["pack", "more", str(images), "out", "--num-workers", "1"]) == 0
    assert len(StreamedImages("out")) == NUM_IMAGES + 1


@pytest.mark.parametrize("text", ["[1]", "nothing"])
def test_storage_options_must_be_a_dict(text, capsys):
    with pytest.raises(SystemExit):
        main(["pack", "images", "out", "--storage-options", text])
    assert 'must be a JSON object such as \'{"endpoint_url"' in capsys.readouterr().err


def test_storage_options_are_parsed_from_text(shards):
    assert len(StreamedImages(str(shards), storage_options="{'a': '1'}")) == NUM_IMAGES
    for wrong in ("endpoint_url", "[1]"):
        with pytest.raises(ValueError, match="storage_options must be a dict such as"):
            StreamedImages(str(shards), storage_options=wrong)
