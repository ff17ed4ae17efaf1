"""One training run in its own process: ``python -m sspyr_mm.benchmarks.training.worker CONFIG``.

Trains the config, resuming an interrupted run, and writes the metrics of the last epoch to ``metrics.json`` in its work
dir. ``--launcher pytorch`` trains on several devices, under torchrun.
"""

import argparse
import math
import os
import threading

from mmengine.config import Config
from mmengine.dist import is_main_process

import sspyr_mm.registration  # noqa: F401
from sspyr_mm.engine.config import fill_dataloaders
from sspyr_mm.engine.cpu import prepare_config
from sspyr_mm.engine.hooks import DivergenceError, DivergenceHook
from sspyr_mm.engine.runner import TrainingRunner
from sspyr_mm.evaluation.multi_label_report import MultiLabelReport
from sspyr_mm.files import write_json
from sspyr_mm.machine import use_own_temporary_folder

METRICS_FILE = "metrics.json"
NOTHING_FOUND = "nothing_found"  # replaces all metrics if the network detects no object


def main(arguments: list[str] | None = None) -> None:
    """Trains and evaluates."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("config")
    parser.add_argument("--launcher", choices=["none", "pytorch"], default="none")
    parser.add_argument("--exit-on-eof", action="store_true", help="exit when standard input is closed")
    args = parser.parse_args(arguments)
    if args.exit_on_eof:
        threading.Thread(target=_exit_on_eof, daemon=True).start()
    use_own_temporary_folder()
    # A class or folder may be called {{ anything }}.
    cfg = Config.fromfile(args.config, use_predefined_variables=False)
    cfg.launcher = args.launcher
    cfg.resume = True
    # Validated below, once: a process that is stopped after the last checkpoint would never validate.
    loop = cfg.train_cfg
    loop.val_begin = 1 + (loop.max_epochs if "max_epochs" in loop else loop.max_iters)
    fill_dataloaders(cfg)
    runner = TrainingRunner.from_cfg(prepare_config(cfg, args.launcher))
    if not any(isinstance(hook, DivergenceHook) for hook in runner.hooks):
        runner.register_hook(DivergenceHook())
    try:
        runner.train()
        # mmdet's COCO metric returns nothing for a network that detects nothing.
        metrics = runner.val_loop.run() or {NOTHING_FOUND: 0.0}
    except DivergenceError as error:
        if not (isinstance(cfg.val_evaluator, dict) and cfg.val_evaluator.get("diverged_as_nan")):
            raise
        runner.logger.warning(str(error))
        metrics = {f"{MultiLabelReport.default_prefix}/mAP": math.nan}
    if is_main_process():
        figures = {name: float(value) for name, value in metrics.items()}
        write_json(os.path.join(cfg.work_dir, METRICS_FILE), figures)


def _exit_on_eof() -> None:
    """Exits when the process that waits for the metrics has ended, so that the same command can resume the run."""
    while os.read(0, 1):  # not sys.stdin, whose lock would block the end of the interpreter
        pass
    os._exit(1)


if __name__ == "__main__":
    main()
