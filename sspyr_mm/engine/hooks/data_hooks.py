"""Hooks on the training data: views, random numbers, resuming within an epoch, and broken images."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.dist import all_gather_object, get_rank, is_main_process
from mmengine.hooks import Hook
from mmengine.runner import IterBasedTrainLoop, Runner
from mmpretrain.registry import HOOKS

from sspyr_mm.datasets.broken import Broken, read_appended
from sspyr_mm.datasets.link import inner_datasets, record_broken, set_views, start_epoch
from sspyr_mm.datasets.transforms.decoding import UnreadableImageError
from sspyr_mm.engine.hooks.data_check_hook import count_images
from sspyr_mm.engine.hooks.model_access import is_line_due, model_of
from sspyr_mm.files import printable

_EPOCH_START = "ssprl_epoch_start"
"""Key in the message hub, which is part of the checkpoint: (epoch, iteration it began at)."""

_STREAM = "ssprl_stream"
"""Key in the message hub: state of a streamed data set, for resuming within an epoch."""


@HOOKS.register_module()
class PyramidLinkHook(Hook):
    """Sets the model's views in the transforms that use them, so that a config states them once."""

    def before_train(self, runner: Runner) -> None:
        """Sets the views before any worker is started."""
        set_views(runner.train_dataloader.dataset, model_of(runner).views)


@HOOKS.register_module()
class ViewSeedHook(Hook):
    """Derives random numbers from seed, epoch and iteration, and resumes within an epoch.

    Transforms derive theirs from :class:`SampleSeed`; the network's own (drop path, dropout) come from torch's
    generator, which is seeded before every iteration. So a run that is stopped and resumed equals an
    uninterrupted one. Needs ``ResumableSampler`` to skip the images that an interrupted epoch has already seen.
    """

    # After mmengine's DistSamplerSeedHook (NORMAL), which sets the sampler's epoch.
    priority = "LOW"

    def before_train(self, runner: Runner) -> None:
        """Raises ValueError if the loop counts iterations or the data set wraps others.

        A loop of iterations calls hooks for its first epoch only; the views of an image depend on its index, which
        repeats in wrapped data sets.
        """
        if isinstance(runner.train_loop, IterBasedTrainLoop):
            raise ValueError(
                "ViewSeedHook needs epochs; all epochs of an IterBasedTrainLoop would show the same views: set "
                "train_cfg=dict(by_epoch=True, max_epochs=N)"
            )
        if inner_datasets(dataset := runner.train_dataloader.dataset):
            raise ValueError(
                f"ViewSeedHook needs one data set, got {type(dataset).__name__}, in which images with the same index "
                "would get the same views: give UnlabelledImages several paths, data_root=[A, B], and in place of "
                "repeats train_cfg.max_epochs=N times as many"
            )

    def before_train_epoch(self, runner: Runner) -> None:
        """Sets the epoch and skips finished iterations."""
        loader, hub = runner.train_dataloader, runner.message_hub
        started = tuple(hub.runtime_info.get(_EPOCH_START, (-1, 0)))
        done = max(0, runner.iter - started[1]) if started[0] == runner.epoch else 0
        begun = hub.runtime_info.get(_STREAM) if done else None
        begun = start_epoch(loader, runner.epoch, seed=_run_seed(runner), done=done, begun=begun)
        if begun is not None:
            hub.update_info(_STREAM, begun)
        if done:
            runner.logger.info(
                f"Epoch {runner.epoch + 1} continues after iteration {done} of {len(loader)}; its log counts the "
                f"remaining {len(loader) - done} from 1."
            )
        else:
            hub.update_info(_EPOCH_START, (runner.epoch, runner.iter))

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        """Seeds torch, differently on each rank: checkpoints do not contain generators."""
        entropy = np.random.SeedSequence((_run_seed(runner), get_rank(), runner.iter))
        torch.manual_seed(int(entropy.generate_state(1, np.uint64)[0]))


@HOOKS.register_module()
class BrokenImagesHook(Hook):
    """Lists the broken images of a run in ``broken_images.txt`` of its work dir, and stops it if there are too many.

    A line has the path and the reason, separated by a tab; a damaged shard counts as its images. The processes of a
    run write one list, in which an image appears once, also after a resume. They exchange what is new, and stop
    together, when a log line is due.

    Args:
        max_share: Share of the images, 0 to 1, above which the run stops. Images that an earlier part of a resumed run
            has met count once they are met again: they may have been repaired.
        min_images: Number of broken images, >= 1, below which the run does not stop.

    Raises:
        ValueError: If an argument is out of range.
    """

    def __init__(self, max_share: float = 0.01, min_images: int = 3) -> None:
        if not 0 <= max_share <= 1 or min_images < 1:
            raise ValueError(
                f"BrokenImagesHook needs max_share between 0 and 1 and min_images >= 1, got {max_share}, {min_images}"
            )
        self.max_share, self.min_images = max_share, min_images
        self._new, self._read = Path(), 0
        self._met: dict[str, Broken] = {}

    def before_train(self, runner: Runner) -> None:
        """Starts a new list, or continues that of the resumed run."""
        self._new, self._read, self._met = Path(runner.work_dir, f".broken_images.rank{get_rank()}"), 0, {}
        self._new.unlink(missing_ok=True)
        record_broken(runner.train_dataloader.dataset, self._new)
        if is_main_process() and runner.iter == 0:
            _list_of(runner).unlink(missing_ok=True)

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        """Updates the list if a log line is due; raises UnreadableImageError, on all ranks, if it is too long."""
        if not is_line_due(runner, batch_idx):
            return
        new, self._read = read_appended(self._new, self._read)
        found = {one.name: one for ranks in all_gather_object(new) for one in ranks if one.name not in self._met}
        if not found:
            return
        self._met |= found
        if is_main_process():
            _extend(_list_of(runner), found)
        count, total = sum(one.num_images for one in self._met.values()), count_images(runner.train_dataloader)
        text = f"{count} of {total} images ({count / total:.2%}) cannot be read; {_list_of(runner)} lists them"
        if count < self.min_images or count <= self.max_share * total:
            runner.logger.warning(f"{text}. Others are used instead.")
            return
        self._new.unlink(missing_ok=True)
        raise UnreadableImageError(
            f"{text}. That is more than {self.max_share:.2%}: repair or remove them and resume, or allow more "
            "(--cfg-options default_hooks.broken_images.max_share=SHARE)"
        )

    def after_run(self, runner: Runner) -> None:
        """Removes this rank's temporary file."""
        self._new.unlink(missing_ok=True)


def _list_of(runner: Runner) -> Path:
    return Path(runner.work_dir, "broken_images.txt")


def _extend(file: Path, found: dict[str, Broken]) -> None:
    """Adds the images that a list does not have yet."""
    known = {line.partition("\t")[0] for line in file.read_text("utf-8").splitlines()} if file.exists() else set()
    with open(file, "a", encoding="utf-8") as opened:
        opened.writelines(f"{one.name}\t{printable(one.reason)}\n" for one in found.values() if one.name not in known)


def _run_seed(runner: Runner) -> int:
    """Returns the run's seed, equal on all ranks; once a resumed run trains, it is the checkpoint's seed."""
    differs = (runner.cfg.get("randomness") or {}).get("diff_rank_seed", False)
    return runner.seed - get_rank() if differs else runner.seed
