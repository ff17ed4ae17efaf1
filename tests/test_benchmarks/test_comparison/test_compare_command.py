"""``compare``: networks of several sources on the same labels, from image files to the table."""

import csv
import json
import re
from dataclasses import replace

import commands
import numpy as np
import pytest
import timm
import torch
from PIL import Image

from sspyr_mm.benchmarks.comparison.candidates import read_candidates
from sspyr_mm.benchmarks.comparison.compare import draw_subset, usable_percents
from sspyr_mm.checkpoints.formats.weights import Selection
from sspyr_mm.datasets.labelled import read_labelled


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Two classes of noise whose mean colours overlap; one test image is a copy of a training image."""
    root = tmp_path_factory.mktemp("colours")
    rng = np.random.default_rng(0)
    for part, num in (("train", 40), ("test", 30)):
        for name, mean in (("blue", (110, 110, 140)), ("red", (140, 110, 110))):
            (root / part / name).mkdir(parents=True)
            for number in range(num):
                colour = np.array(mean) + rng.normal(scale=14, size=3)
                pixels = colour + rng.normal(scale=40, size=(8, 8, 3))
                image = Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).resize((48, 48))
                image.save(root / part / name / f"{number}.png")
    Image.open(root / "train/red/5.png").save(root / "test/red/copy.jpg", quality=80)
    return root


@pytest.fixture(scope="module")
def resnet(tmp_path_factory):
    """A file that is read by itself as torchvision's ResNet, and by timm."""
    torch.manual_seed(3)
    path = tmp_path_factory.mktemp("resnet") / "mine.pth"
    torch.save(timm.create_model("resnet18").state_dict(), path)
    return str(path)


def compare(networks, folders, work_dir, *more):
    data = ["--data", folders, "--split", "train", "--test-split", "test", "--size", 32, "--work-dir", work_dir]
    return commands.run("-m", "sspyr_mm", "compare", *networks, *data, *more)


def test_networks_are_compared_on_the_same_labels(folders, resnet, tmp_path):
    done = compare([resnet, f"timm:resnet18={resnet}"], folders, tmp_path, "--percent", 1, 30, 100)
    assert "1 of 61 test images are near-duplicates of training images" in done.stderr
    assert "--percent 1 (2 images) is skipped: needs at least 20\n" in done.stderr
    found = json.loads((tmp_path / "comparison.json").read_text())
    assert found["images"] == {"30": 24, "100": 80} and found["num_test"] == 60
    (pair,) = found["near_duplicates"]
    assert pair["test"].endswith("test/red/copy.jpg") and pair["train"].endswith("train/red/5.png")
    values = found["values"]
    mine = "resnet0/mine.pth"  # file names alone are often epoch_N.pth
    assert list(values) == [mine, "timm:resnet18=mine.pth", "random"]
    assert values[mine] == values["timm:resnet18=mine.pth"] != values["random"]
    assert [len(values[mine][percent]) for percent in ("30", "100")] == [5, 1]
    # The probe gives the same figure on all labels.
    (tmp_path / "test").mkdir()
    (tmp_path / "test/red").mkdir()
    (tmp_path / "test/blue").symlink_to(folders / "test/blue")
    for path in (folders / "test/red").glob("*.png"):
        (tmp_path / "test/red" / path.name).symlink_to(path)
    probe = commands.run(
        *("-m", "sspyr_mm", "probe", resnet, "--no-random", "--size", 32, "--json", tmp_path / "probe.json"),
        *("--train", folders / "train", "--val", tmp_path / "test"),
    )
    assert "top-1" in probe.stdout
    value = json.loads((tmp_path / "probe.json").read_text())["results"][0]["value"]
    assert 60 < value < 100 and values[mine]["100"] == [pytest.approx(value)]
    # Table, CSV and plot.
    table = re.sub(" +", " ", done.stdout)
    assert f"| {mine} | {np.mean(values[mine]['30']):.1f} (" in table
    assert "| timm:resnet18=mine.pth | unclear: +0.0 (+0.0 to +0.0) | unclear: +0.0 (+0.0 to +0.0) |" in table
    rows = list(csv.DictReader((tmp_path / "comparison.csv").open()))
    assert [(row["network"], row["percent"], row["images"]) for row in rows[2:]] == [
        ("timm:resnet18=mine.pth", "30", "24"),
        ("timm:resnet18=mine.pth", "100", "80"),
        ("random", "30", "24"),
        ("random", "100", "80"),
    ]
    difference = np.mean(values[mine]["30"]) - np.mean(values["random"]["30"])
    assert float(rows[4]["first_minus_this"]) == pytest.approx(difference)
    assert float(rows[4]["difference_low"]) < difference < float(rows[4]["difference_high"])
    assert Image.open(tmp_path / "comparison.png").width > 500


