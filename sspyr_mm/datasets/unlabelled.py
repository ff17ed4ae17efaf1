"""Unlabelled images from folders, list files and COCO annotation files."""

import os
import pickle
import random
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

import mmengine.fileio as fileio
import numpy as np
from mmengine.dataset import BaseDataset
from mmpretrain.registry import DATASETS

from sspyr_mm.datasets.finding import ImageFinder, drop_missing, read_list
from sspyr_mm.datasets.finding.list_files import is_url
from sspyr_mm.datasets.names import find_coco_images
from sspyr_mm.datasets.streaming.shards import is_packed
from sspyr_mm.datasets.streaming.streamed import StreamedImages
from sspyr_mm.datasets.text import MAX_LINE, line_with, read_json
from sspyr_mm.datasets.transforms.decoding import UnreadableImageError
from sspyr_mm.datasets.transforms.loading import LoadRGBImage
from sspyr_mm.datasets.transforms.pixel_values import flatness
from sspyr_mm.files import printable

_NUM_SAMPLED = 16
_ALARMING = 0.25
"""Share of sampled images without content above which they are reported."""
_ENLARGED = 2
"""Enlargement of whole images to the largest region above which it is reported; crops are enlarged more."""


@DATASETS.register_module()
class UnlabelledImages(BaseDataset):
    """All images of one or several folders, list files or COCO annotation files.

    Args:
        data_root: One path or several: a folder, searched recursively; a ``.txt`` or ``.lst`` file with one path per
            line (relative to the folder of the file; ``#`` starts a comment); a COCO ``.json``, whose images are
            searched in ``data_prefix['img_path']``, else next to the json and in the folders of its parent.
        data_prefix: ``dict(img_path=...)``: folder of the images of a list or json; for folders, a sub-folder.
        pipeline: Transforms.
        suffixes: File extensions of images, in any case; default: all readable formats, detected by extension, and by
            content where the extension is unknown.
        max_missing: Share of the images of a list or json that may be missing, 0 to 1; missing images are skipped.
        max_refetch: Number of replacements that are tried for an unreadable image before an error is raised.
        **kwargs: Arguments of mmengine's ``BaseDataset``.

    Attributes:
        notices: Lines about skipped files and missing images; :class:`DataCheckHook` logs them.

    Raises:
        FileNotFoundError: If a path does not exist, or too many images of a list or json do not.
        PermissionError: If a folder cannot be read.
        ValueError: If no images are found; the message lists the places that were searched.
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
        super().__init__("", data_root="", data_prefix={}, pipeline=list(pipeline), max_refetch=max_refetch, **kwargs)

    def list_images(self) -> list[str]:
        """Returns the paths of the images, in the same order on every machine."""
        self.notices = []
        finder = ImageFinder(self.suffixes)
        paths = [path for root in self.roots for path in self._list_root(root, finder)]
        skipped = finder.notice(len(paths))
        self.notices += [skipped] if skipped else []
        if paths:
            return paths
        if any(is_packed(str(root)) for root in self.roots):
            raise ValueError(
                f"{self._places} contains packed shards: pass it to tools/train.py --data-root, or set "
                "train_dataloader.dataset.type=StreamedImages and train_dataloader.sampler=None; other commands need "
                "the folder of images that was packed"
            )
        raise ValueError(
            f"No images in {self._places}, also in sub-folders ({skipped or 'no other files either'}). Set data_root "
            "to a folder of images, a list file (.txt) or a COCO json (tools/train.py --data-root)"
        )

    @property
    def _places(self) -> str:
        return ", ".join(map(printable, self.roots))

    def load_data_list(self) -> list[dict[str, str]]:
        """Returns one dict with ``img_path`` per image."""
        return [{"img_path": path} for path in self.list_images()]

    def full_init(self) -> None:
        """Serialises the images into mmengine's buffer one by one, without its dict and array per image in memory."""
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
        """Loads an image through the pipeline, and replaces an unreadable image by another one.

        The replacement depends only on ``idx``, not on NumPy's global generator as in mmengine, so that it is the same
        for any number of workers and after a restart. It keeps the ``sample_idx`` of the unreadable image, so that its
        views differ from those at its own index. Raises UnreadableImageError if ``max_refetch`` replacements cannot be
        read either.
        """
        # Negative indices count from the end; an index out of range raises IndexError.
        idx = range(len(self))[idx]
        info, rng = self.get_data_info(idx), random.Random(idx)
        for _ in range(1 + self.max_refetch):
            data = self.pipeline({**info, "sample_idx": idx})
            if data is not None:
                return data
            info = self.get_data_info(int(rng.random() * len(self)))
        raise UnreadableImageError(
            f"Image {idx} of {self._places} and {self.max_refetch} replacements cannot be read: see 'Skipped ...' "
            "above; remove or repair these files, or set another data_root"
        )

    def _list_root(self, root: Path, finder: ImageFinder) -> list[str]:
        if os.path.isdir(root):  # not Path.is_dir, which raises PermissionError
            return finder.find(root / self.img_prefix)
        if not os.path.exists(root):
            raise FileNotFoundError(
                f"data_root {printable(root)} does not exist: give an existing folder, list file or COCO json, in a "
                "folder that this user may read (--data-root of tools/train.py, --images of other commands)."
            )
        suffix = root.suffix.lower() if os.path.isfile(root) else ""  # a pipe may never end
        if suffix == ".json":
            paths = self._list_coco(root)
            remedy = "add the missing files, or set data_prefix=dict(img_path=FOLDER)"
        elif suffix in (".txt", ".lst"):
            paths, form = read_list(root, str(Path(self.img_prefix) if self.img_prefix else root.parent))
            self.notices += [f"{printable(root)}: {form}"] if form else []
            remedy = "relative paths start at the folder of the list, or at data_prefix=dict(img_path=FOLDER)"
        else:
            raise ValueError(
                f"data_root {printable(root)} is neither a folder nor a regular file that is a .txt or .lst list or a "
                "COCO .json: give one of these"
            )
        self._check_urls(paths, root)
        paths, notice = drop_missing(paths, root, max_missing=self.max_missing, remedy=remedy)
        self.notices += [notice] if notice else []
        return paths

    def _list_coco(self, root: Path) -> list[str]:
        try:
            images = read_json(root)["images"]
            names = [image["file_name"] for image in images]
            for number, name in enumerate(names):
                if not isinstance(name, str):
                    raise TypeError(f"file_name must be text, got {name!r:.40}: put it in quotes")
                if not name or "\0" in name or len(name) > MAX_LINE:
                    raise ValueError(
                        f"images[{number}].file_name is no path: it is empty, contains a NUL byte, or has more than "
                        f"{MAX_LINE} characters"
                    )
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{printable(root)} is not a COCO json: it needs images[].file_name ({error})") from error
        return find_coco_images(root, names, self.img_prefix)

    def _check_urls(self, paths: list[str], source: Path) -> None:
        """Raises ValueError for a URL that the pipeline cannot read."""
        load = self._loader
        first = {path.partition("://")[0]: path for path in reversed(paths) if "://" in path and is_url(path)}
        for path in first.values():
            try:
                fileio.get_file_backend(path, backend_args=load.backend_args if load else None)
            except Exception as error:  # each backend raises its own: a missing package, an unknown prefix
                raise ValueError(
                    f"{line_with(source, path)}: {printable(path):.200} cannot be read ({_reason(error):.200}): "
                    "download the images, pack them (python -m sspyr_mm pack), or set backend_args of LoadRGBImage in "
                    "train_dataloader.dataset.pipeline"
                ) from error

    @property
    def _loader(self) -> LoadRGBImage | None:
        return next((step for step in self.pipeline.transforms if isinstance(step, LoadRGBImage)), None)


