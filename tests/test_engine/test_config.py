"""--data-root with configs of labelled images, which also have a validation set."""

import pytest
from mmengine.config import Config

from sspyr_mm.engine.config import set_data_root


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
