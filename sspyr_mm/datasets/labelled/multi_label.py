"""Multi-label data sets for mmpretrain."""

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
from mmpretrain.datasets import MultiLabelDataset
from mmpretrain.registry import DATASETS

from sspyr_mm.datasets.labelled.labelled_images import IGNORED
from sspyr_mm.datasets.labelled.read_labelled import read_labelled
from sspyr_mm.datasets.splits import read_split


@DATASETS.register_module()
class MultiLabelImages(MultiLabelDataset):
    """Image labels of every source that :func:`read_labelled` supports: VOC trees, tables, COCO jsons, folders.

    A sample has ``img_path``, ``image_id``, ``gt_label`` (int64 indices of the classes shown, empty for none) and
    ``gt_score`` (L,) float32: 1 shown, 0 not shown, -1 ignored in training and evaluation. ``metainfo['classes']`` are
    the classes of the annotations, or the argument ``classes``.

    Args:
        data_root: Source of :func:`read_labelled`.
        split: Split of a VOC tree, such as trainval.
        image_root: Folder of the images; default: the usual place of the source.
        pipeline: Transforms.
        image_ids: File with the ids of the images to use, for semi-supervised learning (see
            :mod:`sspyr_mm.datasets.splits`); default: all.
        **kwargs: Arguments of mmpretrain's ``MultiLabelDataset``; ``classes`` sets another order of the columns, or
            additional ones.

    Raises:
        FileNotFoundError: If the source, an image or the list of ids does not exist.
        ValueError: If :func:`read_labelled` raises it, or the set lacks an image of ``image_ids``.
    """

    def __init__(
        self,
        data_root: str,
        *,
        split: str | None = None,
        image_root: str | None = None,
        pipeline: Sequence[Any] = (),
        image_ids: str | os.PathLike | None = None,
        **kwargs: Any,
    ) -> None:
        self.split, self.image_root, self.image_ids = split, image_root, image_ids
        super().__init__(ann_file="", data_root=os.path.expanduser(data_root), pipeline=pipeline, **kwargs)

    def load_data_list(self) -> list[dict[str, Any]]:
        """Returns one dict per image, in the order of the annotations."""
        found = read_labelled(self.data_root, split=self.split, image_root=self.image_root)
        if self.image_ids is not None:
            found = found.with_images(read_split(self.image_ids), self.image_ids)
        if self.CLASSES is not None:
            found = found.with_classes(self.CLASSES)
        self._metainfo["classes"] = found.classes
        return [
            {
                "img_path": path,
                "image_id": image_id,
                # Lists: arrays take many times the space once serialised.
                "gt_label": np.flatnonzero(target == 1).tolist(),
                "ignored": np.flatnonzero(target == IGNORED).tolist(),
            }
            for path, image_id, target in zip(found.paths, found.image_ids, found.targets, strict=True)
        ]

    def get_data_info(self, idx: int) -> dict[str, Any]:
        """Returns one image, with ``gt_label`` and ``gt_score``, as input of the pipeline."""
        info = super().get_data_info(idx)
        # Empty lists would become float tensors in the pipeline.
        info["gt_label"] = np.array(info["gt_label"], np.int64)
        score = np.zeros(len(self.CLASSES), np.float32)
        score[info["gt_label"]] = 1
        score[info.pop("ignored")] = IGNORED
        return {**info, "gt_score": score}

    def get_cat_ids(self, idx: int) -> list[int]:
        """Returns the indices of the classes that an image shows, for class-balanced samplers."""
        return self.get_data_info(idx)["gt_label"].tolist()

    def extra_repr(self) -> list[str]:
        """Returns additional lines of the printed form."""
        return [f"Source: \t{self.data_root}", f"Split: \t{self.split}"]


@DATASETS.register_module()
class CocoMultiLabel(MultiLabelImages):
    """Image labels of COCO 2014 or 2017, or of any other set with a COCO json.

    Every instance counts, crowds included; images without annotations are kept, without labels. Classes have the order
    of the category list.

    Args:
        ann_file: ``instances_*.json``, relative to ``data_root``.
        data_root: Folder of annotations and images.
        data_prefix: Folder of the images, or ``dict(img_path=...)``, relative to ``data_root``; default: the usual
            folders next to the json.
        **kwargs: Arguments of :class:`MultiLabelImages`.

    Raises:
        FileNotFoundError: If the json, an image or the list of ids does not exist.
        ValueError: If the json is malformed, or lacks an image of ``image_ids``.
    """

    def __init__(
        self, ann_file: str, *, data_root: str = "", data_prefix: str | dict[str, str] = "", **kwargs: Any
    ) -> None:
        folder = data_prefix.get("img_path") if isinstance(data_prefix, dict) else data_prefix
        image_root = os.path.join(data_root, folder) if folder else None
        super().__init__(os.path.join(data_root, os.path.expanduser(ann_file)), image_root=image_root, **kwargs)
