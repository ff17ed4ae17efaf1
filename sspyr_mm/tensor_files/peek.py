"""What a checkpoint holds, without reading its tensors."""

import pickle
import zipfile
from typing import Any

import torch

from sspyr_mm.tensor_files.allowed import only_allowed_globals
from sspyr_mm.tensor_files.read import FilePath, _torch_load, read_checkpoint


def peek_checkpoint(path: FilePath, *, allow_pickle: bool = False) -> dict[str, Any]:
    """Reads a checkpoint like :func:`read_checkpoint`, but leaves its tensors on the disk, and verifies no checksum."""
    if zipfile.is_zipfile(path) and not allow_pickle:
        try:
            with only_allowed_globals(set(torch.serialization.get_unsafe_globals_in_checkpoint(path))):
                content = _torch_load(path, map_location="cpu", mmap=True, weights_only=True)
        except (AttributeError, LookupError, OSError, RuntimeError, TypeError, ValueError, pickle.UnpicklingError):
            content = None
        if isinstance(content, dict):
            return content
    return read_checkpoint(path, allow_pickle=allow_pickle, keep_log=True)
