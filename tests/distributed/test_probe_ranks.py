"""Probes on several ranks, whose shares of the images differ, equal those of one process."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmpretrain.registry import MODELS
from PIL import Image
from project import ROOT

from sspyr_mm.probes import ProbeHook


def measure(rank, world_size, folder):
    """Probes of random weights."""
    init_default_scope("mmpretrain")
    cfg = Config.fromfile(ROOT / "configs/mocov2/r18_small.py")
    cfg.merge_from_dict(
        {"model.backbone.base_channels": 8, "model.backbone.stem_channels": 8, "model.neck.in_channels": 64}
    )
    torch.manual_seed(0)
    found = []
    runner = SimpleNamespace(
        model=MODELS.build(cfg.model),
        train_dataloader=SimpleNamespace(dataset=None, num_workers=0),
        visualizer=SimpleNamespace(add_scalars=lambda values, step: found.append(values)),
        logger=SimpleNamespace(info=lambda text: None),
        epoch=0,
        iter=0,
    )
    ProbeHook(f"{folder}/train", f"{folder}/test", size=64).before_train(runner)
    return found


@pytest.mark.parametrize(("num_test", "num_ranks"), [(5, 2), (2, 3)])  # the third rank has no test image
def test_ranks_share_the_images(num_test, num_ranks, ranks, tmp_path):
    rng = np.random.default_rng(0)
    for part, count in (("train", 9), ("test", num_test)):
        for number in range(2 * count if part == "train" else count):
            folder = tmp_path / part / "ab"[number % 2]
            folder.mkdir(parents=True, exist_ok=True)
            pixels = rng.integers(0, 120, (40, 40, 3)).astype(np.uint8)
            pixels[..., number % 2] += 60
            Image.fromarray(pixels).save(folder / f"{number}.png")
    (alone,), ((first,), *others) = measure(0, 1, tmp_path), ranks.run(num_ranks, measure, tmp_path)
    assert not any(others) and first.keys() == {
        f"probe/{name}" for name in ("knn", "linear", "knn_cells", "linear_cells")
    }
    assert first == pytest.approx(alone, abs=1e-3)