def data_notices(dataset: Any, region: int = 0) -> list[str]:
    """Returns lines about skipped files, missing images, and images that are constant, nearly black or small.

    Only :class:`UnlabelledImages`, of which a sample is loaded, and :class:`StreamedImages` have notices.

    Args:
        dataset: Data set of training.
        region: Side in pixels of the largest region that the views crop.
    """
    notices = list(dataset.notices) if isinstance(dataset, (UnlabelledImages, StreamedImages)) else []
    load = dataset._loader if isinstance(dataset, UnlabelledImages) else None
    if load is None:
        return notices
    found: list[str] = []
    sides: list[int] = []
    for index in range(0, len(dataset), max(1, len(dataset) // _NUM_SAMPLED)):
        path = dataset.get_data_info(index)["img_path"]
        image = load.peek(path)
        if image is not None:
            sides.append(min(image.shape[:2]))
            found += [f"{printable(path)} is {kind}"] if (kind := flatness(image)) else []
    if len(found) > _ALARMING * len(sides):
        notices.append(
            f"{len(found)} of {len(sides)} sampled images are constant or nearly black, such as {found[0]}: training "
            "learns nothing from them. Check the files; if they have more than 8 bits per channel, set "
            "value_range=(LOW, HIGH) of LoadRGBImage in train_dataloader.dataset.pipeline"
        )
    if sides and _ENLARGED * (side := median(sides)) < region:
        notices.append(
            f"The sampled images are {side:.0f} px on their shorter side (median), and the largest regions {region} "
            f"px: crops are enlarged more than {_ENLARGED} times, and show no detail. Use larger images, or the "
            "regions and patches of a config for small images (configs/*/*_small*.py)"
        )
    return notices


def _reason(error: Exception) -> str:
    return printable((str(error) or type(error).__name__).splitlines()[0])
