"""Images without labels, from wherever they lie."""

import json
import os
import pickle
import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.dataset import BaseDataset
from mmpretrain.registry import DATASETS

from sspyr_mm.datasets.names import find_coco_images
from sspyr_mm.datasets.shards import is_packed

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".ppm", ".gif")


@DATASETS.register_module()
class UnlabelledImages(BaseDataset):
    """All images of one or several folders, list files or COCO annotation files.

    Args:
        data_root: What to read, one path or several: a folder, searched through all its sub-folders; a ``.txt`` file
            with a path per line (relative ones to the file's folder; ``#`` starts a comment); a COCO ``.json``, whose
            images are looked for in ``data_prefix['img_path']``, else beside it and in its parent's folders.
        data_prefix: ``dict(img_path=...)``: folder of the images of a list or json; for folders, a sub-folder.
        pipeline: Transforms.
        suffixes: File names that count as images, in any case.
        max_refetch: Images tried in place of one that can't be read, before it is an error.
        **kwargs: Of mmengine's ``BaseDataset``.

    Raises:
        FileNotFoundError: If a path does not exist.
        PermissionError: If a folder can't be read.
        ValueError: If there are no images; with what was looked for, and where.
    """

    METAINFO = {"classes": ()}
    _fully_initialized: bool

    def __init__(
        self,
        data_root: str | Sequence[str],
        *,
        data_prefix: dict | None = None,
        pipeline: Sequence[Any] = (),
        suffixes: Sequence[str] = IMAGE_SUFFIXES,
        max_refetch: int = 100,
        **kwargs: Any,
    ) -> None:
        roots = [data_root] if isinstance(data_root, (str, os.PathLike)) else list(data_root)
        if not roots:
            raise ValueError(
                "data_root is empty: give a folder of images, a list file or a COCO json"
            )
        self.roots = [Path(root).expanduser() for root in roots]
        self.img_prefix = (data_prefix or {}).get("img_path", "")
        self.suffixes = tuple(s.lower() for s in suffixes)
        super().__init__(
            ann_file="",
            data_root="",
            data_prefix={},
            pipeline=list(pipeline),
            max_refetch=max_refetch,
            **kwargs,
        )

    def list_images(self) -> list[str]:
        """Lists the images, sorted within each folder so that every machine has the same order.

        Returns:
            Paths.
        """
        paths = [path for root in self.roots for path in self._list_root(root)]
        if not paths and any(is_packed(str(root)) for root in self.roots):
            raise ValueError(
                f"{self.roots[0]} holds packed shards: give it with tools/train.py --data-root, or set "
                "train_dataloader.dataset.type=StreamedImages and train_dataloader.sampler=None; other commands want "
                "the folder of images that was packed"
            )
        if not paths:
            raise ValueError(
                f"No images in {', '.join(map(str, self.roots))}: looked for {', '.join(self.suffixes)}, also in "
                "sub-folders. Point data_root to a folder, a list file (.txt) or a COCO json "
                "(tools/train.py --data-root)"
            )
        return paths

    def load_data_list(self) -> list[dict[str, str]]:
        """What mmengine asks for.

        Returns:
            A dict with ``img_path`` per image.
        """
        return [{"img_path": path} for path in self.list_images()]

    def full_init(self) -> None:
        """Lists the images into mmengine's buffer, one by one.

        mmengine would make a dict and an array of each first: several times the memory, in every process.
        """
        if self._fully_initialized or not self.serialize_data:
            super().full_init()
            return
        buffer, ends = bytearray(), []
        for path in self.list_images():
            buffer += pickle.dumps({"img_path": path}, protocol=4)
            ends.append(len(buffer))
        self.data_bytes, self.data_address = np.frombuffer(buffer, np.uint8), np.asarray(ends)
        self._fully_initialized = True
        if self._indices is not None:
            self.get_subset_(self._indices)

    def __getitem__(self, idx: int) -> dict[str, Any]:
        """One image through the pipeline, another one in place of one that can't be read.

        Which one depends on ``idx`` alone, where mmengine asks numpy's global generator: so it is the same with any
        number of workers and after a restart. It keeps the ``sample_idx`` of the broken one, so that its views differ
        from those of its own turn.

        Args:
            idx: Index of the image.

        Returns:
            What the pipeline returns.

        Raises:
            IndexError: If there is no such image.
            RuntimeError: If ``max_refetch`` others can't be read either.
        """
        # Negative ones count from the end, too large ones are an IndexError.
        idx = range(len(self))[idx]
        data = self.pipeline(self.get_data_info(idx))
        if data is not None:
            return data
        rng = random.Random(idx)
        for _ in range(self.max_refetch):
            other = self.get_data_info(int(rng.random() * len(self)))
            data = self.pipeline({**other, "sample_idx": idx})
            if data is not None:
                return data
        raise RuntimeError(
            f"Image {idx} of {', '.join(map(str, self.roots))} and {self.max_refetch} others in its place can't be "
            "read: see 'Left out ...' above; remove or mend these files, or give another data_root"
        )

    def _list_root(self, root: Path) -> list[str]:
        if root.is_dir():
            return sorted(_walk(root / self.img_prefix, self.suffixes))
        if not root.exists():
            raise FileNotFoundError(
                f"data_root {root} does not exist: give an existing folder, list file or COCO json "
                "(tools/train.py --data-root PATH)"
            )
        if root.suffix == ".json":
            return self._list_coco(root)
        if root.suffix == ".txt":
            return self._list_file(root)
        raise ValueError(f"data_root {root} is neither a folder nor a .txt list nor a COCO .json")

    def _list_file(self, root: Path) -> list[str]:
        folder = str(Path(self.img_prefix) if self.img_prefix else root.parent)
        try:
            with open(root, encoding="utf-8-sig") as file:
                lines = [line for raw in file if (line := raw.strip()) and line[0] != "#"]
        except UnicodeDecodeError as error:
            raise ValueError(
                f"{root} is not UTF-8 text (byte 0x{error.object[error.start]:02x}): save it as UTF-8, e.g. "
                f"iconv -f ISO-8859-1 -t UTF-8 {root} > NEW.txt"
            ) from error
        for index, line in enumerate(lines):  # in place: lists of millions are not kept twice
            lines[index] = os.path.join(folder, line)
        _check_first(lines, root)
        return lines

    def _list_coco(self, root: Path) -> list[str]:
        try:
            images = json.loads(root.read_text(encoding="utf-8"))["images"]
            names = [image["file_name"] for image in images]
            if wrong := [repr(name) for name in names if not isinstance(name, str)]:
                raise TypeError(f"file_name must be text, got {wrong[0]}: put it in quotes")
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(
                f"{root} is not a COCO json: it needs images[].file_name ({error})"
            ) from error
        return find_coco_images(root, names, self.img_prefix)


def _walk(folder: Path, suffixes: tuple[str, ...]) -> Iterator[str]:
    """Image files below ``folder``, following links to folders; hidden ones are left out."""

    def refuse(error: OSError) -> None:
        if isinstance(error, PermissionError):
            raise PermissionError(
                f"Can't read {error.filename}: give this user the right to (chmod u+rx)"
            ) from error
        raise FileNotFoundError(
            f"{error.filename}: {error.strerror}; give an existing folder"
        ) from error

    seen = set()
    for current, folders, files in os.walk(folder, onerror=refuse, followlinks=True):
        real = os.path.realpath(current)
        if real in seen:  # a link that leads back up
            folders.clear()
            continue
        seen.add(real)
        # Sorted: of two names of one folder, every machine takes the same.
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in files:
            if name.lower().endswith(suffixes) and not name.startswith("."):
                yield os.path.join(current, name)


def _check_first(paths: list[str], source: Path) -> None:
    if paths and not os.path.isfile(paths[0]):
        raise FileNotFoundError(
            f"{source} names {paths[0]}, which does not exist: relative paths count from the list's folder, or from "
            "data_prefix=dict(img_path=FOLDER)"
        )
