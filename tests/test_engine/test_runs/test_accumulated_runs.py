"""A checkpoint between the iterations of an optimizer step: a killed and resumed run equals an uninterrupted one."""

import os
import signal
import subprocess
import sys

import pytest
import scaled_wrapper  # noqa: F401
import torch
from project import ROOT
from small_runs import ITERS, train
from torch.utils._pytree import tree_flatten_with_path

OPTIONS = {
    "optim_wrapper.accumulative_counts": 4,
    "train_cfg.max_epochs": 2,
    "custom_hooks": [dict(type="EMAHook")],
}
SCALED = {"optim_wrapper.type": "ScaledWrapper"}
OF_THE_CLOCK = (
    "'train/time'",
    "data_time",
    "images_per_s",
    "data_wait",
    "last_ckpt",
    "'meta'",
    "cfg",
    "experiment_name",
)

KILLED = f"""
import os, signal, sys
sys.path[:0] = {[str(ROOT / "tests/helpers")]}
import scaled_wrapper
from small_runs import train

def kill(runner):
    if runner.iter == {ITERS + 2}:
        os.kill(os.getpid(), signal.SIGKILL)

train(sys.argv[1], sys.argv[2], eval(sys.argv[3]), before_train_iter=kill)
"""


@pytest.fixture(scope="module")
def config(config_of_a_method):
    return config_of_a_method


def everything(path):
    """All values of a checkpoint by their place, but those of the clock and of paths."""
    saved = torch.load(path, weights_only=False)
    hub = saved["message_hub"]
    saved["message_hub"] = {
        "info": hub["runtime_info"],
        "scalars": {name: [*map(torch.as_tensor, buffer.data)] for name, buffer in hub["log_scalars"].items()},
    }
    leaves = tree_flatten_with_path(saved)[0]
    return {str(p): v for p, v in leaves if not any(word in str(p) for word in OF_THE_CLOCK)}


@pytest.mark.parametrize("options", [pytest.param({}, marks=pytest.mark.slow), SCALED], ids=["float32", "scaled"])
def test_killed_run_resumes_to_the_same_state(config, tmp_path, options):
    """An epoch has 5 iterations and a step 4: the checkpoint of the first epoch is within the second step."""
    options, seeds = {**OPTIONS, **options}, []

    def look(runner):
        seeds.append(torch.get_rng_state())

    train(config, tmp_path / "whole", options, before_train_iter=look)
    done = subprocess.run([sys.executable, "-c", KILLED, config, tmp_path / "killed", repr(options)], cwd=ROOT)
    assert done.returncode == -signal.SIGKILL and os.listdir(tmp_path / "killed").count("epoch_2.pth") == 0
    saved = torch.load(tmp_path / "killed/epoch_1.pth", weights_only=False)
    assert sum(g.abs().sum() > 0 for g in saved["accumulated_gradients"].values()) > 30
    resumed_seeds, seeds[:] = seeds[ITERS:], []
    train(config, tmp_path / "killed", {**options, "resume": True}, before_train_iter=look)
    assert len(seeds) == ITERS and all(map(torch.equal, seeds, resumed_seeds))
    found, wanted = (everything(tmp_path / name / "epoch_2.pth") for name in ("killed", "whole"))
    assert list(found) == list(wanted)
    for part in ("'state_dict'", "ema_state_dict", "optimizer", "param_schedulers", "scalars", "_extra_state"):
        assert any(part in place for place in wanted), part
    assert ("loss_scaler" in str(list(wanted))) == ("optim_wrapper.type" in options)
    same = [torch.equal(v, found[p]) if torch.is_tensor(v) else v == found[p] for p, v in wanted.items()]
    assert not [place for place, equal in zip(wanted, same, strict=True) if not equal]
    complete = torch.load(tmp_path / "whole/epoch_2.pth", weights_only=False)
    assert "accumulated_gradients" not in complete  # the last step ends with the run
