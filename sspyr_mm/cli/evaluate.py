"""``python -m sspyr_mm evaluate``: classification, detection and segmentation with checkpoints of any known format."""

import argparse
import os
import sys
from collections.abc import Sequence
from dataclasses import fields
from typing import TYPE_CHECKING

from sspyr_mm.benchmarks.base_protocol import DataOptions, Settings
from sspyr_mm.benchmarks.protocols import PROTOCOLS, find_protocol
from sspyr_mm.cli.arguments import add_checkpoint_options, add_custom_import, positive_int, reading_options, seed

if TYPE_CHECKING:
    from sspyr_mm.benchmarks.results.result import Result


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's arguments."""
    parser.add_argument("checkpoints", nargs="+", help="checkpoints of any format `inspect` knows")
    described = [f"{one.name}: {one.help}{'' if one.by_default else ', only if chosen'}" for one in PROTOCOLS]
    parser.add_argument(
        "--protocol",
        nargs="+",
        choices=[protocol.name for protocol in PROTOCOLS],
        metavar="PROTOCOL",
        help="protocols to run; default: the paper's for the given data, if there are enough images. "
        + "; ".join(described).replace("%", "%%"),
    )
    data = parser.add_argument_group("data, at least one of")
    data.add_argument("--voc", metavar="DIR", help="VOC2007 or its parent folder")
    data.add_argument("--coco", metavar="DIR", help="COCO: annotations/, train2014/, val2014/")
    data.add_argument("--voc-masks", metavar="DIR", help="VOC2012 with class masks")
    data.add_argument("--train", metavar="SET", help="labelled training set: COCO json, VOC tree, CSV")
    data.add_argument("--test", metavar="SET", help="test set of --train, in the same formats")
    for part in ("train", "test"):
        data.add_argument(f"--{part}-split", metavar="NAME", help=f"split of a VOC tree given as --{part}")
        data.add_argument(f"--{part}-images", metavar="DIR", help=f"images of --{part}, if not next to it")
    data.add_argument("--name", default="custom", help="name of --train and --test in results")
    parser.add_argument("--random", action="store_true", help="also evaluate the first network with random weights")
    parser.add_argument("--seeds", type=seed, nargs="+", default=[0], help="random seeds (default: 0)")
    parser.add_argument(
        "--work-dir", default="work_dirs/evaluate", help="folder for results and caches (default: %(default)s)"
    )
    add_checkpoint_options(parser)
    add_custom_import(parser)
    _add_settings(parser.add_argument_group("settings, by default the paper's"))


def _add_settings(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--size", type=positive_int, help="side of crops in pixels; in detection, shorter side of images"
    )
    group.add_argument("--epochs", type=positive_int, help="passes over the training images")
    group.add_argument("--iterations", type=positive_int, help="steps of detection and segmentation")
    group.add_argument("--batch-size", type=positive_int, help="images per step of detection and segmentation")
    group.add_argument(
        "--learning-rates", type=float, nargs="+", help="learning rates of the linear classifiers to try, each > 0"
    )
    group.add_argument(
        "--cfg-options",
        nargs="+",
        metavar="KEY=VALUE",
        help="overrides of the protocol's config, as in OpenMMLab's tools; applied last",
    )


def run(args: argparse.Namespace) -> int:
    """Runs every protocol on every network and prints the table; returns 0."""
    from sspyr_mm.benchmarks.evaluate import evaluate_all, plan_runs
    from sspyr_mm.benchmarks.networks import read_networks
    from sspyr_mm.benchmarks.results.rows import make_rows
    from sspyr_mm.benchmarks.results.table import to_markdown
    from sspyr_mm.benchmarks.training.recipes import parse_options

    rates = args.learning_rates and tuple(args.learning_rates)
    options = parse_options(args.cfg_options)
    settings = Settings(args.size, args.epochs, rates, args.iterations, args.batch_size, options)
    data = DataOptions(**{field.name: getattr(args, field.name) for field in fields(DataOptions)})
    chosen = [find_protocol(name) for name in args.protocol or ()]
    runs = plan_runs(chosen, data, args.seeds, settings)
    networks = read_networks(
        args.checkpoints, random=args.random, custom_imports=args.custom_import, **reading_options(args)
    )
    for network in networks[: len(args.checkpoints)]:
        print(f"{network.path}: {network.checkpoint.place}", file=sys.stderr)
    planned = ", ".join(f"{data.name} {protocol.name}" for protocol, data in runs)
    print(f"{len(networks)} network(s), {len(args.seeds)} seed(s): {planned}", file=sys.stderr)
    if not chosen and len(runs) > 1:
        print("--protocol NAME runs only some of these", file=sys.stderr)
    results: list[Result] = []
    for result in evaluate_all(networks, runs, args.seeds, work_dir=args.work_dir, settings=settings):
        results.append(result)
        print(result.line, flush=True)
    print(f"\n{to_markdown(make_rows(results))}")
    _draw_predictions(results, args.work_dir)
    print(f"Results: {args.work_dir}/result-*.json; `python -m sspyr_mm results` prints tables.")
    return 0


def _draw_predictions(results: "Sequence[Result]", work_dir: str) -> None:
    """Writes an image of predictions per protocol that draws them, including networks of earlier runs."""
    from sspyr_mm.benchmarks.results.result import find_predictions
    from sspyr_mm.reports.sheets import draw_prediction_sheet, write_image

    for name, folders in find_predictions(results, work_dir).items():
        try:
            path = os.path.join(work_dir, name)
            write_image(path, draw_prediction_sheet(folders))
            print(f"Predictions and ground truth: {path}")
        except (FileNotFoundError, ValueError) as error:
            print(f"Predictions of {name} are not drawn: {error}", file=sys.stderr)
