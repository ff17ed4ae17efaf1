"""Trains a model on this machine: ``python tools/train.py CONFIG [options]``.

Several processes: dist_train.sh (torchrun, also without GPUs) and slurm_train.sh start this program.
"""

from __future__ import annotations

import argparse
import os
import re
import signal
import sys
import traceback
import warnings
from difflib import get_close_matches
from importlib.util import find_spec
from pathlib import Path
from typing import Any

if by_default := signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends the imports, which take seconds, without a traceback

if find_spec("mmengine") is None:
    print(
        f"train: {sys.executable} has no mmengine: activate the environment (source .venv/bin/activate)",
        file=sys.stderr,
    )
    sys.exit(2)

from mmengine.config import Config, DictAction
from mmengine.dist import get_rank
from mmengine.hooks import Hook
from mmengine.registry import RUNNERS
from mmengine.runner import EpochBasedTrainLoop, Runner

import sspyr_mm.registration  # noqa: F401  (before a config is read: forks are found then)
from sspyr_mm.compat import quiet_logger
from sspyr_mm.datasets.transforms.decoding import UnreadableImageError
from sspyr_mm.engine.config import fill_dataloaders, set_data_root
from sspyr_mm.engine.cpu import prepare_config
from sspyr_mm.engine.hooks import DivergenceError
from sspyr_mm.engine.hooks.data_check_hook import DataCheckHook, check_batch, check_full_batch
from sspyr_mm.engine.options import check_names, merge_options
from sspyr_mm.engine.runner import TrainingRunner
from sspyr_mm.engine.saving import UnwritableError
from sspyr_mm.files import configs_dir
from sspyr_mm.machine import end_with_parent, limit_threads, use_own_temporary_folder

