"""tools/train.py on machines without a GPU: one process, and several processes with gloo."""

import os
import re
import subprocess
import sys

import commands
import mmengine.device.utils
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODEL_WRAPPERS
from PIL import Image
from project import ROOT

from sspyr_mm.engine import cpu

# A supervised run with everything that asks for GPUs: SyncBN on maps and on vectors, float16, nccl.
CONFIG = """
_base_ = ["mmpretrain::_base_/default_runtime.py"]
custom_imports = dict(imports=["sspyr_mm"], allow_failed_imports=False)
model = dict(
    type="ImageClassifier",
    data_preprocessor=dict(mean=[127.0] * 3, std=[60.0] * 3, num_classes=2),
    backbone=dict(
        type="ResNet",
        depth=18,
        stem_channels=8,
        base_channels=8,
        norm_cfg=dict(type="SyncBN", requires_grad=True),
    ),
    neck=[
        dict(type="GlobalAveragePooling"),
        dict(
            type="NonLinearNeck",
            in_channels=64,
            hid_channels=16,
            out_channels=8,
            with_avg_pool=False,
            norm_cfg=dict(type="SyncBN"),
        ),
    ],
    head=dict(type="LinearClsHead", num_classes=2, in_channels=8),
)
train_dataloader = dict(
    batch_size=4,
    num_workers=0,
    sampler=dict(type="DefaultSampler", shuffle=True),
    dataset=dict(
        type="CustomDataset",
        data_root="{data}",
        pipeline=[
            dict(type="LoadImageFromFile"),
            dict(type="Resize", scale=32),
            dict(type="PackInputs"),
        ],
    ),
)
train_cfg = dict(by_epoch=False, max_iters=2)
optim_wrapper = dict(
    type="AmpOptimWrapper",
    dtype="float16",
    loss_scale="dynamic",
    optimizer=dict(type="SGD", lr=0.1),
)
default_hooks = dict(logger=dict(interval=1), checkpoint=dict(by_epoch=False, interval=2))
sync_bn = "torch"
"""


@pytest.fixture
def config(tmp_path):
    generator = np.random.default_rng(0)
    for name in ("a", "b"):
        (tmp_path / "images" / name).mkdir(parents=True)
        for index in range(8):
            pixels = generator.integers(0, 255, (40, 40, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "images" / name / f"{index}.png")
    path = tmp_path / "config.py"
    path.write_text(CONFIG.replace("{data}", str(tmp_path / "images")))
    return path


def without_gpu(**variables):
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "PYTHON": sys.executable, **variables}
    environment.pop("PORT", None)
    return environment


def run(command, **variables):
    result = subprocess.run(
        [str(part) for part in command],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=without_gpu(**variables),
        timeout=400,
    )
    return result.returncode, result.stdout + result.stderr


def test_two_gloo_processes_train_a_config_made_for_gpus(config, tmp_path):
    work = tmp_path / "work"
    code, output = run(["bash", "tools/dist_train.sh", config, 2, "--work-dir", work])
    assert code == 0, output[-4000:]
    losses = [float(loss) for loss in re.findall(r"loss: (\S+)", output)]
    assert len(losses) == 2 and np.isfinite(losses).all()
    assert "bfloat16 instead of float16" in output
    assert output.count("SyncBN layers run as BN") == 1  # by one process, once
    # 16 images, 2 ranks of 4: two iterations are an epoch
    assert re.search(r"Epoch\(train\) +\[1\]\[2/2\]|Iter\(train\) \[2/2\]", output), output[-2000:]
    assert (work / "iter_2.pth").is_file()


