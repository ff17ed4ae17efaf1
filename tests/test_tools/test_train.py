"""tools/train.py: wrong settings end with a message, later errors with a traceback."""

import os
import runpy
import shutil
import signal
import subprocess
import sys
import time
import warnings

import pytest
from commands import run
from project import ROOT

from sspyr_mm.datasets.toy_scenes import generate

CONFIG = ROOT / "configs/benchmarks/classification/linear_coco14_50e.py"
NETWORK = [f"model.backbone.{name}" for name in ("depth=18", "base_channels=8", "stem_channels=8")]
HEAD = ["model.head.in_channels=64", "model.head.num_classes=12"]
LOADERS = [f"{part}_dataloader.num_workers=0" for part in ("train", "val")]
SMALL = [*NETWORK, *HEAD, *LOADERS, "train_dataloader.batch_size=2", "train_cfg.max_epochs=1"]
EXPORT = "Write it with `python -m sspyr_mm export CKPT backbone.pth`"


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp("scenes")
    generate(str(root), num_train=4, num_val=2, size=64)
    return [
        f"{part}_dataloader.dataset.data_root={root}/annotations/instances_{part}2017.json" for part in ("train", "val")
    ]


def train(work_dir, *options, config=CONFIG):
    return run("tools/train.py", config, "--work-dir", work_dir, *options, check=False)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("train_cfg.val_interval=1", f"missing.pth can not be found. {EXPORT}"),
        ("train_dataloader.dataset.crops=3", "(MultiLabelImages) has no setting `crops`"),
        (
            "train_dataloader.dataset.image_ids=ids.txt",
            "ids.txt: 1 of 2 listed images are missing from the annotations: 999; the list was made for another "
            "split or data set: make one with tools/dataset_converters/make_coco_splits.py JSON --any-images "
            "--name NAME --out DIR and set train_dataloader.dataset.image_ids",
        ),
    ],
    ids=["FileNotFoundError", "unread_setting", "ValueError"],
)
def test_error_before_training_ends_with_a_message(tmp_path, data, option, message):
    weights = "model.backbone.init_cfg.checkpoint=missing.pth"
    (tmp_path / "ids.txt").write_text("1\n999\n")
    option = option.replace("ids.txt", str(tmp_path / "ids.txt"))
    result = train(tmp_path, "--cfg-options", *SMALL, *data, weights, option)
    last = result.stderr.strip().splitlines()[-1]
    assert result.returncode == 2 and last.startswith("train: ") and message in last
    assert "Traceback" not in result.stderr


def test_folder_without_permissions_is_reported_in_one_line(tmp_path, monkeypatch):
    """root can read every folder, so the system call is patched."""
    (tmp_path / "closed").mkdir()
    scan = os.scandir

    def scandir(path="."):
        if str(path) == str(tmp_path / "closed"):
            raise PermissionError(13, "Permission denied", path)
        return scan(path)

    monkeypatch.setattr(os, "scandir", scandir)
    config = ROOT / "configs/ssprl/r18_small_50e.py"
    result = train(tmp_path / "work", "--data-root", tmp_path / "closed", config=config)
    message = f"Cannot read {tmp_path}/closed: grant this user read access (chmod u+rx)"
    last = result.stderr.strip().splitlines()[-1]
    assert result.returncode == 2 and last.startswith("train: ") and message in last
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize("workers", [0, 1])
def test_broken_labelled_image_is_reported_in_one_line(tmp_path, workers):
    generate(str(tmp_path / "data"), num_train=4, num_val=2, size=64)
    broken = next((tmp_path / "data/train2017").iterdir())
    broken.write_bytes(b"")
    annotations = tmp_path / "data/annotations"
    sources = [
        f"{part}_dataloader.dataset.data_root={annotations}/instances_{part}2017.json" for part in ("train", "val")
    ]
    options = [*SMALL, *sources, "model.backbone.init_cfg=None"]
    options.append(f"train_dataloader.num_workers={workers}")
    result = train(tmp_path, "--cfg-options", *options)
    assert result.returncode == 2 and "Traceback" not in result.stderr
    last = result.stderr.strip().splitlines()[-1]
    assert last.startswith(f"train: {broken}: an empty file. It cannot be skipped here")


def test_runs_in_one_second_write_to_their_own_folders(tmp_path, monkeypatch):
    """In one process, the second run once wrote to the folder of the first, which was deleted."""
    monkeypatch.setattr(time, "strftime", lambda *_: "20261231_235959")
    for name in ("first", "second"):
        result = train(tmp_path / name, "--cfg-options", *SMALL)
        assert "train: No labelled set at data/coco" in result.stderr
        shutil.rmtree(tmp_path / name)


def test_only_unreadable_images_are_reported_in_one_line(tmp_path):
    (tmp_path / "images").mkdir()
    for i in range(8):
        (tmp_path / f"images/{i}.jpg").write_bytes(b"text")
    options = ["train_dataloader.batch_size=4", "train_dataloader.num_workers=1"]
    config = ROOT / "configs/ssprl/r18_quickstart.py"
    arguments = ("--data-root", str(tmp_path / "images"), "--cfg-options", *options)
    result = train(tmp_path, *arguments, config=config)
    assert result.returncode == 2 and "Traceback" not in result.stderr
    last = result.stderr.strip().splitlines()[-1]
    assert last.startswith("train: Image ") and "replacements cannot be read" in last