if by_default:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def default_name(config: Path) -> str:
    """Returns the name of the work dir: configs of other methods than SS-PRL have equal file names."""
    folder = config.resolve().parent
    is_other = folder.parent == configs_dir().resolve() and folder.name != "ssprl"
    return f"{folder.name}_{config.stem}" if is_other else config.stem


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Train a model from an mmengine config.")
    parser.add_argument("config", help="config file")
    parser.add_argument("--work-dir", help="folder for logs and checkpoints (default: work_dirs/CONFIG)")
    parser.add_argument(
        "--data-root", metavar="DIR_OR_FILE", help="training images; sets train_dataloader.dataset.data_root"
    )
    parser.add_argument(
        "--resume",
        nargs="?",
        const="auto",
        metavar="CHECKPOINT",
        help="checkpoint to resume from; without a path, the newest whole one in the work dir, if any",
    )
    parser.add_argument(
        "--allow-pickle",
        action="store_true",
        help="also load checkpoints with objects of any class, which can run any code: only from a trusted source",
    )
    parser.add_argument("--amp", action="store_true", help="mixed precision: float16 on a GPU, bfloat16 on a CPU")
    parser.add_argument(
        "--auto-scale-lr",
        action="store_true",
        help="scale the learning rate with the batch size, from auto_scale_lr.base_batch_size",
    )
    parser.add_argument(
        "--cfg-options",
        nargs="+",
        action=DictAction,
        metavar="KEY=VALUE",
        help='setting overrides: a.b=1, a.b="[1,2]", a.b="[(1,2),(3,4)]"',
    )
    parser.add_argument("--launcher", choices=["none", "pytorch", "slurm", "mpi"], default="none", help="job launcher")
    parser.add_argument("--local_rank", "--local-rank", type=int, default=0, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if not (given := Path(args.config)).is_file():
        known = {"/".join(path.parts[-2:]): os.path.relpath(path.resolve()) for path in configs_dir().rglob("*.py")}
        near = [known[name] for name in get_close_matches("/".join(given.parts[-2:]), known, n=1)]
        parser.error(f"there is no config {given}; " + (f"do you mean {near[0]}?" if near else "see configs/"))
    os.environ.setdefault("LOCAL_RANK", str(args.local_rank))
    return args


def merge_args(cfg: Config, args: argparse.Namespace) -> None:
    cfg.launcher = args.launcher
    if args.work_dir is not None:
        cfg.work_dir = args.work_dir
    elif cfg.get("work_dir") is None:
        cfg.work_dir = str(Path("work_dirs") / default_name(Path(args.config)))
    if args.allow_pickle:
        cfg.allow_pickle = True
    if args.amp:
        cfg.optim_wrapper.type = "AmpOptimWrapper"
        cfg.optim_wrapper.setdefault("loss_scale", "dynamic")
    if args.resume is not None:
        cfg.resume = True
        cfg.load_from = None if args.resume == "auto" else args.resume
    if args.auto_scale_lr:
        if "base_batch_size" not in (cfg.get("auto_scale_lr") or {}):
            raise SystemExit(
                f"--auto-scale-lr: {args.config} lacks auto_scale_lr=dict(base_batch_size=...), the "
                "batch size its learning rate is for; set it with --cfg-options "
                "auto_scale_lr.base_batch_size=N"
            )
        cfg.auto_scale_lr.enable = True


class TrainingStarted(Hook):
    """Records that the model and the data are built and loaded."""

    reached = False

    def before_train(self, runner: Runner) -> None:
        """Runs after the checks of all other hooks."""
        if not any(isinstance(hook, DataCheckHook) for hook in runner.hooks):
            check_batch(runner)
        self.reached = True


def train(cfg: Config, args: argparse.Namespace, started: TrainingStarted) -> None:
    check_names(cfg)
    if args.data_root is not None:  # before the options, which may set the data set of packed shards
        set_data_root(cfg, args.data_root)
    merge_options(cfg, args.cfg_options or {})
    merge_args(cfg, args)
    fill_dataloaders(cfg)
    prepare_config(cfg, args.launcher)
    runner = RUNNERS.build(cfg) if "runner_type" in cfg else TrainingRunner.from_cfg(cfg)
    # The process group exists by now and gives the number of processes that share the cores.
    limit_threads((cfg.get("train_dataloader") or {}).get("num_workers", 0))
    quiet_logger(runner.logger)
    runner.register_hook(started, priority="LOWEST")
    if isinstance(runner.train_loop, EpochBasedTrainLoop):
        check_full_batch(runner.train_dataloader)
    runner.train()
    if checkpoint := runner.message_hub.runtime_info.get("last_ckpt"):  # the config may save none
        runner.logger.info(f"Training is done. Last checkpoint: {checkpoint}")


_LIST_IS_MISSING = "Failed to load `ann_file`"
"""Start of mmseg's assertion message."""
_PREPARED_BY = {
    "data/coco": "prepare_coco.py data/coco",
    "VOCdevkit/VOC2012": "prepare_voc12.py data",
    "VOCdevkit/VOC2007": "prepare_voc07.py data",
}


def is_about_settings(error: Exception) -> bool:
    """Returns whether an error is about settings: a missing file, or raised by this package or mmengine itself."""
    if isinstance(error, FileNotFoundError) or _LIST_IS_MISSING in str(error):
        return True
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    module = trace.tb_frame.f_globals.get("__name__", "") if trace is not None else ""
    return module.partition(".")[0] in ("sspyr_mm", "mmengine")


def hint(error: Exception, cfg: Config) -> str:
    """Returns the remedy for missing weights or data."""
    for place, tool in _PREPARED_BY.items():
        if place in str(error):
            return f" Run `python tools/dataset_converters/{tool}` to prepare the data set"
    init: Any = ((cfg.get("model") or {}).get("backbone") or {}).get("init_cfg")
    for one in init if isinstance(init, (list, tuple)) else [init or {}]:
        file = one.get("checkpoint")
        if file and isinstance(error, FileNotFoundError) and os.path.expanduser(file) in str(error):
            return (
                " Write it with `python -m sspyr_mm export CKPT backbone.pth` and set "
                "model.backbone.init_cfg.checkpoint to its path"
            )
    return ""


def killed_worker(error: Exception) -> str | None:
    """Returns ' (process N)' if an error is the end of a loader's worker, '' without its number; None otherwise."""
    if found := re.match(r"DataLoader worker \(pid\(?s?\)? ([\d, ]+)\) ", str(error)):
        return f" (process {found[1]})"
    frames = (frame.name for frame in traceback.extract_tb(error.__traceback__))
    is_lost = not isinstance(error, RuntimeError) and "rebuild_storage_fd" in frames  # a tensor of the worker
    return "" if is_lost else None


def main() -> None:
    args = parse_args()
    use_own_temporary_folder()
    if "TORCHELASTIC_RUN_ID" in os.environ:  # Slurm and MPI end the processes of a job themselves
        end_with_parent()
    cfg, started = Config(), TrainingStarted()
    warnings.filterwarnings("default", message="The config file .* will be deprecated")  # Python hides it
    try:
        cfg = Config.fromfile(args.config)
        train(cfg, args, started)
    except KeyboardInterrupt:  # before the first iteration, or a second time
        print("train: interrupted", file=sys.stderr)
        sys.exit(130)
    except UnreadableImageError as error:
        print(f"train: {error.summary}", file=sys.stderr)
        sys.exit(2)
    except UnwritableError as error:
        print(f"train: {error.strerror}", file=sys.stderr)
        sys.exit(1 if started.reached else 2)
    except (AssertionError, FileNotFoundError, PermissionError, TypeError, ValueError) as error:
        if started.reached or not is_about_settings(error):
            raise
        print(f"train: {error}{hint(error, cfg)}", file=sys.stderr)
        sys.exit(2)
    except (ConnectionError, EOFError, RuntimeError) as error:
        if (worker := killed_worker(error)) is None:
            raise
        print(
            f"train: a data worker{worker} was killed, perhaps for lack of memory (see `dmesg`): lower "
            "train_dataloader.num_workers; --resume continues from the last checkpoint",
            file=sys.stderr,
        )
        sys.exit(1)
    except DivergenceError as error:
        if get_rank() == 0:  # all ranks stop with the same message
            print(f"train: {error}", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
