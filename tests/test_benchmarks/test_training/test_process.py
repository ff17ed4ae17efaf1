"""Training in worker processes: locks, damaged metrics, interrupts, divergence."""

import fcntl
import functools
import json
import math
import os
import signal
import subprocess
import sys
import time

import pytest
import torch
from mmengine.config import Config
from quick_evaluate import evaluate_command, quick_evaluate

from sspyr_mm.benchmarks.base_protocol import Job, Settings
from sspyr_mm.benchmarks.classification import finetune
from sspyr_mm.benchmarks.protocols import find_protocol
from sspyr_mm.benchmarks.training import process as training
from sspyr_mm.files import folder_lock


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"multi-label/mAP": null}'])
def test_damaged_metrics_are_measured_again(content, tmp_path, monkeypatch, capsys):
    metrics = tmp_path / "metrics.json"
    metrics.write_text(content)
    written = '{"multi-label/mAP": 5.0}'
    monkeypatch.setattr(training, "_train", lambda *_: metrics.write_text(written))
    cfg = Config(dict(work_dir=str(tmp_path)))
    assert training.run_config(cfg, 1, "run") == {"multi-label/mAP": 5.0}
    assert f"{metrics} is damaged" in capsys.readouterr().err


def test_terminated_worker_is_an_interrupt(tmp_path):
    ended = [sys.executable, "-c", "import os, signal; os.kill(os.getpid(), signal.SIGTERM)"]
    with open(tmp_path / "lock", "w") as lock, pytest.raises(KeyboardInterrupt):
        training._train(tmp_path, ended, lock.fileno())


def test_second_run_in_one_folder_is_refused(networks, data, tmp_path, monkeypatch):
    monkeypatch.setattr(training, "folder_lock", functools.partial(folder_lock, patience=0.3))

    def meanwhile(folder, command, lock):
        message = rf"Another run \(process {os.getpid()} on .*, for 0 min\) is training in .*final"
        with pytest.raises(ValueError, match=message):
            training.run_config(Config(dict(work_dir=str(folder))), 1, "second run")
        (folder / "metrics.json").write_text('{"multi-label/mAP": NaN}')

    monkeypatch.setattr(training, "_train", meanwhile)
    with pytest.raises(ValueError, match="Training diverged on all of the images"):
        quick_evaluate(networks[0], "asl", data, tmp_path)


def test_diverged_worker_reports_nan_and_leaves_no_checkpoint(networks, data, tmp_path, worker_in_process):
    (tmp_path / "x").mkdir()
    ids = tmp_path / "x" / "ids.txt"
    ids.write_text("\n".join(data.train.image_ids[:8]))
    folder = str(tmp_path / "x")
    job = Job(networks[0], data, 0, str(tmp_path), folder, Settings(32, 2))
    torch.save(networks[0].checkpoint.state_dict, finetune._weights(job))
    cfg = finetune.make_config(find_protocol("semi100"), job, folder, str(ids), (data.test_source, None), (1e9, 1e9))
    figures = training.run_config(cfg, 1, "run")
    assert list(figures) == ["multi-label/mAP"] and math.isnan(figures["multi-label/mAP"])
    assert not list((tmp_path / "x").glob("*.pth"))


def wait_for(folder, pattern, process):
    deadline = time.monotonic() + 300
    while not list(folder.glob(pattern)):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)


def figure(work_dir):
    (file,) = work_dir.glob("result-*.json")
    return json.loads(file.read_text())["value"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "sign", "whole_group"),
    [
        (["--protocol", "linear", "--epochs", "2000"], "features/*/000000_*.npy", True),
        (["--protocol", "asl", "--epochs", "6"], "asl-*/final/epoch_2.pth", True),
        (["--protocol", "asl", "--epochs", "40"], "asl-*/final/epoch_2.pth", False),
    ],
    ids=["linear", "asl", "asl, the command alone"],
)
def test_killed_and_resumed_run_has_the_same_figure(checkpoint, scenes, tmp_path, options, sign, whole_group):
    whole = evaluate_command(checkpoint, scenes, tmp_path / "whole", *options)
    subprocess.run(whole, check=True, capture_output=True)
    broken = evaluate_command(checkpoint, scenes, tmp_path / "broken", *options)
    process = subprocess.Popen(broken, start_new_session=True)
    wait_for(tmp_path / "broken", sign, process)
    if whole_group:
        os.killpg(process.pid, signal.SIGKILL)
    else:
        process.kill()
        (lock,) = (tmp_path / "broken").glob("asl-*/final/lock")
        with lock.open() as file:  # released when the worker exits
            fcntl.flock(file, fcntl.LOCK_EX)
        assert not lock.with_name("metrics.json").exists()
    process.wait()
    assert not list((tmp_path / "broken").glob("result-*.json"))
    subprocess.run(broken, check=True, capture_output=True)
    assert figure(tmp_path / "broken") == figure(tmp_path / "whole")


@pytest.mark.slow
def test_ctrl_c_lets_the_worker_save(checkpoint, scenes, tmp_path):
    arguments = evaluate_command(checkpoint, scenes, tmp_path, "--protocol", "asl", "--epochs", "400")
    process = subprocess.Popen(
        arguments,
        start_new_session=True,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    wait_for(tmp_path, "asl-*/final/epoch_2.pth", process)
    os.killpg(process.pid, signal.SIGINT)
    assert "run the same command again" in process.communicate(timeout=120)[1]
    assert process.returncode == 130
    assert list(tmp_path.glob("asl-*/final/interrupted.pth"))
