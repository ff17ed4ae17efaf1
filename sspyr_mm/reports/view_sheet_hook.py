"""Sheet of the views that a run trains on."""

from pathlib import Path
from typing import Any, cast

from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.runner import Runner
from mmpretrain.registry import HOOKS

from sspyr_mm.engine.hooks.model_access import model_of
from sspyr_mm.models import PyramidAugment
from sspyr_mm.reports.sheets import draw_views, write_image

VIEWS_FILE = "views.jpg"
"""File in the work dir."""


@HOOKS.register_module()
class ViewSheetHook(Hook):
    """Draws the views of the first images of a run into ``views.jpg`` of the work dir.

    The patches are those of the first step after a start. A sheet that cannot be written is reported and does not stop
    training.

    Args:
        num_images: Number of images. Default: 4.
    """

    def __init__(self, num_images: int = 4) -> None:
        if num_images < 1:
            raise ValueError(f"num_images must be >= 1, got {num_images}")
        self.num_images = num_images
        self._is_done = False

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: dict[str, Any] | None = None) -> None:
        """Waits for the patches of the first step."""
        if self._is_done or not is_main_process() or data_batch is None:
            return
        self._is_done = True
        preprocessor = cast(PyramidAugment, model_of(runner).data_preprocessor)

        def draw(module: Any, args: Any, output: dict[str, Any]) -> None:
            handle.remove()
            try:
                sheet = draw_views(preprocessor, data_batch["inputs"], output["inputs"], self.num_images)
                write_image(Path(runner.work_dir, VIEWS_FILE), sheet)
            except (OSError, ValueError) as error:
                runner.logger.warning(f"The sheet of views is not written: {error}")

        handle = preprocessor.register_forward_hook(draw)
