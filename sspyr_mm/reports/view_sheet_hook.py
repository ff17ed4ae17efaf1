"""Sheet of the views that a run trains on."""

from pathlib import Path
from typing import Any

from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.runner import Runner
from mmpretrain.registry import HOOKS

from sspyr_mm.engine.hooks.model_access import model_of
from sspyr_mm.reports.sheets import draw_contact_sheet, write_image

VIEWS_FILE = "views.jpg"
"""File in the work dir."""


@HOOKS.register_module()
class ViewSheetHook(Hook):
    """Draws the views of the first images as training sees them into ``views.jpg`` of the work dir.

    The first iteration after each start draws; the random numbers of training are not touched, since views are drawn
    from the seed of their image. A sheet that cannot be drawn or written is reported and does not stop training.

    Args:
        num_images: Number of images. Default: 4.
    """

    def __init__(self, num_images: int = 4) -> None:
        if num_images < 1:
            raise ValueError(f"num_images must be >= 1, got {num_images}")
        self.num_images = num_images
        self._is_drawn = False

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: dict[str, Any] | None = None) -> None:
        """Draws the sheet once."""
        if self._is_drawn or not is_main_process() or data_batch is None:
            return
        self._is_drawn = True
        inputs = {name: values[: self.num_images] for name, values in data_batch["inputs"].items()}
        try:
            write_image(
                Path(runner.work_dir, VIEWS_FILE), draw_contact_sheet(model_of(runner).data_preprocessor, inputs)
            )
        except OSError as error:
            runner.logger.warning(f"The sheet of views is not written: {error}")
