"""Files of tensors, read without executing anything in them; imports nothing of the models."""

from sspyr_mm.tensor_files.array_pickle import write_arrays
from sspyr_mm.tensor_files.read import FilePath, check_whole, file_sha256, peek_checkpoint, read_checkpoint
from sspyr_mm.tensor_files.safe_loading import safe_loading
from sspyr_mm.tensor_files.safetensors_files import CHECKSUM, SAFETENSORS_META, checksum

__all__ = [
    "CHECKSUM",
    "SAFETENSORS_META",
    "FilePath",
    "check_whole",
    "checksum",
    "file_sha256",
    "peek_checkpoint",
    "read_checkpoint",
    "safe_loading",
    "write_arrays",
]
