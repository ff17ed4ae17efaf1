"""``python -m sspyr_mm results``: prints the results of several checkpoints and machines in one table."""

import argparse

from sspyr_mm.files import write_text


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's arguments."""
    parser.add_argument("places", nargs="+", help="work dirs of `evaluate`, or result files")
    parser.add_argument("--markdown", metavar="FILE", help="file for the table, as Markdown")
    parser.add_argument("--csv", metavar="FILE", help="file for the table, as CSV with all digits")
    parser.add_argument("--plot", metavar="FILE", help="file for a plot, as png, svg or pdf")
    parser.add_argument("--no-published", action="store_true", help="leave out the results of the paper")


def run(args: argparse.Namespace) -> int:
    """Prints and writes the table; returns 0."""
    from sspyr_mm.benchmarks.results.result import find_results
    from sspyr_mm.benchmarks.results.rows import make_rows
    from sspyr_mm.benchmarks.results.table import plot, to_csv, to_markdown

    rows = make_rows(find_results(args.places), published=not args.no_published)
    print(to_markdown(rows), end="")
    for path, text in ((args.markdown, to_markdown), (args.csv, to_csv)):
        if path:
            write_text(path, text(rows))
    if args.plot:
        plot(rows, args.plot)
    return 0