@pytest.fixture
def no_gpu(monkeypatch):
    """Hides GPUs from programs that are run in this process."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(mmengine.device.utils, "DEVICE", "cpu")


def test_one_process_trains_and_resumes(config, tmp_path, no_gpu):
    work = tmp_path / "work"
    command = ["tools/train.py", config, "--work-dir", work]
    commands.run(*command)
    options = ["train_cfg.max_iters=3", "train_dataloader.batch_size=2"]
    output = commands.run(*command, "--resume", "--cfg-options", *options).stdout
    assert "resumed epoch" in output and "iter: 2" in output
    assert (work / "last_checkpoint").read_text().endswith("iter_3.pth")


def test_data_root_and_amp_arguments(config, tmp_path, no_gpu):
    elsewhere = tmp_path / "elsewhere"
    (tmp_path / "images").rename(elsewhere)
    text = config.read_text()
    config.write_text(
        text.replace('type="AmpOptimWrapper"', "")
        .replace('loss_scale="dynamic",', "")
        .replace('    ,\n    dtype="float16",', "")
    )
    done = commands.run("tools/train.py", config, "--work-dir", tmp_path / "work", "--amp", "--data-root", elsewhere)
    assert "AmpOptimWrapper runs as AutocastOptimWrapper" in done.stdout + done.stderr
    rejected = commands.run("tools/train.py", config, "--auto-scale-lr", "--data-root", elsewhere, check=False)
    assert rejected.returncode == 1 and "lacks auto_scale_lr=dict(base_batch_size" in rejected.stderr


@pytest.fixture
def on_cpu(monkeypatch):
    monkeypatch.setattr(cpu, "_has_accelerator", lambda: False)


@pytest.fixture
def gloo(on_cpu, monkeypatch, tmp_path):
    """Process group with one process."""
    monkeypatch.setattr(cpu, "init_gloo", lambda *args, **kwargs: None)
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    monkeypatch.setenv("LOCAL_RANK", "0")
    yield
    torch.distributed.destroy_process_group()


def test_config_is_unchanged_on_a_gpu(monkeypatch):
    monkeypatch.setattr(cpu, "_has_accelerator", lambda: True)
    cfg = Config(
        dict(
            model=dict(norm_cfg=dict(type="SyncBN")),
            sync_bn="torch",
            optim_wrapper=dict(type="AmpOptimWrapper", dtype="float16"),
        )
    )
    before = cfg.to_dict()
    assert cpu.prepare_config(cfg, "pytorch").to_dict() == before


def test_scope_is_removed_from_the_collate_function(on_cpu):
    cfg = Config(
        dict(
            train_dataloader=dict(collate_fn=dict(type="default_collate", _scope_="mmpretrain")),
            val_dataloader=[dict(collate_fn=dict(type="x", _scope_="mmdet", pad=1))],
        )
    )
    cpu.prepare_config(cfg)
    assert cfg.train_dataloader.collate_fn == dict(type="default_collate")
    assert cfg.val_dataloader[0].collate_fn == dict(type="x", pad=1)


def test_config_of_a_distributed_run_on_the_cpu(gloo):
    cfg = Config(
        dict(
            model=dict(
                backbone=dict(norm_cfg=dict(type="mmcv.MMSyncBN", eps=1e-3)), neck=[dict(norm_cfg=dict(type="BN"))]
            ),
            sync_bn="mmcv",
            find_unused_parameters=True,
            optim_wrapper=dict(
                constructor="MultiOptimWrapperConstructor",
                a=dict(type="mmengine.AmpOptimWrapper", loss_scale=512.0, optimizer=dict(type="SGD")),
                b=dict(type="OptimWrapper"),
            ),
        )
    )
    cpu.prepare_config(cfg, "pytorch")
    assert cfg.model.backbone.norm_cfg == dict(type="SyncBN", eps=1e-3)
    assert cfg.model.neck[0].norm_cfg == dict(type="BN")
    assert "sync_bn" not in cfg
    assert cfg.env_cfg.dist_cfg.backend == "gloo"
    assert cfg.model_wrapper_cfg.type == "mmengine.CPUDistributedDataParallel"
    assert cfg.model_wrapper_cfg.find_unused_parameters is True
    assert cfg.optim_wrapper.a == dict(
        type="mmpretrain.AutocastOptimWrapper", dtype="bfloat16", optimizer=dict(type="SGD")
    )
    assert cfg.optim_wrapper.b.type == "OptimWrapper"


def test_custom_model_wrapper_is_kept(gloo):
    cfg = Config(dict(model=dict(), model_wrapper_cfg=dict(type="MMSeparateDistributedDataParallel")))
    cpu.prepare_config(cfg, "pytorch")
    expected = dict(type="MMSeparateDistributedDataParallel", device_ids=None)
    assert cfg.model_wrapper_cfg == expected


def test_cpu_wrapper_reverts_sync_bn_and_keeps_its_state(gloo):
    inner = torch.nn.Sequential(
        torch.nn.Conv2d(3, 4, 1), torch.nn.SyncBatchNorm(4), torch.nn.Flatten(), torch.nn.LazyLinear(2)
    )
    inner[3].initialize_parameters(torch.empty(1, 4 * 36))
    torch.nn.init.uniform_(inner[1].weight)
    inner[1].running_mean += 2
    weight, running = inner[1].weight, inner[1].running_mean.clone()
    wrapper = MODEL_WRAPPERS.get("mmengine.CPUDistributedDataParallel")
    model = wrapper(inner, device_ids=[0])
    assert not isinstance(model.module[1], torch.nn.SyncBatchNorm)
    assert model.module[1].weight is weight
    torch.testing.assert_close(model.module[1].running_mean, running)
    images = torch.randn(5, 3, 6, 6)
    expected = torch.nn.functional.batch_norm(inner[0](images), None, None, weight, inner[1].bias, True)
    torch.testing.assert_close(model.module[1](inner[0](images)), expected)


def test_unknown_launcher_and_missing_variables(on_cpu, monkeypatch):
    with pytest.raises(ValueError, match="launcher must be one of none, mpi, pytorch, slurm; got 'k8s'"):
        cpu.prepare_config(Config(dict()), "k8s")
    monkeypatch.delenv("RANK", raising=False)
    with pytest.raises(RuntimeError, match="RANK is not set; start the processes with tools/dist_train"):
        cpu.prepare_config(Config(dict()), "pytorch")


@pytest.mark.parametrize("arguments", [[], ["config.py"], ["config.py", "zero"], ["config.py", "0"]])
def test_dist_train_usage(arguments):
    code, output = run(["bash", "tools/dist_train.sh", *arguments])
    assert code == 2 and "usage: bash tools/dist_train.sh CONFIG GPUS" in output


def test_dist_train_requires_an_address(config):
    code, output = run(["bash", "tools/dist_train.sh", config, 2], NNODES="2", MASTER_ADDR="")
    assert code == 2 and "needs MASTER_ADDR" in output


def test_slurm_train_passes_all_arguments_to_srun(tmp_path):
    fake = tmp_path / "srun"
    fake.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    fake.chmod(0o755)
    code, output = run(
        ["bash", "tools/slurm_train.sh", "part", "a job", "config.py", "work", "--cfg-options", "a=b c"],
        PATH=f"{tmp_path}:{os.environ['PATH']}",
        GPUS="4",
        SRUN_ARGS="--time 1:00 --exclusive",
    )
    assert code == 0, output
    lines = output.splitlines()
    assert "--job-name=a job" in lines and "--ntasks=4" in lines
    assert "--ntasks-per-node=4" in lines and "--gres=gpu:4" in lines
    assert lines[lines.index("--time") :][:3] == ["--time", "1:00", "--exclusive"]
    assert lines[-2:] == ["--cfg-options", "a=b c"]
    assert lines[lines.index("--launcher") + 1] == "slurm"
    # In time to save a checkpoint; the user's options come later and take precedence.
    assert lines.index("--signal=TERM@120") < lines.index("--time")
