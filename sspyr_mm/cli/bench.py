"""``python -m sspyr_mm bench``: measures how fast this machine trains."""

import argparse

from sspyr_mm.cli.arguments import check_writable, positive_int


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's arguments."""
    parser.add_argument("--quick", action="store_true", help="short run of about a minute")
    parser.add_argument("--json", metavar="FILE", help="file for the results, as JSON")
    parser.add_argument("--config", help="pre-training config (default: the paper's on a GPU)")
    parser.add_argument("--images", metavar="DIR", help="your images (default: generated images)")
    parser.add_argument("--batch-size", type=positive_int, help="images per step (default: the config's)")
    parser.add_argument("--num-workers", type=positive_int, help="data loader workers (default: all cores but one)")


def run(args: argparse.Namespace) -> int:
    """Measures, prints the table and returns 0.

    Raises:
        OSError: If ``--json`` can't be written.
        ValueError: If the config or images can't be used.
    """
    import sspyr_mm.registration  # noqa: F401
    from sspyr_mm.files import write_json
    from sspyr_mm.speed.bench import open_setting, run_bench, to_table

    if args.json:
        check_writable("--json", args.json)
    given = {name: getattr(args, name) for name in ("config", "images", "batch_size", "num_workers", "quick")}
    with open_setting(**given) as setting:
        found = run_bench(setting)
    print(to_table(found))
    if args.json:
        write_json(args.json, found)
    return 0
