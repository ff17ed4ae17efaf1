"""Two ranks that meet different broken images write one list, and stop together."""

import multiprocessing

import pytest
import torch
from encoded_images import encode, smooth_image
from mmengine.model import BaseModel
from mmengine.runner import Runner

from sspyr_mm.datasets.transforms.decoding import UnreadableImageError
from sspyr_mm.engine.hooks import BrokenImagesHook

NUM_IMAGES = 40


class Model(BaseModel):
    """One weight."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(1))

    def forward(self, inputs, mode):
        return {"loss": (self.weight * len(inputs)).sum()}

    def train_step(self, data, optim_wrapper):
        return super().train_step({"inputs": data}, optim_wrapper)


def train(rank, world_size, folder, num_workers, max_share):
    """Returns the iteration and the message at which this rank stopped."""
    multiprocessing.current_process()._config["daemon"] = False  # of these ranks, which must not have children
    runner = Runner(
        Model(),
        f"{folder}/work",
        train_dataloader=dict(
            batch_size=2,
            num_workers=num_workers,
            sampler=dict(type="DefaultSampler", shuffle=True),
            collate_fn=list,
            multiprocessing_context="fork" if num_workers else None,
            dataset=dict(
                type="mmpretrain.UnlabelledImages",
                data_root=f"{folder}/images",
                pipeline=[dict(type="mmpretrain.LoadRGBImage")],
            ),
        ),
        train_cfg=dict(by_epoch=True, max_epochs=3),
        optim_wrapper=dict(optimizer=dict(type="SGD", lr=0.1)),
        default_hooks=dict(logger=dict(type="LoggerHook", interval=3), checkpoint=None),
        experiment_name=f"broken_{num_workers}_{max_share}_{rank}",
        log_level="ERROR",
    )
    runner.register_hook(BrokenImagesHook(max_share))
    try:
        runner.train()
    except UnreadableImageError as error:
        return runner.iter, str(error)
    return runner.iter, None


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "work").mkdir()
    for index in range(NUM_IMAGES):
        data = b"no image" if index % 8 == 5 else encode(smooth_image(seed=index), "PNG")
        (tmp_path / f"images/{index:02}.png").write_bytes(data)
    return tmp_path


@pytest.mark.parametrize("num_workers", [0, 2])
def test_ranks_write_one_list(ranks, folder, num_workers):
    results = ranks.run(2, train, str(folder), num_workers, 0.5)
    assert results == [(3 * 10, None)] * 2
    lines = (folder / "work/broken_images.txt").read_text().splitlines()
    assert sorted(line.partition("\t")[0] for line in lines) == [
        f"{folder}/images/{index:02}.png" for index in range(5, NUM_IMAGES, 8)
    ]


def test_ranks_stop_together(ranks, folder):
    results = ranks.run(2, train, str(folder), 0, 0.05)
    assert results[0] == results[1]
    assert results[0][0] < 10 and "cannot be read; " in results[0][1]