def test_copies_are_kept_on_request_and_a_part_is_held_out(folders, resnet, tmp_path):
    kept = compare([resnet], folders, tmp_path, "--no-random", "--percent", 100, "--seeds", 0, "--keep-duplicates")
    assert "They are kept: results are too high if they are copies" in kept.stderr
    assert json.loads((tmp_path / "comparison.json").read_text())["num_test"] == 61
    options = ["--percent", 100, "--no-random", "--size", 32, "--work-dir", tmp_path]
    held = commands.run("-m", "sspyr_mm", "compare", resnet, "--data", folders / "train", *options)
    assert "No test set is given: 16 of 80 images are held out" in held.stderr
    assert json.loads((tmp_path / "comparison.json").read_text())["images"] == {"100": 64}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--data", "{folders}"], "no split was given; choose one of test, train"),
        (["--data", "{folders}/train", "--test", "{table}"], "--data has one label per image and the test set several"),
        (["--data", "{table}", "--test", "{empty}"], "None of the 2 images of the test set shows a class"),
        (["--data", "{table}"], "--data has 3 images, too few to hold a part out"),
        (["--data", "{folders}/train", "--seeds", "3", "3"], "at least two different --seeds, got 3, 3"),
        (["--data", "{folders}/train", "--seeds", "-1"], "must be an integer from 0"),
        (["--data", "{folders}/train", "--work-dir", "{table}"], "--work-dir .* can't be written"),
    ],
)
def test_wrong_input_is_refused_before_the_work(options, message, folders, resnet, tmp_path):
    table, empty = tmp_path / "some.csv", tmp_path / "empty.csv"
    files = [folders / f"train/{name}.png" for name in ("red/0", "red/1", "blue/0")]
    table.write_text("file,red,blue\n" + "".join(f"{file},1,{i % 2}\n" for i, file in enumerate(files)))
    empty.write_text("file,red,blue\n" + "".join(f"{file},0,0\n" for file in files[:2]))
    options = [option.format(folders=folders, table=table, empty=empty) for option in options]
    options = ["--work-dir", tmp_path / "work", *options]
    done = commands.run("-m", "sspyr_mm", "compare", resnet, *options, check=False)
    assert done.returncode == 2 and re.search(message, done.stderr)
    assert not list(tmp_path.rglob("*.partial"))


def test_subset_without_a_class_is_left_out(folders, capsys):
    train = read_labelled(folders, split="train")
    rare = np.zeros_like(train.targets)
    rare[3, 0] = 1
    sparse = replace(train, targets=rare, multi_label=True)
    assert usable_percents(sparse, [30, 100], [0, 1]) == {100: 80}
    assert "--percent 30 (24 images) is skipped: no image shows a class" in capsys.readouterr().err


