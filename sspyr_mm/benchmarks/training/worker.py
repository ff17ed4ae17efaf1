"""One training run in a process of its own: ``python -m sspyr_mm.benchmarks.training.worker CONFIG``.

Trains the config, going on where an earlier process was stopped, and leaves the metrics of the last epoch in
``metrics.json`` of its work dir. With ``--launcher pytorch``, under torchrun, on several devices.
"""

import argparse
import math
import os
import re
import threading
import time
from pathlib import Path

from mmengine.config import Config
from mmengine.dist import is_main_process
from mmengine.runner import Runner

import sspyr_mm.registration  # noqa: F401
from sspyr_mm.engine.config import fill_dataloaders
from sspyr_mm.engine.cpu import prepare_config
from sspyr_mm.engine.hooks import DivergenceError, DivergenceHook
from sspyr_mm.evaluation.multi_label_report import MultiLabelReport
from sspyr_mm.files import write_json

__all__ = ["METRICS_FILE", "NOTHING_FOUND", "STARTED_BY", "main"]

METRICS_FILE = "metrics.json"
NOTHING_FOUND = "nothing_found"
"""What stands in place of all metrics where an evaluator was given no object at all."""
STARTED_BY = "SSPYR_MM_STARTED_BY"
"""Environment variable with the process that wants the metrics."""


def main(arguments: list[str] | None = None) -> None:
    """Trains and measures.

    Args:
        arguments: Of the command line.
    """
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("config")
    parser.add_argument("--launcher", choices=["none", "pytorch"], default="none")
    args = parser.parse_args(arguments)
    if STARTED_BY in os.environ:
        threading.Thread(target=_end_with, args=[int(os.environ[STARTED_BY])], daemon=True).start()
    # As it is: a class or folder may be called {{ anything }}.
    cfg = Config.fromfile(args.config, use_predefined_variables=False)
    cfg.launcher = args.launcher
    cfg.resume = True
    if os.environ.get("RANK", "0") == "0":
        _forget_lost_checkpoint(cfg.work_dir)
    # Measured below, once: a process that is stopped after the last checkpoint would never measure.
    loop = cfg.train_cfg
    loop.val_begin = 1 + (loop.max_epochs if "max_epochs" in loop else loop.max_iters)
    fill_dataloaders(cfg)
    runner = Runner.from_cfg(prepare_config(cfg, args.launcher))
    if not any(isinstance(hook, DivergenceHook) for hook in runner.hooks):
        runner.register_hook(DivergenceHook())
    try:
        runner.train()
        # mmdet's COCO metric has no figures for a network that finds nothing.
        metrics = runner.val_loop.run() or {NOTHING_FOUND: 0.0}
    except DivergenceError as error:
        if not (isinstance(cfg.val_evaluator, dict) and cfg.val_evaluator.get("diverged_as_nan")):
            raise
        runner.logger.warning(str(error))
        metrics = {f"{MultiLabelReport.default_prefix}/mAP": math.nan}
    if is_main_process():
        figures = {name: float(value) for name, value in metrics.items()}
        write_json(os.path.join(cfg.work_dir, METRICS_FILE), figures)


def _end_with(parent: int) -> None:
    """Ends this process when another is gone: the same command, given again, is to go on in its place."""
    is_child = os.getppid() == parent  # else torchrun is in between
    while True:
        time.sleep(1)
        try:
            os.kill(parent, 0)
            gone = is_child and os.getppid() != parent  # also one that nobody has waited for yet
        except ProcessLookupError:
            gone = True
        except PermissionError:  # somebody else's: it is there
            gone = False
        if gone:
            os._exit(1)


def _forget_lost_checkpoint(work_dir: str) -> None:
    """A kill while mmengine writes down which checkpoint is the last leaves an empty note: take the last there is."""
    note = Path(work_dir, "last_checkpoint")
    if note.exists() and not Path(note.read_text().strip() or "/").is_file():
        found = [p for p in Path(work_dir).glob("*.pth") if re.fullmatch(r"(epoch|iter)_\d+", p.stem)]
        found.sort(key=lambda p: int(p.stem.partition("_")[2]))
        # The newest may be half written: with several, the one before is whole.
        if len(found) > 1:
            note.write_text(str(found[-2]))
        else:
            note.unlink()


if __name__ == "__main__":
    main()
