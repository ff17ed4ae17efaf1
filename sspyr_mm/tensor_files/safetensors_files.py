"""Files of the safetensors library, with our metadata."""

import hashlib
import json
import os
from typing import Any, BinaryIO

from sspyr_mm.tensor_files.array_pickle import Restorer

SAFETENSORS_META = "sspyr_mm"
"""Key of our metadata, as JSON, in the header of a ``.safetensors`` file."""
CHECKSUM = "sspyr_mm_sha256"
"""Key of the checksum next to it, of everything else in the file."""
_MAX_HEADER = 32 << 20
"""Bytes of a header: 100 to 150 a tensor, so about 250,000 tensors. JSON takes ten times as much memory."""


def is_safetensors(head: bytes) -> bool:
    """Returns whether a file begins like the format: a length of at most 100 MB in 8 bytes, then a JSON object."""
    return head[8:9] == b"{" and int.from_bytes(head[:8], "little") <= 100_000_000


def read_safetensors(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Reads tensors and our metadata; raises ValueError if the file is damaged, or is not what its checksum states."""
    from safetensors import SafetensorError, safe_open

    meta = check_safetensors(path)
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, ValueError, RuntimeError) as error:
        raise _damaged(path, error) from error
    return {"state_dict": tensors, "meta": meta}


def check_safetensors(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Compares a file with its checksum, if this package has written one; returns our metadata.

    Raises ValueError if they differ, or the header is damaged or too large.
    """
    try:
        with open(path, "rb") as file:
            size = int.from_bytes(file.read(8), "little")
            if size > _MAX_HEADER:
                raise ValueError(f"its header has {size:,} bytes, more than {_MAX_HEADER:,}")
            header = json.loads(file.read(size))
            stored = header.get("__metadata__") or {}
            ends = [one["data_offsets"][1] for name, one in header.items() if name != "__metadata__"]
            if (stated := 8 + size + max(ends, default=0)) != os.fstat(file.fileno()).st_size:
                raise ValueError(f"its header states {stated:,} bytes, the file has another size")
            meta = Restorer(0)(json.loads(stored.get(SAFETENSORS_META, "{}")))  # nested as little as other files
            wanted = stored.pop(CHECKSUM, None)
            if not isinstance(meta, dict):
                raise TypeError(f"its metadata is {type(meta).__name__}, not a dict")
            if wanted is not None and wanted != checksum(header, file):
                raise ValueError("its checksum does not match: the file has changed since it was written")
    except (ValueError, TypeError, AttributeError, LookupError, RecursionError, MemoryError) as error:
        raise _damaged(path, error) from error
    return meta


def checksum(header: dict[str, Any], data: BinaryIO) -> str:
    """Returns the SHA-256 of a header without its checksum, and of the tensors, read from ``data``."""
    digest = hashlib.sha256(json.dumps(header, sort_keys=True).encode())
    while block := data.read(1 << 20):
        digest.update(block)
    return digest.hexdigest()


def _damaged(path: str | os.PathLike[str], error: Exception) -> ValueError:
    detail = str(error) or "it is nested too deeply"
    return ValueError(f"{path} is a damaged .safetensors file: {detail}. Copy or download it again")
