"""Program that shows cells on the maps of an atlas in FiftyOne: ``python fiftyone_app.py FILE``.

Runs in the environment of FiftyOne, in which ``sspyr_mm`` need not be installed. FILE is written by ``viewers.py``.
"""

import contextlib
import json
import sys
from collections.abc import Mapping
from typing import Any

import fiftyone
import fiftyone.brain as brain
import numpy as np
from PIL import ExifTags, Image


def make_dataset(name: str, images: Mapping[str, Mapping[str, list[dict[str, Any]]]]) -> fiftyone.Dataset:
    """Returns a dataset with the cells of each scale as detections, and a map of each scale.

    Args:
        name: Name of the dataset. One of this name is replaced.
        images: Cells by image file and scale: box in pixels (left, top, right, bottom), prototype, score, and place on
            the map.
    """
    dataset = fiftyone.Dataset(name, overwrite=True)
    dataset.add_samples([fiftyone.Sample(filepath=path) for path in images])
    dataset.compute_metadata()
    for sample, scales in zip(dataset.iter_samples(autosave=True), images.values(), strict=True):
        size = _displayed_size(sample.filepath)
        sample.metadata.width, sample.metadata.height = size  # FiftyOne reads the orientation of JPEG files alone
        for scale, cells in scales.items():
            sample[scale] = fiftyone.Detections(detections=[_detection(cell, size) for cell in cells])
    for scale in dict.fromkeys(scale for scales in images.values() for scale in scales):
        places = [cell["place"] for scales in images.values() for cell in scales.get(scale, ())]
        brain.compute_visualization(dataset, patches_field=scale, points=np.array(places), brain_key=f"map_{scale}")
    return dataset


def _displayed_size(path: str) -> tuple[int, int]:
    """Returns width and height after the EXIF orientation."""
    with Image.open(path) as image:
        turned = image.getexif().get(ExifTags.Base.Orientation) in (5, 6, 7, 8)
        return image.size[::-1] if turned else image.size


def _detection(cell: Mapping[str, Any], size: tuple[int, int]) -> fiftyone.Detection:
    left, top, right, bottom = (value / size[i % 2] for i, value in enumerate(cell["box"]))
    box = [left, top, right - left, bottom - top]
    return fiftyone.Detection(label=str(cell["prototype"]), bounding_box=box, confidence=cell["score"])


def main() -> None:
    """Shows the images and the maps in a browser until Ctrl-C."""
    with open(sys.argv[1], encoding="utf-8") as file:
        data = json.load(file)
    dataset = make_dataset(data["name"], data["images"])
    panels = (fiftyone.Panel(type="Samples", pinned=True), fiftyone.Panel(type="Embeddings"))
    spaces = [fiftyone.Space(children=[panel], active_child=panel.component_id) for panel in panels]
    session = fiftyone.launch_app(
        dataset,
        address="127.0.0.1",
        color_scheme=fiftyone.ColorScheme(color_by="value"),
        spaces=fiftyone.Space(children=spaces, orientation="horizontal"),
    )
    print(f"FiftyOne shows {dataset.name} at {session.url}", flush=True)
    with contextlib.suppress(KeyboardInterrupt):
        session.wait(-1)


if __name__ == "__main__":
    main()
