"""Measures the health of pre-training and reports what goes wrong, without labels."""

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.runner import Runner
from mmpretrain.registry import HOOKS
from torch import Tensor
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

from sspyr_mm.engine.hooks.model_access import images_per_iteration, model_of, optim_wrappers
from sspyr_mm.files import write_json
from sspyr_mm.health import (
    FEATURES,
    HEALTH_FILE,
    GroupHealth,
    describe,
    format_table,
    judge,
    measure_features,
    measure_group,
    record,
    start_recording,
    stop_recording,
)
from sspyr_mm.models import ViewModel

_GRADIENTS, _STEP = "gradients", "step"
_Lines = Mapping[str, Mapping[str, float]]
_Verdicts = Mapping[str, tuple[str, str]]


@HOOKS.register_module()
class HealthHook(Hook):
    """Measures a step every few iterations, and warns when a sign of failure persists.

    Per group of patches (a scale, or a term of contrast): loss over its value for equal embeddings, used prototypes,
    entropy of codes, deviation and effective rank of embeddings, similarity of the two views, information about the
    position of a patch, fill of the queue. Of the backbone: contrast of its input, rank and
    deviation of the features of images, and of the cells of their maps. Of the step: norm of the gradients, learning
    rate, images per second, share of waiting for data.

    All visualisation backends of the run receive them as ``health/GROUP/MEASURE``. The log gets a table with a verdict
    per line: fine; early, before ``patience`` iterations; watch, if a sign of failure shows (see :mod:`.verdicts`);
    broken, if it has shown for ``patience`` iterations, which is also logged as a warning with cause and remedy.

    The main process measures its own share of the batch. The tensors are those of the training step; a measurement
    waits for the device.

    Args:
        interval: Iterations between measurements.
        patience: Iterations for which a sign must show before it is reported.
        table_interval: Iterations between tables in the log; each shows the next measurement. The last measurement is
            shown at the end of training.

    Raises:
        ValueError: If one of them is less than 1.
    """

    def __init__(self, interval: int = 50, patience: int = 500, table_interval: int = 500) -> None:
        for name, value in (("interval", interval), ("patience", patience), ("table_interval", table_interval)):
            if value < 1:
                raise ValueError(f"{name} must be >= 1, got {value}")
        self.interval, self.patience, self.table_interval = interval, patience, table_interval
        self._groups: dict[str, GroupHealth] = {}
        self._since: dict[str, tuple[str, int]] = {}  # per line of the table, its sign and the iteration before it
        self._warned: dict[str, int] = {}  # iteration of the last warning
        self._handles: list[RemovableHandle] = []
        self._recording = False
        self._unshown: tuple[int, _Lines, _Verdicts] | None = None

    def before_train(self, runner: Runner) -> None:
        """Attaches to the optimizer."""
        self.after_run(runner)
        if is_main_process():
            for wrapper in optim_wrappers(runner):
                self._handles.append(wrapper.optimizer.register_step_pre_hook(self._record_gradients))

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        """Starts to keep the tensors of the step, if it is to be measured."""
        self._recording = is_main_process() and self.every_n_train_iters(runner, self.interval)
        if self._recording:
            start_recording()

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        """Measures, judges and logs."""
        if not self._recording:
            return
        self._recording = False
        lines = self._measure(runner, stop_recording(), outputs or {})
        runner.visualizer.add_scalars(
            {f"health/{line}/{name}": value for line, values in lines.items() for name, value in values.items()},
            step=runner.iter + 1,
        )
        known = {line: {**values, **self._sizes(runner, line)} for line, values in lines.items()}
        verdicts = {line: self._verdict(runner, line, values) for line, values in known.items()}
        now = runner.iter + 1
        self._unshown = now, known, verdicts
        if now // self.table_interval > (now - self.interval) // self.table_interval:
            self._write_table(runner)

    def after_train(self, runner: Runner) -> None:
        """Shows the last measurement."""
        self._write_table(runner)

    def _write_table(self, runner: Runner) -> None:
        """Writes the last verdicts to the log, and to ``health.json`` in the work dir with what helps."""
        if self._unshown is None:
            return
        now, measures, verdicts = self._unshown
        self._unshown = None
        texts = {line: verdict for line, (verdict, _) in verdicts.items()}
        runner.logger.info("\n".join([f"Health at iteration {now}:", *format_table(measures, texts)]))
        lines = {
            line: {"verdict": verdict, "advice": advice, "measures": dict(measures[line])}
            for line, (verdict, advice) in verdicts.items()
        }
        with suppress(OSError):  # a full disk does not end training
            write_json(Path(runner.work_dir, HEALTH_FILE), {"iteration": now, "lines": lines})

    def after_run(self, runner: Runner) -> None:
        """Detaches from the optimizer; also called when training fails."""
        stop_recording()
        while self._handles:
            self._handles.pop().remove()

    @torch.no_grad()
    def _record_gradients(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        if self._recording:
            gradients = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
            if gradients:
                record(_GRADIENTS, torch.stack(torch._foreach_norm(gradients)).norm())

    def _measure(
        self, runner: Runner, found: dict[str, Tensor], outputs: Mapping[str, Tensor]
    ) -> dict[str, dict[str, float]]:
        """Returns all measures by line of the table; the host waits for the device once."""
        model: ViewModel = model_of(runner)
        values: dict[str, dict[str, Any]] = {}
        for name, embeddings in found.items():
            kind, _, group_name = name.partition(".")
            if kind != "embeddings":
                continue
            group = self._groups.setdefault(group_name, GroupHealth(group_name, model.num_cells(group_name)))
            measure_group(group, embeddings, found.get(f"codes.{group_name}"))
            values[group_name] = dict(group.values)
            queue = model.queue_of(group_name)
            if queue is not None:
                values[group_name]["queue"] = (queue.count / queue.length).clamp(max=1)
        for name, value in outputs.items():
            if "_ratio_" in name:
                values.setdefault(name.partition("_ratio_")[2], {})["ratio"] = value.detach()
        if "maps" in found:
            values[FEATURES] = dict(measure_features(found["patches"], found["maps"]))
        values[_STEP] = {"gradient_norm": found[_GRADIENTS]} if _GRADIENTS in found else {}
        tensors = [tensor.float() for line in values.values() for tensor in line.values()]
        numbers = iter(torch.stack(tensors).tolist() if tensors else ())
        lines = {line: {name: next(numbers) for name in given} for line, given in values.items()}
        for name in ("lr", "images_per_s", "data_wait"):
            if f"train/{name}" in runner.message_hub.log_scalars:
                lines[_STEP][name] = runner.message_hub.get_scalar(f"train/{name}").current()
        return lines

    def _sizes(self, runner: Runner, line: str) -> dict[str, float]:
        """Returns the sizes that verdicts on a group need."""
        group = self._groups.get(line)
        if group is None:
            return {}
        model: ViewModel = model_of(runner)
        sizes: dict[str, float] = group.sizes
        if (queue := model.queue_of(line)) is not None:
            rows = images_per_iteration(runner) * model.queued_per_image(line)
            sizes |= {"queue_steps": queue.length / rows, "epoch_steps": len(runner.train_dataloader)}
        return sizes

    def _verdict(self, runner: Runner, line: str, values: Mapping[str, float]) -> tuple[str, str]:
        """Returns the verdict on a line of the table, and what helps; warns about a sign that persists."""
        model: ViewModel = model_of(runner)
        advice: str | None = model.head.stuck_advice(line) if "ratio" in values else None
        finding, now = judge(values, advice), runner.iter + 1
        if finding is None:
            self._since.pop(line, None)
            return "fine" if now >= self.patience else "early", ""
        sign, since = self._since.get(line, (None, 0))
        if sign != finding.sign:
            since = max(0, now - self.interval)
            self._since[line] = (finding.sign, since)
            self._warned.pop(line, None)
        if now - since < self.patience:
            return (f"watch, {finding.sign}", finding.advice) if now >= self.patience else ("early", "")
        if now - self._warned.get(line, since) >= self.patience:
            self._warned[line] = now
            runner.logger.warning(
                f"Health of {line}: {finding.sign} for {now - since} iterations ({describe(values)}): {finding.advice}."
            )
        return f"broken, {finding.sign}", finding.advice
