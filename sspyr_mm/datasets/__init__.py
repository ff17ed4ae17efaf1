"""Data sets and transforms. Importing the package registers all of them."""

from sspyr_mm.compat import quiet_imports

with quiet_imports():
    import mmpretrain.datasets  # noqa: F401

from sspyr_mm.datasets.labelled import CocoMultiLabel, MultiLabelImages
from sspyr_mm.datasets.link import build_pretraining_dataset, set_epoch, set_views
from sspyr_mm.datasets.samplers import ResumableSampler
from sspyr_mm.datasets.streaming.streamed import StreamedImages
from sspyr_mm.datasets.transforms import LoadRGBImage, PackPyramidInputs, PyramidViewTransform, SeedTransforms
from sspyr_mm.datasets.unlabelled import UnlabelledImages
from sspyr_mm.datasets.workers import answer_to_parent_only

__all__ = [
    "CocoMultiLabel",
    "LoadRGBImage",
    "MultiLabelImages",
    "PackPyramidInputs",
    "PyramidViewTransform",
    "ResumableSampler",
    "SeedTransforms",
    "StreamedImages",
    "UnlabelledImages",
    "answer_to_parent_only",
    "build_pretraining_dataset",
    "set_epoch",
    "set_views",
]
