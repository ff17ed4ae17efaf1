"""Notices about a data set, reported before training."""

from typing import Any

from sspyr_mm.datasets.transforms.loading import LoadRGBImage
from sspyr_mm.datasets.transforms.pixel_values import flatness
from sspyr_mm.datasets.unlabelled import UnlabelledImages
from sspyr_mm.files import printable

_NUM_SAMPLED = 16
_ALARMING = 0.25
"""Share of images without content above which they are reported."""


def data_notices(dataset: Any) -> list[str]:
    """Returns lines about skipped files, missing images, and images that are constant or nearly black.

    Only :class:`UnlabelledImages` have notices; a sample of their images is loaded.
    """
    if not isinstance(dataset, UnlabelledImages):
        return []
    return [*dataset.notices, *_flat_images(dataset)]


def _flat_images(dataset: UnlabelledImages) -> list[str]:
    load = next((step for step in dataset.pipeline.transforms if isinstance(step, LoadRGBImage)), None)
    if load is None:
        return []
    found, tried = [], 0
    for index in range(0, len(dataset), max(1, len(dataset) // _NUM_SAMPLED)):
        path = dataset.get_data_info(index)["img_path"]
        image = load.peek(path)
        if image is None:
            continue
        tried += 1
        if kind := flatness(image):
            found.append(f"{printable(path)} is {kind}")
    if len(found) <= _ALARMING * tried:
        return []
    return [
        f"{len(found)} of {tried} sampled images are constant or nearly black, such as {found[0]}: training learns "
        "nothing from them. Check the files; if they have more than 8 bits per channel, set value_range=(LOW, HIGH) of "
        "LoadRGBImage in train_dataloader.dataset.pipeline"
    ]
