"""``python -m sspyr_mm report``: writes a page on one or several training runs."""

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's arguments."""
    parser.add_argument("work_dirs", nargs="+", metavar="WORK_DIR", help="work dirs of training; several are compared")
    parser.add_argument("-o", "--out", metavar="FILE", help="HTML file; default: report.html in the first work dir")


def run(args: argparse.Namespace) -> int:
    """Writes the page, prints its path, and returns 0."""
    from pathlib import Path

    from sspyr_mm.cli.arguments import check_writable
    from sspyr_mm.reports.run_report import write_report

    out = args.out or str(Path(args.work_dirs[0], "report.html"))
    if not Path(args.work_dirs[0]).is_dir():
        raise ValueError(f"{args.work_dirs[0]} is not a folder: give the work dir of a run")
    check_writable("--out", out)
    write_report(args.work_dirs, out)
    print(out)
    return 0
