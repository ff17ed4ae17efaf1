"""The path of the training data, and the defaults of data loaders."""

import pytest
import torch
from mmengine.config import Config

from sspyr_mm.engine.config import fill_dataloaders, set_data_root


@pytest.mark.parametrize("kind", ["MultiLabelImages", "mmpretrain.MultiLabelImages"])
@pytest.mark.parametrize("wrapped", [False, True])
def test_data_root_of_labelled_images_is_rejected(tmp_path, kind, wrapped):
    dataset = dict(type=kind, data_root="old")
    if wrapped:
        dataset = dict(type="ConcatDataset", datasets=[dataset])
    cfg = Config(dict(train_dataloader=dict(dataset=dataset)))
    with pytest.raises(
        ValueError,
        match=r"--data-root: .* only the training images.* train_dataloader\.dataset\.data_root=TRAIN "
        r"val_dataloader\.dataset\.data_root=VAL",
    ):
        set_data_root(cfg, str(tmp_path))
    assert cfg.train_dataloader.dataset == dataset


@pytest.mark.parametrize("wrapped", [False, True])
def test_data_root_reaches_the_innermost_dataset(tmp_path, wrapped):
    dataset = dict(type="UnlabelledImages", data_root="old")
    if wrapped:
        dataset = dict(type="RepeatDataset", times=2, dataset=dataset)
    cfg = Config(dict(train_dataloader=dict(dataset=dataset)))
    set_data_root(cfg, str(tmp_path))
    inner = cfg.train_dataloader.dataset
    assert (inner.dataset if wrapped else inner).data_root == str(tmp_path)
    assert ("data_root" in inner) != wrapped
    with pytest.raises(FileNotFoundError, match="'/no/such/place' does not exist"):
        set_data_root(cfg, "/no/such/place")
    with pytest.raises(ValueError, match=r"no train_dataloader\.dataset"):
        set_data_root(Config(dict(train_dataloader=None)), str(tmp_path))


def test_dataloader_defaults_keep_given_values(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    cfg = Config(
        dict(
            train_dataloader=dict(num_workers=2),
            val_dataloader=dict(num_workers=0, persistent_workers=True, collate_fn=dict(type="mine")),
            test_dataloader=None,
        )
    )
    fill_dataloaders(cfg)
    assert cfg.train_dataloader == dict(
        num_workers=2, collate_fn=dict(type="default_collate"), pin_memory=False, persistent_workers=True
    )
    assert cfg.val_dataloader.collate_fn == dict(type="mine")
    assert cfg.val_dataloader.persistent_workers is False
    assert cfg.test_dataloader is None
    pinned = Config(dict(train_dataloader=dict(pin_memory=True)))
    fill_dataloaders(pinned)
    assert pinned.train_dataloader.pin_memory is False  # torch would warn in every epoch


def test_worker_settings_are_dropped_without_workers():
    workers = dict(num_workers=0, prefetch_factor=4, persistent_workers=True)
    cfg = Config(dict(default_scope="mmpretrain", train_dataloader=dict(**workers)))
    fill_dataloaders(cfg)
    cfg.train_dataloader.pop("collate_fn")
    assert len(torch.utils.data.DataLoader(range(3), **cfg.train_dataloader)) == 3
    cfg.train_dataloader = dict(num_workers=1, prefetch_factor=4)
    fill_dataloaders(cfg)
    assert cfg.train_dataloader.prefetch_factor == 4
