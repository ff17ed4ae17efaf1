"""Images without labels, from wherever they lie."""

import json
import os
import pickle
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.dataset import BaseDataset
from mmpretrain.registry import DATASETS

from sspyr_mm.datasets.finding import IMAGE_SUFFIXES, ImageFinder, drop_missing, read_list
from sspyr_mm.datasets.names import find_coco_images
from sspyr_mm.datasets.streaming.shards import is_packed
from sspyr_mm.datasets.text import read_text
from sspyr_mm.datasets.transforms.decode_problems import UnreadableImageError
from sspyr_mm.files import printable

__all__ = ["IMAGE_SUFFIXES", "UnlabelledImages"]


@DATASETS.register_module()
class UnlabelledImages(BaseDataset):
    """All images of one or several folders, list files or COCO annotation files.

    Args:
        data_root: One path or several: a folder, searched through all its sub-folders; a ``.txt`` or ``.lst`` file
            with a path per line (relative ones to the file's folder; ``#`` starts a comment); a COCO ``.json``, whose
            images are looked for in ``data_prefix['img_path']``, else next to it and in its parent's folders.
        data_prefix: ``dict(img_path=...)``: folder of the images of a list or json; for folders, a sub-folder.
        pipeline: Transforms.
        suffixes: Endings of file names that count as images, in any case; default: all formats that can be read, by
            ending, and by content where the ending is unfamiliar.
        max_missing: Share of the images of a list or json that may be missing; the others are used.
        max_refetch: Images tried in place of one that cannot be read, before it is an error.
        **kwargs: Arguments of mmengine's ``BaseDataset``.

    Attributes:
        notices: Lines about what was found: files skipped, images missing. :class:`DataCheckHook` logs them.

    Raises:
        FileNotFoundError: If a path does not exist, or too many images of a list or json do not.
        PermissionError: If a folder cannot be read.
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
        suffixes: Sequence[str] | None = None,
        max_missing: float = 0.05,
        max_refetch: int = 100,
        **kwargs: Any,
    ) -> None:
        roots = [data_root] if isinstance(data_root, (str, os.PathLike)) else list(data_root)
        if not roots:
            raise ValueError("data_root is empty: give a folder of images, a list file or a COCO json")
        self.roots = [Path(root).expanduser() for root in roots]
        self.img_prefix = (data_prefix or {}).get("img_path", "")
        self.suffixes = None if suffixes is None else tuple(s.lower() for s in suffixes)
        if not 0 <= max_missing <= 1:
            raise ValueError(f"max_missing must be a share between 0 and 1, got {max_missing}")
        self.max_missing = max_missing
        self.notices: list[str] = []
        steps = list(pipeline)
        super().__init__(
            ann_file="",
            data_root="",
            data_prefix={},
            pipeline=steps,
            max_refetch=max_refetch,
            **kwargs,
        )

    def list_images(self) -> list[str]:
        """Lists the images, sorted within each folder so that every machine has the same order.

        Returns:
            Paths.
        """
        self.notices = []
        finder = ImageFinder(self.suffixes)
        paths = [path for root in self.roots for path in self._list_root(root, finder)]
        skipped = finder.notice(len(paths))
        self.notices += [skipped] if skipped else []
        places = ", ".join(map(printable, self.roots))
        if not paths and any(is_packed(str(root)) for root in self.roots):
            raise ValueError(
                f"{places} holds packed shards: give it with tools/train.py --data-root, or set "
                "train_dataloader.dataset.type=StreamedImages and train_dataloader.sampler=None; other commands want "
                "the folder of images that was packed"
            )
        if not paths:
            raise ValueError(
                f"No images in {places}, also in sub-folders ({skipped or 'no other files either'}). Point data_root "
                "to a folder of images, a list file (.txt) or a COCO json (tools/train.py --data-root)"
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
            UnreadableImageError: If ``max_refetch`` others cannot be read either.
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
        places = ", ".join(map(printable, self.roots))
        raise UnreadableImageError(
            f"Image {idx} of {places} and {self.max_refetch} others in its place cannot be read: see 'Left out ...' "
            "above; remove or repair these files, or give another data_root"
        )

    def _list_root(self, root: Path, finder: ImageFinder) -> list[str]:
        if root.is_dir():
            return finder.find(root / self.img_prefix)
        if not root.exists():
            raise FileNotFoundError(
                f"data_root {printable(root)} does not exist: give an existing folder, list file or COCO json "
                "(tools/train.py --data-root PATH)"
            )
        if not root.is_file():
            raise ValueError(f"data_root {printable(root)} is a pipe, socket or device: give a file")
        suffix = root.suffix.lower()
        if suffix == ".json":
            return self._list_coco(root)
        if suffix in (".txt", ".lst"):
            return self._list_file(root)
        raise ValueError(f"data_root {printable(root)} is neither a folder nor a .txt list nor a COCO .json")

    def _list_file(self, root: Path) -> list[str]:
        folder = str(Path(self.img_prefix) if self.img_prefix else root.parent)
        paths, form = read_list(root, folder)
        if form:
            self.notices.append(f"{printable(root)}: {form}")
        return self._present(
            paths,
            root,
            "relative paths count from the list's folder, or from data_prefix=dict(img_path=FOLDER)",
        )

    def _present(self, paths: list[str], root: Path, remedy: str) -> list[str]:
        paths, notice = drop_missing(paths, root, max_missing=self.max_missing, remedy=remedy)
        self.notices += [notice] if notice else []
        return paths

    def _list_coco(self, root: Path) -> list[str]:
        try:
            images = json.loads(read_text(root))["images"]
            names = [image["file_name"] for image in images]
            if wrong := [repr(name) for name in names if not isinstance(name, str)]:
                raise TypeError(f"file_name must be text, got {wrong[0]}: put it in quotes")
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{printable(root)} is not a COCO json: it needs images[].file_name ({error})") from error
        paths = find_coco_images(root, names, self.img_prefix)
        return self._present(paths, root, "complete their folder, or set data_prefix=dict(img_path=FOLDER)")
