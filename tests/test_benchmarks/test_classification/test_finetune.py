"""Fine-tuning: which images choose the learning rates, and runs that diverge."""

import math
from dataclasses import replace
from pathlib import Path

import pytest
from quick_evaluate import quick_evaluate

from sspyr_mm.benchmarks.classification import finetune
from sspyr_mm.benchmarks.protocols import find_protocol
from sspyr_mm.datasets.splits import read_split


def test_held_out_images_must_show_a_class(data):
    empty = replace(data.train, targets=0 * data.train.targets)
    nothing = replace(data, train=empty)
    with pytest.raises(ValueError, match=r"The 8 of 40 training images that choose .* no class"):
        find_protocol("semi100").check_data(nothing, 0)


def test_diverged_pairs_of_rates_are_not_chosen(networks, data, tmp_path, monkeypatch):
    asked = []

    def pretend(cfg, num_processes, title):
        asked.append((cfg.optim_wrapper.optimizer.lr, Path(cfg.work_dir).name))
        if cfg.optim_wrapper.optimizer.lr == 0.1:
            return {"multi-label/mAP": math.nan}
        figures = {f"multi-label/AP_{name}": 50.0 for name in data.test.classes}
        return {"multi-label/mAP": 10.0 + cfg.optim_wrapper.optimizer.lr, **figures}

    monkeypatch.setattr(finetune, "run_config", pretend)
    result = quick_evaluate(networks[0], "semi100", data, tmp_path)
    assert len(asked) == 10 and asked[-1] == (0.01, "final")
    assert result.further["head_rate"] == 0.01
    assert result.settings["optimizer"] == {"type": "SGD", "momentum": 0.9, "weight_decay": 1e-4}
    assert list(result.further["held_out_mAP"].values()).count(None) == 3
    held, kept = (set(read_split(next(tmp_path.glob("semi100-*")) / f"{name}.txt")) for name in ("held_out", "kept"))
    assert len(held) == 8 and len(kept) == 32 and not held & kept
    monkeypatch.setattr(finetune, "run_config", lambda *_: {"multi-label/mAP": math.nan})
    with pytest.raises(ValueError, match="diverged with every pair"):
        quick_evaluate(networks[1], "semi100", data, tmp_path)