def test_data_root_of_labelled_images(tmp_path):
    result = train(tmp_path, "--data-root", str(tmp_path))
    assert result.returncode == 2 and "Traceback" not in result.stderr
    assert "train_dataloader.dataset.data_root=TRAIN" in result.stderr.splitlines()[-1]


def test_a_former_config_name_is_reported(tmp_path):
    with warnings.catch_warnings(record=True) as shown:
        warnings.simplefilter("ignore")  # as Python does with this one, but for the filter of tools/train.py
        done = train(tmp_path, "--data-root", "missing", config="configs/ssprl/r50_coco_200e_release.py")
    assert done.returncode == 2
    assert any("Please use r50_coco_200e_official.py instead" in str(one.message) for one in shown)
    assert "Traceback" not in done.stderr and "'missing' does not exist" in done.stderr.splitlines()[-1]


def test_a_missing_config_is_reported(tmp_path):
    result = train(tmp_path, config="none.py")
    assert result.returncode == 2 and "Traceback" not in result.stderr
    assert "none.py" in result.stderr.splitlines()[-1]


@pytest.mark.parametrize(
    ("config", "tool"),
    [
        ("mmsegmentation/fcn_r50-d8_20k_voc12aug-512x512.py", "prepare_voc12.py data"),
        pytest.param("mmdetection/mask-rcnn_r50_fpn_15k_coco14.py", "prepare_coco.py data/coco", marks=pytest.mark.ops),
    ],
)
def test_missing_data_names_the_preparation_tool(tmp_path, config, tool):
    small = [*NETWORK, "model.backbone.init_cfg=None"]
    config = ROOT / "configs/benchmarks" / config
    result = train(tmp_path, "--cfg-options", *small, config=config)
    assert result.returncode == 2 and "Traceback" not in result.stderr
    assert f"`python tools/dataset_converters/{tool}`" in result.stderr.splitlines()[-1]


def test_errors_during_training_keep_their_traceback(tmp_path, data):
    options = [*SMALL, *data, "model.backbone.init_cfg=None", "model.head.in_channels=2048"]
    result = train(tmp_path, "--cfg-options", *options)
    assert result.returncode == 1 and "Traceback" in result.stderr
    assert "set model.head.in_channels=64" in result.stderr


def test_diverged_run_reports_the_reason(tmp_path, data):
    options = ["model.backbone.init_cfg=None", "optim_wrapper.optimizer.lr=1e30"]
    options += ["default_hooks.logger.interval=1", "default_hooks.checkpoint.interval=1"]
    result = train(tmp_path, "--cfg-options", *SMALL, *data, *options)
    last = result.stderr.strip().splitlines()[-1]
    assert result.returncode == 1 and "Traceback" not in result.stderr
    assert last.startswith("train: Training has diverged: after iteration 2 head.fc.weight, ")
    assert not list(tmp_path.glob("*.pth"))


@pytest.mark.parametrize(
    ("config", "meant"),
    [
        ("configs/densecl/r18_smal.py", "do you mean configs/densecl/r18_small.py?"),
        ("configs/densl/r18_small.py", "do you mean configs/densecl/r18_small.py?"),
        ("X", "see configs/"),
    ],
)
def test_missing_config_is_reported_with_the_nearest_one(config, meant, tmp_path):
    result = train(tmp_path, config=config)
    assert result.returncode == 2 and result.stderr.endswith(f"there is no config {config}; {meant}\n")
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler  # as before the imports


def test_interrupt_during_the_imports_leaves_no_traceback(tmp_path):
    (tmp_path / "mmengine.py").write_text("import time, pathlib\npathlib.Path('ready').touch()\ntime.sleep(60)\n")
    env = {**os.environ, "PYTHONPATH": str(tmp_path)}
    command = [sys.executable, ROOT / "tools/train.py", CONFIG]
    with subprocess.Popen(command, cwd=tmp_path, env=env, stderr=subprocess.PIPE) as process:
        while not (tmp_path / "ready").exists():
            assert process.poll() is None
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        assert process.communicate(timeout=30)[1] == b""
    assert process.returncode == -signal.SIGINT


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (["{python}", "tools/train.py", CONFIG], "has no mmengine"),
        (["bash", "tools/dist_train.sh", CONFIG, "2"], "has no torch"),
    ],
)
def test_python_outside_of_the_environment_is_reported(command, message, tmp_path):
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nexec {sys.executable} -S "$@"\n')  # without its packages
    python.chmod(0o755)
    line = [str(part).format(python=python) for part in command]
    done = subprocess.run(line, cwd=ROOT, env={**os.environ, "PYTHON": str(python)}, capture_output=True, text=True)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert message in done.stderr and "source .venv/bin/activate" in done.stderr


def test_unread_setting_is_reported(tmp_path):
    result = train(tmp_path, "--cfg-options", "epochs=7", *SMALL)
    last = result.stderr.strip().splitlines()[-1]
    assert result.returncode == 2 and "Traceback" not in result.stderr
    assert last.startswith("train: --cfg-options epochs=7: ") and "train_cfg.max_epochs=7" in last
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("config", "name"),
    [
        ("configs/ssprl/r50_coco_200e.py", "r50_coco_200e"),
        ("configs/byol/r50_coco_200e.py", "byol_r50_coco_200e"),
        ("configs/benchmarks/classification/linear_coco14_50e.py", "linear_coco14_50e"),
        ("/tmp/mocov2/mine.py", "mine"),
    ],
)
def test_methods_with_equal_file_names_have_their_own_work_dirs(config, name):
    default_name = runpy.run_path(str(ROOT / "tools/train.py"))["default_name"]
    assert default_name(ROOT / config) == name
