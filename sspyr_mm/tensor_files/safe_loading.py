"""Safe reading in place of ``torch.load`` and of mmengine's pickles, for code of other libraries."""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from mmengine.fileio.handlers import PickleHandler, file_handlers

from sspyr_mm.tensor_files.read import load_path, load_tensors


@contextmanager
def safe_loading(*, allow_pickle: bool = False) -> Iterator[None]:
    """Makes every ``torch.load`` of the process read like :func:`read_checkpoint`, with the message hub.

    All loaders of mmengine and torch.hub (files, URLs, model zoos, object stores) end there. ``mmengine.load`` refuses
    pickles. Both raise ValueError. With ``allow_pickle``, objects of any class are read instead, also where torch
    refuses them by default.

    Deviation: where torch refuses to read a file safely, mmengine reads it with ``weights_only=False``.
    """

    def load(f: Any, map_location: Any = None, *_: Any, **__: Any) -> Any:
        if not hasattr(f, "read"):
            return load_path(f, allow_pickle=allow_pickle, map_location=map_location)
        file = io.BytesIO(f.read()) if f.tell() else f
        name = str(getattr(f, "name", "The checkpoint"))
        return load_tensors(file, name, allow_pickle=allow_pickle, map_location=map_location)

    before = torch.load, torch.serialization.load, dict(file_handlers)
    torch.load = torch.serialization.load = load
    if not allow_pickle:
        file_handlers.update(pkl=_NoPickles(), pickle=_NoPickles())
    try:
        yield
    finally:
        torch.load, torch.serialization.load = before[:2]
        file_handlers.update(before[2])


class _NoPickles(PickleHandler):
    """Refuses to read pickles, and writes them as before."""

    def load_from_fileobj(self, file: Any, **_: Any) -> Any:
        raise ValueError(
            f"{getattr(file, 'name', 'A .pkl file')} is a pickle, which can run any code on this machine: it was "
            "refused, and nothing was executed. Give the annotations as .json; if you trust its source, read it with "
            "--allow-pickle"
        )