def test_prefix_and_averaged_weights_of_a_file_for_timm(resnet, tmp_path):
    state = torch.load(resnet)
    raw = {name: tensor + 1 if "conv" in name else tensor for name, tensor in state.items()}
    torch.save({"state_dict": raw, "state_dict_ema": state}, tmp_path / "both.pth")
    torch.save({f"backbone.{name}": tensor for name, tensor in state.items()}, tmp_path / "prefix.pth")

    def weights(path, **select):
        names = [f"timm:resnet18={path}"]
        (found,) = read_candidates(names, size=32, random=False, select=Selection(**select))
        return found.about["weights_sha256"]

    plain = weights(resnet)
    assert weights(tmp_path / "both.pth", ema=True) == plain == weights(tmp_path / "prefix.pth", prefix="backbone.")
    assert weights(tmp_path / "both.pth", ema=False) != plain


def test_subsets_are_nested_and_have_every_class(folders):
    train = read_labelled(folders, split="train")
    small, large = (draw_subset(train, percent, seed=1) for percent in (20, 50))
    assert set(small) < set(large) and (len(small), len(large)) == (16, 40)
    assert train.targets[small].sum(0).tolist() == [8, 8]
    assert set(draw_subset(train, 20, seed=2)) != set(small)
    assert train.targets[draw_subset(train, 1, seed=0)].sum(0).tolist() == [1, 1]
    with pytest.raises(ValueError, match="80 training images of 2 classes are too few for --percent 1 10: "):
        usable_percents(train, [1, 10], [0])


def test_transformer_of_timm_takes_images_of_any_size(tmp_path):
    torch.manual_seed(0)
    network = timm.create_model("vit_tiny_patch16_224")
    torch.save({"model": network.state_dict()}, tmp_path / "vit.pth")
    name = f"timm:vit_tiny_patch16_224={tmp_path / 'vit.pth'}"
    first, random = read_candidates([name], size=64)
    images = torch.randint(256, (2, 3, 64, 64), dtype=torch.uint8)
    normed = (images / 255 - 0.5) / 0.5  # of this model, not ImageNet's
    resized = timm.create_model("vit_tiny_patch16_224", img_size=64, num_classes=0).eval()
    state = timm.models.vision_transformer.checkpoint_filter_fn(network.state_dict(), resized)
    resized.load_state_dict({k: v for k, v in state.items() if not k.startswith("head.")})
    torch.testing.assert_close(first.encoder(images), resized(normed).detach(), atol=1e-4, rtol=1e-4)
    assert random.name == "random" and not random.encoder(images).allclose(first.encoder(images), atol=0.1)


@pytest.mark.parametrize(
    ("names", "error", "message"),
    [
        (["timm:resnet81"], ValueError, "timm .* has no model 'resnet81'; it has resnet18, "),
        (["timm:resnet18.foo"], ValueError, r"has no weights 'resnet18.foo'; it has resnet18\."),
        (["timm:resnet18="], ValueError, "names no file: give timm:resnet18=FILE"),
        (["timm:resnet18=nowhere.pth"], FileNotFoundError, "nowhere.pth"),
        (["timm:resnet50={resnet}"], ValueError, "mine.pth does not fit timm's resnet50"),
        (["{resnet}", "{resnet}"], ValueError, "mine.pth is given twice"),
        (["{resnet}", "timm:resnet18={resnet}", "timm:resnet18=./{resnet}"], ValueError, "have the name"),
    ],
)
def test_wrong_networks_are_reported(names, error, message, resnet):
    with pytest.raises(error, match=message):
        read_candidates([name.format(resnet=resnet).replace("=.//", "=/./") for name in names], size=32)


def test_failed_download_names_the_remedy(monkeypatch):
    def create_model(name, **_):
        raise OSError("no route to host")

    monkeypatch.setattr(timm, "create_model", create_model)
    with pytest.raises(
        ValueError, match=r"could not download .* resnet18 .*no route.* give a file as timm:resnet18=FILE"
    ):
        read_candidates(["timm:resnet18"], size=32)


def test_missing_timm_names_the_remedy(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "timm", None)
    with pytest.raises(ImportError, match="pip install timm"):
        read_candidates(["timm:resnet18"], size=32)
