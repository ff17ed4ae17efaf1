"""A checkpoint that the program itself has trained, on scenes it has drawn."""

import pytest
from commands import run


@pytest.fixture(scope="session")
def scenes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cli") / "scenes"
    run("-m", "sspyr_mm", "toy-scenes", folder, "--num-train", 48, "--num-val", 24, "--size", 64)
    return folder


@pytest.fixture(scope="session")
def checkpoint(scenes, tmp_path_factory):
    work_dir = tmp_path_factory.mktemp("work")
    run(
        *("tools/train.py", "configs/ssprl/r18_quickstart.py", "--data-root", scenes / "train2017"),
        *("--work-dir", work_dir, "--cfg-options", "train_cfg.max_epochs=2"),
        *("train_dataloader.batch_size=16", "train_dataloader.num_workers=0"),
        *("train_dataloader.persistent_workers=False", "model.pyramid.s0.num_prototypes=12"),
    )
    return work_dir / "epoch_2.pth"
