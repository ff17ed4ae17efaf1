"""Unlabelled images from packed shards on a disk, a file server or an object store."""

import ast
import itertools
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from mmengine.dataset import Compose
from mmengine.logging import print_log
from mmpretrain.registry import DATASETS
from torch.utils.data import IterableDataset

from sspyr_mm.datasets.broken import Broken, BrokenRecord
from sspyr_mm.datasets.finding.waiting import Patience
from sspyr_mm.datasets.streaming.litdata_patches import http_allowed, import_litdata, worker_place
from sspyr_mm.datasets.streaming.shards import INDEX, is_url
from sspyr_mm.datasets.transforms.decoding import UnreadableImageError

if TYPE_CHECKING:
    from sspyr_mm.datasets.streaming.whole_shards import Packed

_WITHOUT_INDEX = 1 << 40
"""Added to the position of an image whose index is lost: views depend on the sum, which no other image has."""


@DATASETS.register_module()
class StreamedImages(IterableDataset):
    """Images of shards from ``python -m sspyr_mm pack``; the next shards are fetched while one is read.

    `litdata` reads, caches and evicts the shards. As for image files, views depend on the seed, the epoch and the index
    of the image. Requires a loader without a sampler (``sampler=None``), with ``drop_last=True``, and
    :class:`ViewSeedHook`, which calls :meth:`start_epoch`.

    With N images and P processes, each process trains on N // P images per epoch, each at most once; the remainder
    changes with the epoch. Images of a shard are read close together, so packing shuffles them first.

    Each shard is compared with its checksum when a process opens it first. A broken image, and each image of a damaged
    shard, is replaced by another one, which depends on its position alone.

    Args:
        data_root: Folder of shards, or a URL: ``s3://``, ``gs://``, ``azure://``, ``r2://``; ``local:/mnt/slow`` copies
            the shards of a slow file server to ``cache_dir``.
        pipeline: Transforms.
        shuffle: Whether to shuffle the shards, and the images within them, in each epoch.
        cache_dir: Cache folder for the shards of a URL; default: that of litdata.
        max_cache_size: Limit of the cache, e.g. ``"200GB"``; default: 75 % of the free space.
        storage_options: Options of the object store, e.g. ``dict(endpoint_url=...)``; access keys should be set in the
            environment instead.
        max_refetch: Number of replacements that are tried for an unreadable image before an error is raised.
        wait_s: Time to wait for a folder or store that is away, in seconds, >= 0.

    Attributes:
        notices: A line about shards without checksums; :class:`DataCheckHook` logs it.
        broken: Damaged shards that this process has met.

    Raises:
        ImportError: If litdata is not installed.
        FileNotFoundError: If no shards are found at ``data_root``.
        ValueError: If ``storage_options`` is neither a dict nor the text of one, or ``wait_s`` is negative.
    """

    metainfo: dict[str, Any] = {}

    def __init__(
        self,
        data_root: str,
        *,
        pipeline: Sequence[Any] = (),
        shuffle: bool = True,
        cache_dir: str | None = None,
        max_cache_size: str | None = None,
        storage_options: dict | str | None = None,
        max_refetch: int = 100,
        wait_s: float = 60.0,
    ) -> None:
        self.data_root = str(data_root)
        self.pipeline = Compose(list(pipeline))
        self.max_refetch = max_refetch
        self.broken = BrokenRecord()
        self._storage_options = _as_options(storage_options)
        import_litdata()
        from sspyr_mm.datasets.streaming.whole_shards import PyTreeLoader  # needs litdata, which is optional

        root = self.data_root if is_url(self.data_root) else str(Path(self.data_root).expanduser())
        self._loader = PyTreeLoader(root, Patience(wait_s))
        self._stream = _open(
            root,
            item_loader=self._loader,
            shuffle=shuffle,
            cache_dir=cache_dir,
            max_cache_size=max_cache_size,
            storage_options=self._storage_options,
            drop_last=True,
        )
        self._length = self._stream.get_len(1, 1)
        self.notices: list[str] = []
        if not self._loader.has_checksums:
            self.notices.append(
                f"{self.data_root} was packed without checksums: changed bytes in a shard are not detected. To add "
                "them, pack the images again (python -m sspyr_mm pack)"
            )
        #: Number of images of all processes; ``len()`` counts those of this process.
        self.num_images = len(self._stream.shuffler.cache)
        # (epoch, first worker), in shared memory, so that persistent workers see changes by the main process.
        self._clock = torch.full((2,), -1, dtype=torch.int64).share_memory_()

    def __len__(self) -> int:
        return self._length

    def start_epoch(
        self,
        epoch: int,
        *,
        seed: int,
        batch_size: int,
        num_workers: int,
        done: int = 0,
        begun: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        """Sets the order of an epoch and the start position in it; called before every epoch.

        With the same numbers of processes and workers, a resumed epoch continues exactly. If they change while the
        total batch size stays the same, litdata redistributes the rest of the epoch: no image is repeated, and less
        than one batch per worker is dropped.

        Args:
            epoch: Epoch, from 0.
            seed: Seed of the run, the same on every rank.
            batch_size: Number of images per process and iteration.
            num_workers: Number of workers of the loader.
            done: Number of iterations of this epoch that an interrupted run has finished.
            begun: Value that this method returned at the start of the epoch.

        Returns:
            State that a checkpoint must save to continue the epoch.
        """
        stream = self._stream
        layout = {
            "world_size": stream.distributed_env.world_size,
            "num_nodes": stream.distributed_env.num_nodes,
            "num_workers": max(1, num_workers),
            "batch_size": batch_size,
        }
        stream.reset_state_dict()
        stream.set_batch_size(batch_size)
        stream.set_num_workers(num_workers)
        stream.seed, stream.current_epoch = seed, epoch + 1
        first_worker, begun = 0, dict(begun or {**layout, "dealt_anew": False})
        if done:
            begun["dealt_anew"] |= any(begun[key] != value for key, value in layout.items())
            state = stream.state_dict(done * batch_size, layout["num_workers"], batch_size)
            if begun["dealt_anew"]:
                state |= _redistributed(begun, done)
            else:
                first_worker = done % layout["num_workers"]
            stream.load_state_dict(state)
        self._clock.copy_(torch.tensor([epoch, first_worker]))
        return begun

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Yields the images of this worker; an unreadable image is replaced by another one, with different views.

        Raises UnreadableImageError if no image can be read.
        """
        self._set_clock()
        with http_allowed(self._storage_options):
            try:
                self._loader.patiently(self._begin)
            except FileNotFoundError as error:
                raise UnreadableImageError(
                    f"{self.data_root} cannot be read ({error.strerror or error}), also after waiting (wait_s): make "
                    "it available again, then resume"
                ) from error
            self._loader.fetch_with(self._stream.cache._reader.config)
            for packed in iter(self._stream.__next__, None):
                yield self._load(packed)

    def _begin(self) -> None:
        self._loader.check_present()
        iter(self._stream)  # reads the index

    def _load(self, packed: "Packed") -> dict[str, Any]:
        index = packed.item["index"] if packed.item else _WITHOUT_INDEX + packed.position
        candidates = itertools.chain([packed], self._loader.alternatives(packed))
        for one in itertools.islice(candidates, 1 + self.max_refetch):
            if one.item is None:
                self._report(one.shard)
                continue
            results = {"img_bytes": bytes(one.item["image"]), "img_path": one.item["name"], "sample_idx": int(index)}
            if (data := self.pipeline(results)) is not None:
                return data
        raise UnreadableImageError(
            f"An image of {self.data_root} and {self.max_refetch} replacements cannot be read: see 'Skipped ...' "
            "above; pack the images again from intact files (python -m sspyr_mm pack)"
        )

    def _report(self, shard: int) -> None:
        name, problem = f"shard {self._loader.name(shard)}", self._loader.damaged[shard]
        if self.broken.add(Broken(name, problem, self._loader.count(shard))):
            print_log(
                f"Skipped {name} of {self.data_root}: it {problem}. Other images are used instead of its "
                f"{self._loader.count(shard)}; restore the file, or pack again.",
                "current",
                logging.WARNING,
            )

    def _set_clock(self) -> None:
        """Applies the epoch of :meth:`start_epoch`, which a worker started earlier knows only from the clock."""
        epoch, first_worker = self._clock.tolist()
        if epoch < 0:
            return
        stream = self._stream
        if stream.current_epoch != epoch + 1:
            stream.reset_state_dict()
            stream.current_epoch = epoch + 1
        info = torch.utils.data.get_worker_info()
        # A loader starts with worker 0, even if another worker would be next.
        stream._forced_worker_env = None
        if first_worker and info is not None:
            rank = (info.id + first_worker) % info.num_workers
            stream._forced_worker_env = worker_place(info.num_workers, rank)


def _as_options(given: Mapping[str, Any] | str | None) -> dict[str, Any]:
    """Returns options as a dict; a command line passes them as Python or JSON text."""
    found: object = given or {}
    if isinstance(given, str):
        try:
            found = ast.literal_eval(given)
        except (SyntaxError, ValueError):
            found = given
    if not isinstance(found, Mapping):
        raise ValueError(
            f"storage_options must be a dict such as {{'endpoint_url': 'https://...'}}, got {given!r}; on a command "
            "line: train_dataloader.dataset.storage_options.endpoint_url=https://..."
        )
    return dict(found)


def _redistributed(begun: Mapping[str, Any], done: int) -> dict[str, Any]:
    """Returns the state of a litdata stream that distributes its remaining images to other workers."""
    layout = {key: begun[key] for key in ("world_size", "num_workers", "batch_size")}
    return {
        **layout,
        **{f"initial_{key}": value for key, value in layout.items()},
        "initial_num_nodes": begun["num_nodes"],
        "num_canonical_nodes": begun["world_size"],
        "num_samples_yielded": 0,
        "sample_in_epoch": done * begun["batch_size"] * begun["world_size"],
        "resume_mode": "elastic",
    }


def _open(root: str, **options: Any) -> Any:
    if not is_url(root) and not os.path.isfile(os.path.join(root, INDEX)):
        raise FileNotFoundError(
            f"{root} contains no shards (no {INDEX}, which is written last): give a folder or URL written by "
            "`python -m sspyr_mm pack IMAGES OUT`, or use UnlabelledImages for a folder of images"
        )
    litdata = import_litdata()
    try:
        with http_allowed(options["storage_options"]):
            return litdata.StreamingDataset(root, **options)
    except Exception as error:  # each store has its own exception classes
        raise FileNotFoundError(
            f"No shards can be read at {root} ({type(error).__name__}: {error}): check the URL, the store's keys "
            "in the environment, and that packing has finished"
        ) from error
