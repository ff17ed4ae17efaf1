"""Files of the safetensors library, with our metadata."""

import json
import os
from typing import Any

SAFETENSORS_META = "sspyr_mm"
"""Key of our metadata, as JSON, in the header of a ``.safetensors`` file."""


def is_safetensors(head: bytes) -> bool:
    """Returns whether a file begins like the format: a length of at most 100 MB in 8 bytes, then a JSON object."""
    return head[8:9] == b"{" and int.from_bytes(head[:8], "little") <= 100_000_000


def read_safetensors(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Reads tensors and our metadata; raises ValueError if the file is damaged."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            meta = json.loads((file.metadata() or {}).get(SAFETENSORS_META, "{}"))
    except (SafetensorError, ValueError) as error:
        raise ValueError(f"{path} is a damaged .safetensors file: {error}") from error
    return {"state_dict": tensors, "meta": meta}
