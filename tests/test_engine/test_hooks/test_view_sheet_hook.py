"""The sheet of views of a real run shows what the network saw, and drawing it changes no weight."""

import cv2
import pytest
import torch
from mmengine.hooks import Hook
from mmpretrain.registry import HOOKS
from small_runs import BATCH, train

from sspyr_mm.reports.sheets import draw_views
from sspyr_mm.reports.view_sheet_hook import ViewSheetHook


@HOOKS.register_module()
class KeepFirstStep(Hook):
    """Keeps the regions of the first step and the patches that the network got in it."""

    priority = "LOWEST"

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        if runner.iter == 0:
            self.regions = data_batch["inputs"]
            self.handle = runner.model.data_preprocessor.register_forward_hook(self.keep)

    def keep(self, module, args, output):
        self.patches = output["inputs"]
        self.handle.remove()


def test_sheet_shows_the_patches_of_the_first_step_and_changes_no_weight(config_of_a_method, tmp_path):
    options = {"default_hooks.view_sheet.num_images": 2, "custom_hooks": [dict(type="KeepFirstStep")]}
    runner = train(config_of_a_method, tmp_path / "with", options)
    (kept,) = (hook for hook in runner.hooks if isinstance(hook, KeepFirstStep))
    assert len(kept.regions["seed"]) == BATCH
    expected = draw_views(runner.model.data_preprocessor, kept.regions, kept.patches, 2)
    sheet = cv2.imread(str(tmp_path / "with/views.jpg"))[..., ::-1]
    assert sheet.shape == expected.shape
    assert abs(sheet.astype(int) - expected.astype(int)).mean() < 4  # JPEG
    without = train(config_of_a_method, tmp_path / "without", without="view_sheet")
    assert not (tmp_path / "without/views.jpg").exists()
    ours, theirs = runner.model.state_dict(), without.model.state_dict()
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_sheet_that_cannot_be_written_is_reported(config, tmp_path, log):
    (tmp_path / "views.jpg").mkdir()
    train(config, tmp_path)
    assert any("The sheet of views is not written" in text for _, text in log)


def test_number_of_images_is_checked():
    with pytest.raises(ValueError, match="num_images must be >= 1, got 0"):
        ViewSheetHook(num_images=0)
