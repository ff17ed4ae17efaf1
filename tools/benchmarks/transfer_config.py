"""Writes the config that detect.sh and segment.sh train, and prints its path."""

import argparse
import sys
from contextlib import redirect_stdout


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("config", help="config of detection or segmentation")
    parser.add_argument("checkpoint", help="checkpoint of a ResNet, in any known format")
    parser.add_argument("processes", type=int, help="number of training processes")
    parser.add_argument("--work-dir", help="default: work_dirs/CONFIG/CHECKPOINT-SHA256")
    return parser.parse_args()


def main() -> int:
    args = parse_args()
    try:
        with redirect_stdout(sys.stderr):  # libraries print as they are imported
            from sspyr_mm.benchmarks.dense.transfer import write_transfer_config

            path = write_transfer_config(
                args.config, args.checkpoint, num_processes=args.processes, work_dir=args.work_dir
            )
    except (ImportError, OSError, ValueError) as error:
        print(f"transfer: {error}", file=sys.stderr)
        return 2
    print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
