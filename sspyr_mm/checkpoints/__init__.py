"""Reading and writing of checkpoints."""

from sspyr_mm.checkpoints.backbone import build_backbone, export_backbone, read_backbone, write_backbone
from sspyr_mm.checkpoints.formats.locate import BackboneCheckpoint
from sspyr_mm.checkpoints.formats.weights import Selection
from sspyr_mm.checkpoints.inspection import inspect_checkpoint
from sspyr_mm.checkpoints.official import convert_official
from sspyr_mm.checkpoints.pretraining import build_model, load_pretraining
from sspyr_mm.tensor_files import read_checkpoint

__all__ = [
    "BackboneCheckpoint",
    "Selection",
    "build_backbone",
    "build_model",
    "convert_official",
    "export_backbone",
    "inspect_checkpoint",
    "load_pretraining",
    "read_backbone",
    "read_checkpoint",
    "write_backbone",
]
