"""Runs a discarded step of pre-training again on a CPU: ``python tools/replay.py WORK_DIR/skipped_step_first.pt``.

Prints the first module whose output or gradient is not finite. Exit status: 0 if there is one, 1 if all values are
finite, 2 if the file cannot be used.
"""

import argparse
import sys
from contextlib import nullcontext
from functools import partial

import torch

from sspyr_mm.checkpoints.pretraining import load_pretraining
from sspyr_mm.engine.replay import Iteration, run_step
from sspyr_mm.tensor_files import read_checkpoint


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Run a discarded step of pre-training again on a CPU.")
    parser.add_argument("file", help="WORK_DIR/skipped_step_first.pt or skipped_step_last.pt")
    return parser.parse_args()


def replay(path: str) -> bool:
    """Returns whether a value is not finite."""
    saved = read_checkpoint(path)
    if "step" not in saved:
        raise ValueError(f"{path} holds no step: pass WORK_DIR/skipped_step_first.pt or skipped_step_last.pt")
    meta = saved["meta"]
    iterations = [Iteration({"inputs": one["inputs"]}, one["random_states"]) for one in saved["step"]]
    model = load_pretraining(path)[1].train()
    dtype = getattr(torch, meta["precision"].removeprefix("torch."))
    context = nullcontext if dtype == torch.float32 else partial(torch.autocast, "cpu", dtype=dtype)
    found = run_step(model, iterations, context, meta["loss_scale"])
    ranks = f", rank {meta['rank']} of {meta['world_size']}" if meta["world_size"] > 1 else ""
    print(f"Iteration {meta['iteration']}{ranks}: learning rate {meta['learning_rate']:.3g}, precision {dtype}")
    print(f"Inputs: {found.inputs}")
    for losses in found.losses:
        print("Losses: " + ", ".join(f"{name} {value:.6g}" for name, value in losses.items()))
    if found.where:
        print(f"First value that is not finite: {found.where}")
    else:
        others = " by this rank alone" if ranks else ""
        print(f"All values are finite: the step is not reproduced{others}; the device of the run computed otherwise")
    return found.where is not None


def main() -> None:
    args = parse_args()
    try:
        reproduced = replay(args.file)
    except (OSError, ValueError) as error:
        print(f"replay: {error}", file=sys.stderr)
        sys.exit(2)
    sys.exit(0 if reproduced else 1)


if __name__ == "__main__":
    main()
