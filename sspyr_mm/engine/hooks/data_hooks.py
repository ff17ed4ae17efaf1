"""Hooks on the training data: the model's views, the run's random numbers, and resuming within an epoch."""

from typing import Any

import numpy as np
import torch
from mmengine.dist import get_rank
from mmengine.hooks import Hook
from mmengine.runner import IterBasedTrainLoop, Runner
from mmpretrain.registry import HOOKS

from sspyr_mm.datasets.link import inner_datasets, set_views, start_epoch
from sspyr_mm.engine.hooks.model_access import model_of

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


def _run_seed(runner: Runner) -> int:
    """Returns the run's seed, equal on all ranks; once a resumed run trains, it is the checkpoint's seed."""
    differs = (runner.cfg.get("randomness") or {}).get("diff_rank_seed", False)
    return runner.seed - get_rank() if differs else runner.seed
