"""Training reads checkpoints without executing anything in them, and continues exactly as before."""

import os

import pytest
import torch
from layouts import Call
from mmengine.runner.checkpoint import _load_checkpoint
from small_runs import assert_equal, state, train

from sspyr_mm.tensor_files import read_checkpoint, safe_loading


def test_log_is_read_like_torch_reads_it(uninterrupted):
    path = uninterrupted.work_dir / "epoch_2.pth"
    found, whole = read_checkpoint(path, keep_log=True), torch.load(path, weights_only=False)
    assert found.keys() == whole.keys() and found["meta"] == whole["meta"]
    assert_same(found["optimizer"], whole["optimizer"])
    assert found["param_schedulers"] == whole["param_schedulers"]
    for part in ("runtime_info", "resumed_keys"):
        assert found["message_hub"][part] == whole["message_hub"][part]
    for name, history in whole["message_hub"]["log_scalars"].items():
        ours = found["message_hub"]["log_scalars"][name]
        assert ours.max_length == history.max_length
        for one, other in zip(ours.data, history.data, strict=True):
            assert one.dtype == other.dtype and (one == other).all()
    assert "message_hub" not in read_checkpoint(path)


def assert_same(one, other):
    assert type(one) is type(other)
    if isinstance(one, dict):
        assert list(one) == list(other)
        one, other = list(one.values()), list(other.values())
    if isinstance(one, (list, tuple)):
        for a, b in zip(one, other, strict=True):
            assert_same(a, b)
    elif isinstance(one, torch.Tensor):
        assert torch.equal(one, other)
    else:
        assert one == other


@pytest.mark.parametrize("part", ["extra", "message_hub", "meta"])
def test_code_in_a_checkpoint_is_refused_when_training_starts(part, config, tmp_path, uninterrupted):
    content = torch.load(uninterrupted.work_dir / "epoch_1.pth", weights_only=False)
    content.setdefault(part, {})["payload"] = Call(os.mkdir, str(tmp_path / "ran"))
    path = tmp_path / "x.pth"
    torch.save(content, path)
    for options in ({"resume": True, "load_from": str(path)}, {"load_from": str(path)}):
        with pytest.raises(ValueError, match=r"x\.pth needs arbitrary pickle \(posix\.mkdir\)"):
            train(config, tmp_path, options)
    init = {"type": "Pretrained", "checkpoint": str(path)}
    with pytest.raises(ValueError, match=r"x\.pth needs arbitrary pickle"):
        train(config, tmp_path, {"model.backbone.init_cfg": init})
    assert not (tmp_path / "ran").exists()
    with safe_loading(allow_pickle=True):
        _load_checkpoint(str(path))
    assert (tmp_path / "ran").exists()


def test_former_config_text_is_not_executed(config, tmp_path, uninterrupted):
    content = torch.load(uninterrupted.work_dir / "epoch_2.pth", weights_only=False)
    content["meta"]["config"] = f"import os\nos.mkdir({str(tmp_path / 'ran')!r})\n"
    torch.save(content, tmp_path / "x.pth")
    with safe_loading():
        train(config, tmp_path, {"resume": True, "load_from": str(tmp_path / "x.pth")})
    assert not (tmp_path / "ran").exists()


SCHEDULERS = {
    "OneCycleLR": dict(eta_max=0.01, total_steps=15),
    "CosineRestartLR": dict(periods=[4, 11], restart_weights=[1, 0.5], eta_min=1e-4),
    "PolyLR": dict(power=0.9),
    "ReduceOnPlateauLR": dict(monitor="loss", patience=1, by_epoch=True),
}


@pytest.mark.parametrize("kind", SCHEDULERS)
def test_run_with_a_scheduler_of_mmengine_is_resumed(kind, config, tmp_path):
    """The state of OneCycleLR holds a function, which is not saved."""
    options = {"param_scheduler": [{"type": kind, "by_epoch": False, **SCHEDULERS[kind]}]}
    whole = train(config, tmp_path / "whole", options)
    path = str(tmp_path / "whole/epoch_1.pth")
    assert read_checkpoint(path)["param_schedulers"]
    resumed = train(config, tmp_path / "resumed", {**options, "resume": True, "load_from": path})
    assert_equal(state(whole), state(resumed))
    rates = [run.optim_wrapper.get_lr()["lr"] for run in (whole, resumed)]
    assert rates[0] == rates[1]
