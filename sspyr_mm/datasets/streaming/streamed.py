"""Images without labels out of packed shards, from a disk, a file server or an object store."""

import ast
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from mmengine.dataset import Compose
from mmpretrain.registry import DATASETS
from torch.utils.data import IterableDataset

from sspyr_mm.datasets.streaming.litdata_patches import http_allowed, import_litdata, worker_place
from sspyr_mm.datasets.streaming.shards import INDEX, is_url
from sspyr_mm.datasets.transforms.decode_problems import UnreadableImageError


@DATASETS.register_module()
class StreamedImages(IterableDataset):
    """Shards that ``python -m sspyr_mm pack`` made, read one after another while the next ones are fetched.

    What is read, cached and thrown away again is the business of `litdata`; what an image's views are drawn from is the
    same as for files: seed, epoch and the image's index. Needs a loader without a sampler (``sampler=None``), with
    ``drop_last=True``, and :class:`ViewSeedHook`, which calls :meth:`start_epoch`.

    Every process trains on N // processes images an epoch, every one at most once; what is left over changes with the
    epoch. Images of a shard come near to each other: packing mixes them first.

    Args:
        data_root: A folder of shards, or a URL: ``s3://``, ``gs://``, ``azure://``, ``r2://``; ``local:/mnt/slow``
            copies the shards of a slow file server to ``cache_dir``, too.
        pipeline: Transforms.
        shuffle: Whether shards, and images within them, come in an order of their own each epoch.
        cache_dir: Where shards of a URL are kept; default: litdata's.
        max_cache_size: What they may take there, e.g. ``"200GB"``; default: 75 % of what is free.
        storage_options: Of the object store, e.g. ``dict(endpoint_url=...)``; keys are better left in its environment.

    Raises:
        ImportError: If litdata is not installed.
        FileNotFoundError: If there are no shards at ``data_root``.
        ValueError: If ``storage_options`` are no dict, nor the text of one.
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
    ) -> None:
        self.data_root = str(data_root)
        self.pipeline = Compose(list(pipeline))
        self._storage_options = _as_options(storage_options)
        self._stream = _open(
            self.data_root,
            shuffle=shuffle,
            cache_dir=cache_dir,
            max_cache_size=max_cache_size,
            storage_options=self._storage_options,
            drop_last=True,
        )
        self._length = self._stream.get_len(1, 1)
        self.num_images = len(self._stream.shuffler.cache)
        """Of all processes; ``len()`` counts those of this one."""
        # (epoch, first worker), in shared memory: workers that outlive an epoch see what the main process sets.
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
        """Chooses the epoch's order, and where in it to begin; called before every epoch.

        Continues exactly where as many processes and workers go on. Where their number changes, and not the images of
        an iteration over all processes, litdata deals what is left of the epoch anew: no image comes twice, less than
        one batch per worker is left out.

        Args:
            epoch: From 0.
            seed: The run's, the same on every rank.
            batch_size: Images of a process and iteration.
            num_workers: Of the loader.
            done: Iterations of this epoch that an interrupted run has behind it.
            begun: What this method returned when the epoch was begun.

        Returns:
            What the checkpoint must keep for the epoch to be continued.
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
                state |= _deal_anew(begun, done)
            else:
                first_worker = done % layout["num_workers"]
            stream.load_state_dict(state)
        self._clock.copy_(torch.tensor([epoch, first_worker]))
        return begun

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """The images of this worker; another one takes the place of one that cannot be read, with views of its own.

        Raises:
            UnreadableImageError: If none can be read.
        """
        with http_allowed(self._storage_options):
            yield from self._images()

    def _images(self) -> Iterator[dict[str, Any]]:
        self._set_clock()
        missing: list[int] = []
        readable: dict[str, Any] = {}
        for item in self._stream:
            results = _results(item)
            missing.append(results["sample_idx"])
            while missing:
                data = self.pipeline({**results, "sample_idx": missing[-1]})
                if data is None:
                    break
                readable = results
                missing.pop()
                yield data
        if missing and not readable:
            raise UnreadableImageError(
                f"None of the {len(missing)} image(s) of a worker can be read: see 'Left out ...' above; pack "
                f"{self.data_root} again from whole files (python -m sspyr_mm pack)"
            )
        for index in missing:  # no next one takes the place of the last ones
            yield self.pipeline({**readable, "sample_idx": index})

    def _set_clock(self) -> None:
        """Takes over what :meth:`start_epoch` said, which a worker made before it was said knows by the clock alone."""
        epoch, first_worker = self._clock.tolist()
        if epoch < 0:
            return
        stream = self._stream
        if stream.current_epoch != epoch + 1:
            stream.reset_state_dict()
            stream.current_epoch = epoch + 1
        info = torch.utils.data.get_worker_info()
        # A loader begins with its worker 0, also where it was worker 1's turn.
        stream._forced_worker_env = None
        if first_worker and info is not None:
            rank = (info.id + first_worker) % info.num_workers
            stream._forced_worker_env = worker_place(info.num_workers, rank)


def _as_options(given: Mapping[str, Any] | str | None) -> dict[str, Any]:
    """A command line hands a dict over as Python's text of it; JSON reads the same where values are strings."""
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


def _deal_anew(begun: Mapping[str, Any], done: int) -> dict[str, Any]:
    """State of a litdata stream whose remaining images are dealt to other workers than those it was begun with."""
    world_size, batch_size = begun["world_size"], begun["batch_size"]
    return {
        "world_size": world_size,
        "num_workers": begun["num_workers"],
        "batch_size": batch_size,
        "initial_world_size": world_size,
        "initial_num_nodes": begun["num_nodes"],
        "initial_num_workers": begun["num_workers"],
        "initial_batch_size": batch_size,
        "num_canonical_nodes": world_size,
        "num_samples_yielded": 0,
        "sample_in_epoch": done * batch_size * world_size,
        "resume_mode": "elastic",
    }


def _results(item: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "img_bytes": bytes(item["image"]),
        "img_path": item["name"],
        "sample_idx": int(item["index"]),
    }


def _open(data_root: str, **options: Any) -> Any:
    if not is_url(data_root) and not (Path(data_root).expanduser() / INDEX).is_file():
        raise FileNotFoundError(
            f"{data_root} holds no shards (no {INDEX}, which is written last): give a folder or URL that "
            "`python -m sspyr_mm pack IMAGES OUT` made, or UnlabelledImages for a folder of images"
        )
    litdata = import_litdata()
    root = data_root if is_url(data_root) else str(Path(data_root).expanduser())
    try:
        with http_allowed(options["storage_options"]):
            return litdata.StreamingDataset(root, **options)
    except Exception as error:  # each store has errors of its own
        raise FileNotFoundError(
            f"No shards can be read at {data_root} ({type(error).__name__}: {error}): check the URL, the store's keys "
            "in the environment, and that packing ended"
        ) from error
