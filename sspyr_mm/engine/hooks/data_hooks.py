"""Hooks on the training data: the model's pyramid, the views' seed, and where an interrupted epoch goes on."""

from collections.abc import Iterator
from typing import Any

from mmengine.hooks import Hook
from mmengine.runner import IterBasedTrainLoop, Runner
from mmpretrain.registry import HOOKS

from sspyr_mm.engine.hooks.model_access import model_of

_EPOCH_START = "ssprl_epoch_start"
"""Key in the message hub, which is part of the checkpoint: (epoch, iteration it began at)."""


@HOOKS.register_module()
class PyramidLinkHook(Hook):
    """Hands the model's pyramid to the transforms that cut it, so that a config states it once."""

    def before_train(self, runner: Runner) -> None:
        """Hands it over, before any worker is started."""
        for transform in _transforms_with("set_pyramid", runner.train_dataloader.dataset):
            transform.set_pyramid(model_of(runner).pyramid)


@HOOKS.register_module()
class ViewSeedHook(Hook):
    """Tells every transform with ``set_epoch(epoch, seed=...)`` the epoch, and resumes within one.

    With it a run that is stopped and resumed sees exactly what an uninterrupted one sees. Needs ``ResumableSampler``
    to leave out what an interrupted epoch has already seen.
    """

    # After mmengine's DistSamplerSeedHook (NORMAL), which sets the sampler's epoch.
    priority = "LOW"

    def before_train(self, runner: Runner) -> None:
        """Checks that there are epochs.

        Raises:
            ValueError: If the loop counts iterations: hooks are told of its first epoch only.
        """
        if isinstance(runner.train_loop, IterBasedTrainLoop):
            raise ValueError(
                "ViewSeedHook needs epochs, and every one of an IterBasedTrainLoop would show the same views: set "
                "train_cfg=dict(by_epoch=True, max_epochs=N)"
            )

    def before_train_epoch(self, runner: Runner) -> None:
        """Sets the epoch and skips."""
        loader = runner.train_dataloader
        if hasattr(
            loader.sampler, "seed"
        ):  # a checkpoint brings its own, after the sampler was made
            loader.sampler.seed = runner.seed
        for transform in _transforms_with("set_epoch", loader.dataset):
            transform.set_epoch(runner.epoch, seed=runner.seed)
        started = tuple(runner.message_hub.runtime_info.get(_EPOCH_START, (-1, 0)))
        if started[0] == runner.epoch and (done := runner.iter - started[1]) > 0:
            if not hasattr(loader.sampler, "skip"):
                raise TypeError(
                    f"Resuming within an epoch needs ResumableSampler, got {type(loader.sampler).__name__}: set "
                    "train_dataloader.sampler.type to it, or resume from an epoch_N.pth"
                )
            loader.sampler.skip(done * loader.batch_size)
            runner.logger.info(
                f"Epoch {runner.epoch + 1} goes on after iteration {done} of {len(loader)}."
            )
        else:
            runner.message_hub.update_info(_EPOCH_START, (runner.epoch, runner.iter))


def _transforms_with(method: str, dataset: Any) -> Iterator[Any]:
    """Transforms of a data set, also of those that wrap others, that have a method."""
    for inner in [*getattr(dataset, "datasets", []), getattr(dataset, "dataset", None)]:
        if inner is not None:
            yield from _transforms_with(method, inner)
    for transform in getattr(getattr(dataset, "pipeline", None), "transforms", []):
        if hasattr(transform, method):
            yield transform
