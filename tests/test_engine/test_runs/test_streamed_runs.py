"""Training from shards with a real Runner: selected by --data-root, interrupted and resumed."""

import signal

import pytest
from mmengine.config import Config
from mmengine.runner import Runner
from small_runs import BATCH, ITERS, assert_equal, state, train

from sspyr_mm.datasets import UnlabelledImages
from sspyr_mm.datasets.streaming.shards import pack
from sspyr_mm.engine.config import set_data_root
from sspyr_mm.engine.hooks.data_check_hook import check_full_batch


@pytest.fixture(scope="module")
def streamed(config, images, tmp_path_factory):
    """The small config, pointed at shards of the same images."""
    folder = tmp_path_factory.mktemp("streamed")
    paths = UnlabelledImages(str(images)).list_images()
    assert not pack(paths, str(folder / "shards"), shard_bytes=8000, num_workers=1)
    assert len(list((folder / "shards").glob("chunk-*.bin"))) > 4
    cfg = Config.fromfile(config)
    set_data_root(cfg, str(folder / "shards"))
    cfg.dump(folder / "config.py")
    return folder / "config.py"


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("iteration", [ITERS + 2, 2 * ITERS - 1])
def test_resuming_within_an_epoch_equals_an_uninterrupted_run(streamed, tmp_path, log, num_workers, iteration):
    """Compared with an uninterrupted run with the same number of workers."""
    options = {"train_dataloader.num_workers": num_workers, "train_dataloader.persistent_workers": num_workers > 0}

    def stop(runner):
        if runner.iter == iteration:
            signal.raise_signal(signal.SIGINT)

    whole = train(streamed, tmp_path / "whole", options)
    with pytest.raises(SystemExit, match=r"^130$"):
        train(streamed, tmp_path / "stopped", options, before_train_iter=stop)
    log.clear()
    resumed = train(streamed, tmp_path / "stopped", {**options, "resume": True})
    done = iteration + 1 - ITERS
    assert any(m.startswith(f"Epoch 2 continues after iteration {done} of {ITERS};") for _, m in log)
    assert resumed.iter == whole.iter == 3 * ITERS
    assert_equal(state(resumed), state(whole))


def test_data_set_smaller_than_a_batch_is_rejected(streamed):
    cfg = Config.fromfile(streamed).train_dataloader
    loader = Runner.build_dataloader({**cfg, "batch_size": 23})
    with pytest.raises(ValueError, match=r"22 images do not fill one batch of 23"):
        check_full_batch(loader)


def test_packed_shards_are_rejected_for_labelled_images(streamed):
    cfg = Config(dict(train_dataloader=dict(dataset=dict(type="CocoMultiLabel"))))
    shards = Config.fromfile(streamed).train_dataloader.dataset.data_root
    with pytest.raises(ValueError, match="images without labels, but the config uses CocoMultiLabel"):
        set_data_root(cfg, shards)


def test_url_is_accepted_as_data_root():
    dataset = dict(type="UnlabelledImages", data_root="old", pipeline=[1], data_prefix=dict(a=1))
    cfg = Config(dict(train_dataloader=dict(batch_size=BATCH, sampler=dict(type="A"), dataset=dataset)))
    set_data_root(cfg, "s3://bucket/images")
    expected = dict(type="StreamedImages", data_root="s3://bucket/images", pipeline=[1])
    assert cfg.train_dataloader == dict(batch_size=BATCH, sampler=None, dataset=expected)
