"""Reading and writing of checkpoints."""

from sspyr_mm.checkpoints.backbone import export_backbone
from sspyr_mm.checkpoints.pretraining import (
    build_model,
    load_pretraining,
    random_model,
    read_checkpoint,
)

__all__ = ["build_model", "export_backbone", "load_pretraining", "random_model", "read_checkpoint"]
