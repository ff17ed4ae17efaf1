"""Server of an atlas on this machine: its page, and the prototypes and nearest cells of an image that is sent to it."""

import json
import os
import socket
import sys
import threading
from collections.abc import Mapping, Sequence
from functools import partial
from http import HTTPStatus
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from sspyr_mm.files import whole_file
from sspyr_mm.models import SSPRL
from sspyr_mm.reports.atlas.scale_atlas import ImageReader, ScaleAtlas, assign_patches, cut_cells
from sspyr_mm.tensor_files import read_checkpoint

_ADDRESS = "127.0.0.1"
_NUM_NEAREST = 12
_MAX_BYTES = 64 << 20
"""Size of an image file that is accepted."""
_EMBEDDINGS = "page/embeddings.pth"


def save_embeddings(out: str | os.PathLike[str], atlas: Sequence[ScaleAtlas], source: str) -> None:
    """Saves the embeddings of the cells on the maps next to the page, which removes them when it is replaced.

    Args:
        out: Folder of the atlas.
        atlas: Scales.
        source: Text that identifies the network.
    """
    with whole_file(Path(out, _EMBEDDINGS)) as partial:
        torch.save({"source": source, **{part.scale: torch.from_numpy(part.embedding) for part in atlas}}, partial)


def load_embeddings(out: str | os.PathLike[str], source: str) -> dict[str, NDArray]:
    """Returns what :func:`save_embeddings` saved, by scale; raises ValueError if it is missing or of another one."""
    try:
        found = read_checkpoint(Path(out, _EMBEDDINGS))
    except (OSError, ValueError) as error:
        raise ValueError(f"{out} has no atlas that can be served ({error}): give --images to make one") from error
    if found.pop("source", None) != source:
        raise ValueError(
            f"{out} has the atlas of another checkpoint or selection: give its own, or --images to make one"
        )
    return {scale: value.numpy() for scale, value in found.items()}


class Locator:
    """Finds prototypes of the cells of an image, and the cells of a map that are nearest to each.

    Args:
        model: Trained model, in evaluation mode.
        embeddings: Those of the cells on the maps, (P, D) by scale.
        decoding: Options of ``LoadRGBImage`` of the training.
    """

    def __init__(self, model: SSPRL, embeddings: Mapping[str, NDArray], decoding: Mapping[str, Any]) -> None:
        self.model, self.embeddings, self.read = model, embeddings, ImageReader(decoding)
        self._lock = threading.Lock()

    @torch.inference_mode()
    def __call__(self, content: bytes) -> dict[str, list[dict[str, Any]]]:
        """Returns, by scale, a dict per cell: ``box`` as shares of the image, ``prototype``, ``score``, ``nearest``.

        ``nearest`` are rows of ``embeddings``, by cosine, best first. Raises ValueError if the content
        is not an image.
        """
        with self._lock:
            try:
                image = self.read("the file", content)
            except ValueError as error:
                raise ValueError("The file cannot be read as an image") from error
            found = {}
            for scale in self.model.pyramid.scales:
                patches, boxes = cut_cells(image, scale)
                height, width = image.shape[:2]
                inputs = torch.from_numpy(patches).permute(0, 3, 1, 2)
                prototypes, scores, _, embedding = assign_patches(self.model, scale, inputs)
                nearest = np.argsort(-(embedding @ self.embeddings[scale.name].T), axis=1, kind="stable")[
                    :, :_NUM_NEAREST
                ]
                columns = (boxes / [width, height, width, height], prototypes, scores, nearest)
                found[scale.name] = [
                    {
                        "box": [round(float(x), 4) for x in box],
                        "prototype": int(prototype),
                        "score": round(float(score), 4),
                        "nearest": [int(i) for i in near],
                    }
                    for box, prototype, score, near in zip(*columns, strict=True)
                ]
        return found


class _Handler(SimpleHTTPRequestHandler):
    """Files of the page, and ``locate``: GET tells that it is there, POST takes the content of an image file."""

    timeout = 60  # seconds without a byte of a request

    def __init__(self, *args: Any, locate: Locator, **kwargs: Any) -> None:
        self.locate = locate
        super().__init__(*args, **kwargs)

    def _is_own(self) -> bool:
        """Refuses requests that other pages make a browser send, by their name of the host or their origin.

        Any port is accepted: that of a tunnel is another one.
        """
        host = self.headers.get("Host", "").lower()
        own = host.partition(":")[0] in (_ADDRESS, "localhost")
        if own and self.headers.get("Origin", f"http://{host}").lower() == f"http://{host}":
            return True
        self.send_error(HTTPStatus.FORBIDDEN, "Open the address that the command prints")
        return False

    def send_head(self) -> Any:
        """Opens a file of the page; for GET and HEAD."""
        if not self._is_own():
            return None
        folder = Path(self.directory).resolve()
        # Without `..` and escapes; a link out of the folder, or a pipe in it, is not a file of the page.
        file = Path(self.translate_path(self.path))
        file = file if "\0" in str(file) else file.resolve()
        if self.path == "/locate":
            self.send_response(HTTPStatus.NO_CONTENT)
            self.end_headers()
        elif file == folder or (_is_of_page(file, folder) and file.is_file()):
            return super().send_head()
        else:
            self.send_error(HTTPStatus.NOT_FOUND)
        return None

    def list_directory(self, path: Any) -> None:
        self.send_error(HTTPStatus.NOT_FOUND)

    def do_POST(self) -> None:
        self.close_connection = True  # a refused body is not read
        if not self._is_own():
            return
        if self.path != "/locate":
            self.send_error(HTTPStatus.NOT_FOUND)
            return
        size = self.headers.get("Content-Length", "")
        if not size.isdecimal():
            self._answer(HTTPStatus.LENGTH_REQUIRED, {"error": "The request has no Content-Length"})
            return
        if len(size) > 15 or int(size) > _MAX_BYTES:
            message = f"The file is larger than {_MAX_BYTES >> 20} MiB"
            self._answer(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, {"error": message})
            return
        try:
            self._answer(HTTPStatus.OK, self.locate(self.rfile.read(int(size))))
        except ValueError as error:
            self._answer(HTTPStatus.BAD_REQUEST, {"error": str(error)})

    def _answer(self, status: HTTPStatus, value: Any) -> None:
        content = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:
        """Logs nothing: requests are the user's own clicks."""


def _is_of_page(file: Path, folder: Path) -> bool:
    return "\0" not in str(file) and (file == folder / "index.html" or folder / "page" in file.parents)


def check_port(port: int) -> None:
    """Raises ValueError if a port cannot be used on this machine."""
    try:
        with socket.create_server((_ADDRESS, port)):
            pass
    except (OSError, OverflowError) as error:
        raise ValueError(f"--serve {port}: the port cannot be used ({error}); 0 chooses a free one") from error


class _Server(ThreadingHTTPServer):
    def handle_error(self, request: Any, client_address: Any) -> None:
        """Reports errors but those of a client that went away."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)


def make_server(out: str | os.PathLike[str], locate: Locator, port: int) -> ThreadingHTTPServer:
    """Returns a server of ``OUT`` on this machine alone; port 0 chooses a free one."""
    return _Server((_ADDRESS, port), partial(_Handler, locate=locate, directory=os.path.abspath(out)))
