"""Draws the predictions of a detector or segmenter."""

import os

import mmcv
from mmengine.dist import get_world_size
from mmengine.hooks import Hook
from mmengine.runner import Runner
from mmengine.structures import BaseDataElement
from mmpretrain.registry import HOOKS


@HOOKS.register_module(["PredictionImagesHook", "PredictionPicturesHook"])  # the second: name until version 0.2
class PredictionImagesHook(Hook):
    """Draws predictions and ground truth of a few validation images with the runner's own visualiser.

    Files are ``WORK_DIR/predictions/NUMBER_NAME.jpg`` and ``NUMBER_NAME_truth.jpg``; each validation overwrites them.
    The images are the same for every network, spread evenly over the data set.

    Args:
        num_images: Number of images; fewer if the data set has fewer.
    """

    def __init__(self, num_images: int = 8) -> None:
        if num_images < 1:
            raise ValueError(f"num_images must be >= 1, got {num_images}")
        self.num_images = num_images
        self._files: dict[str, str] = {}

    def before_val(self, runner: Runner) -> None:
        """Chooses images of the first process, the only one that draws.

        Raises:
            TypeError: If the visualiser is not one of mmdet's or mmseg's.
        """
        if not hasattr(runner.visualizer, "add_datasample"):
            raise TypeError(
                f"PredictionImagesHook needs mmdet's or mmseg's visualiser, got {type(runner.visualizer).__name__}: "
                "set visualizer=dict(type='DetLocalVisualizer') or 'SegLocalVisualizer'"
            )
        dataset, ranks = runner.val_dataloader.dataset, get_world_size()
        seen = range(0, len(dataset), ranks)
        count = min(self.num_images, len(seen))
        self._files = {}
        for index in (seen[i * len(seen) // count] for i in range(count)):
            path = dataset.get_data_info(index)["img_path"]
            name = os.path.splitext(os.path.basename(path))[0]
            self._files[path] = os.path.join(runner.work_dir, "predictions", f"{index:06d}_{name}")

    def after_val_iter(
        self, runner: Runner, batch_idx: int, data_batch: object = None, outputs: list[BaseDataElement] | None = None
    ) -> None:
        """Draws the chosen images among the outputs."""
        for sample in outputs or []:
            if stem := self._files.get(sample.img_path):
                image = mmcv.imread(sample.img_path, channel_order="rgb")
                for file, truth in ((f"{stem}.jpg", False), (f"{stem}_truth.jpg", True)):
                    _draw(runner, image, sample, file, truth=truth)


def _draw(runner: Runner, image: object, sample: BaseDataElement, file: str, *, truth: bool) -> None:
    try:
        runner.visualizer.add_datasample(
            "prediction", image, data_sample=sample, draw_gt=truth, draw_pred=not truth, out_file=file
        )
    except Exception as error:  # a failed drawing must not cost the run its results
        runner.logger.warning(f"{file} is not drawn: {type(error).__name__}: {error}")
