"""``python -m sspyr_mm evaluate``: classification, detection and segmentation with checkpoints of any known format."""

import argparse
import json
import math
import os
import re
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from sspyr_mm.cli.arguments import (
    add_checkpoint_options,
    add_custom_import,
    positive_int,
    reading_options,
)

if TYPE_CHECKING:
    from sspyr_mm.benchmarks.classification.multi_label_data import BenchmarkData
    from sspyr_mm.benchmarks.dense.dense_data import DenseData
    from sspyr_mm.benchmarks.results.result import Result
    from sspyr_mm.benchmarks.settings import Settings

_DENSE = ("mask_rcnn_coco", "fcn_voc")
PROTOCOLS = (
    *("linear", "semi1", "semi10", "semi100", "asl", "asl224"),
    *_DENSE,
)
_ON_COCO = ("linear", "semi1", "semi10", "semi100", "asl")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's arguments."""
    parser.add_argument("checkpoints", nargs="+", help="checkpoints of any format `inspect` knows")
    parser.add_argument(
        "--protocol",
        nargs="+",
        choices=PROTOCOLS,
        help="default: the paper's for the data given: linear on VOC07 and other sets; linear, semi* and asl on "
        "COCO, as far as it has images enough; fcn_voc on --voc-masks",
    )
    data = parser.add_argument_group("data, of which at least one is needed")
    data.add_argument("--voc", metavar="DIR", help="VOC2007 or a folder above it")
    data.add_argument("--coco", metavar="DIR", help="COCO: annotations/, train2014/, val2014/")
    data.add_argument("--voc-masks", metavar="DIR", help="VOC2012 with masks, for fcn_voc")
    data.add_argument("--train", metavar="SET", help="any labelled set: COCO json, VOC tree, CSV")
    data.add_argument("--test", metavar="SET", help="its test part")
    data.add_argument("--train-split", metavar="NAME", help="of a VOC tree given as --train")
    data.add_argument("--test-split", metavar="NAME", help="of a VOC tree given as --test")
    data.add_argument("--train-images", metavar="DIR", help="images of --train, if not beside it")
    data.add_argument("--test-images", metavar="DIR", help="images of --test, if not beside it")
    data.add_argument(
        "--name", type=_name, default="custom", help="what results call --train and --test"
    )
    parser.add_argument(
        "--random", action="store_true", help="also measure the first network, untrained"
    )
    parser.add_argument("--seeds", type=_seed, nargs="+", default=[0], help="default: 0")
    parser.add_argument(
        "--work-dir", default="work_dirs/evaluate", help="results and caches; default: %(default)s"
    )
    add_checkpoint_options(parser)
    add_custom_import(parser)
    other = parser.add_argument_group("other than the paper's settings")
    other.add_argument(
        "--size",
        type=positive_int,
        help="side of crops in pixels (224; asl: 448; fcn_voc: 512), shorter side of mask_rcnn_coco (800)",
    )
    other.add_argument("--epochs", type=positive_int, help="(linear: 50, semi: 20, asl: 40)")
    other.add_argument(
        "--iterations", type=positive_int, help="(mask_rcnn_coco: 15000, fcn_voc: 20000)"
    )
    other.add_argument("--batch-size", type=positive_int, help="of mask_rcnn_coco and fcn_voc (16)")
    other.add_argument("--learning-rates", type=_rate, nargs="+", help="grid of `linear`")
    other.add_argument(
        "--cfg-options",
        type=_option,
        nargs="+",
        metavar="KEY=VALUE",
        help="of the config of the protocol, as in mm's tools; they have the last word",
    )


def _name(text: str) -> str:
    """A name that can be part of a file's, and is not that of a data set that has one."""
    if not re.fullmatch(r"[\w.-]+", text) or text in ("voc07", "coco14", "coco17"):
        raise argparse.ArgumentTypeError(
            f"must be of letters, digits, '-', '_' and '.', and not voc07, coco14 or coco17; got {text!r}"
        )
    return text


def _seed(text: str) -> int:
    """A seed that numpy and torch take."""
    if not text.isdecimal() or int(text) >= 2**32:
        raise argparse.ArgumentTypeError(f"must be an integer from 0 to 2^32 - 1, got {text!r}")
    return int(text)


def _rate(text: str) -> float:
    """A learning rate."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (0 < value < math.inf):
        raise argparse.ArgumentTypeError(f"must be a number > 0, got {text!r}")
    return value


def _option(text: str) -> str:
    """An option of mm's tools."""
    if not re.match(r"[^=\s]+=", text):
        raise argparse.ArgumentTypeError(
            f"must be KEY=VALUE, such as optim_wrapper.optimizer.lr=0.01; got {text!r}"
        )
    return text


def run(args: argparse.Namespace) -> int:
    """Runs every protocol on every network and prints the table.

    Returns:
        0, or 130 if it was stopped.

    Raises:
        ValueError: If data or checkpoints can't be used.
    """
    from sspyr_mm.benchmarks.evaluate import each
    from sspyr_mm.benchmarks.networks import read_networks
    from sspyr_mm.benchmarks.results.table import make_rows, to_markdown
    from sspyr_mm.benchmarks.settings import Settings
    from sspyr_mm.benchmarks.training.recipes import parse_options

    rates = None if args.learning_rates is None else tuple(args.learning_rates)
    options = parse_options(args.cfg_options)
    settings = Settings(args.size, args.epochs, rates, args.iterations, args.batch_size, options)
    runs = _possible(_runs(args), args, settings)
    networks = read_networks(
        args.checkpoints,
        random=args.random,
        custom_imports=args.custom_import,
        **reading_options(args),
    )
    for network in networks[: len(args.checkpoints)]:
        print(f"{network.path}: {network.checkpoint.place}", file=sys.stderr)
    results = []
    try:
        for result in each(networks, runs, args.seeds, work_dir=args.work_dir, settings=settings):
            results.append(result)
            _show(result)
    except KeyboardInterrupt:
        print("Stopped; the same command goes on from here.", file=sys.stderr)
        return 130
    print(f"\n{to_markdown(make_rows(results))}")
    _draw_pictures(results, args.work_dir)
    print(f"Results: {args.work_dir}/result-*.json; `python -m sspyr_mm results` makes tables.")
    return 0


def _show(result: "Result") -> None:
    network = f"{result.network} {result.checkpoint['sha256'][:8]}, seed {result.seed}"
    figure = f"{result.metric} {result.value:.1f}"
    print(f"{result.data} {result.protocol}: {figure}  {network}", flush=True)


def _draw_pictures(results: "Sequence[Result]", work_dir: str) -> None:
    """A sheet for each protocol with pictures: networks of now and of before, measured alike, with their first seed."""
    from sspyr_mm.benchmarks.results.result import find_results
    from sspyr_mm.reports.pictures import write_picture
    from sspyr_mm.reports.prediction_sheet import draw_prediction_sheet

    drawn = [result for result in results if "pictures" in result.beside]
    sheets: dict[str, dict[str, str]] = {}
    for result in drawn:
        columns = sheets.setdefault(f"predictions-{result.protocol}-{result.data}.jpg", {})
        columns.setdefault(result.network, os.path.join(work_dir, result.beside["pictures"]))
    if drawn:
        now = {_measured_how(result): result for result in drawn}
        for earlier in find_results([work_dir]):
            folder = os.path.join(work_dir, earlier.beside.get("pictures", "none"))
            if _measured_how(earlier) in now and os.path.isdir(folder):
                name = f"predictions-{earlier.protocol}-{earlier.data}.jpg"
                sheets[name].setdefault(earlier.network, folder)
    for name, folders in sheets.items():
        try:
            sheet = draw_prediction_sheet(folders)
        except (FileNotFoundError, ValueError) as error:
            print(f"{name} is not drawn: {error}", file=sys.stderr)
            continue
        path = os.path.join(work_dir, name)
        write_picture(path, sheet)
        print(f"Predictions beside the truth: {path}")


def _measured_how(result: "Result") -> tuple[str, ...]:
    """Equal for results whose pictures can stand side by side."""
    changed = json.dumps(result.settings.get("changed"), sort_keys=True)
    return (result.protocol, result.data_sha256, changed)


def _runs(args: argparse.Namespace) -> "list[tuple[str, BenchmarkData | DenseData]]":
    """Protocols, each with the data it is measured on."""
    from sspyr_mm.benchmarks.dense.read_coco import read_coco_instances
    from sspyr_mm.benchmarks.dense.read_voc import read_voc_masks

    chosen = args.protocol or []
    _check_data_is_used(args, chosen)
    labelled = [protocol for protocol in chosen if protocol not in _DENSE]
    runs: list[tuple[str, BenchmarkData | DenseData]] = []
    if labelled or (not chosen and (_has_labels(args) or not args.voc_masks)):
        for data in _data(args):
            default = _ON_COCO if data.name in ("coco14", "coco17") else ("linear",)
            runs += [(protocol, data) for protocol in labelled or default]
    if "mask_rcnn_coco" in chosen:
        if not args.coco:
            raise ValueError("mask_rcnn_coco is measured on COCO: give --coco DIR")
        runs.append(("mask_rcnn_coco", read_coco_instances(args.coco)))
    if "fcn_voc" in chosen or (args.voc_masks and not chosen):
        if not args.voc_masks:
            raise ValueError("fcn_voc is measured on VOC with masks: give --voc-masks DIR")
        runs.append(("fcn_voc", read_voc_masks(args.voc_masks)))
    return runs


def _check_data_is_used(args: argparse.Namespace, chosen: Sequence[str]) -> None:
    """Refuses data that no chosen protocol reads: a figure of other data than somebody meant."""
    if not chosen:
        return
    classified = any(protocol not in _DENSE for protocol in chosen)
    used = {
        "voc": classified,
        "train": classified,
        "test": classified,
        "coco": classified or "mask_rcnn_coco" in chosen,
        "voc_masks": "fcn_voc" in chosen,
    }
    for name, is_used in used.items():
        if getattr(args, name) and not is_used:
            raise ValueError(
                f"--{name.replace('_', '-')} is read by none of {', '.join(chosen)}: leave it out, or add a protocol"
            )


def _possible(
    runs: "list[tuple[str, BenchmarkData | DenseData]]",
    args: argparse.Namespace,
    settings: "Settings",
) -> "list[tuple[str, BenchmarkData | DenseData]]":
    """Of protocols nobody asked for by name those that the data allow; the others are told."""
    from sspyr_mm.benchmarks.checks import check_run, check_settings

    possible = []
    for protocol, data in runs:
        check_settings(protocol, settings)
        try:
            check_run(protocol, data, args.seeds, settings)
            possible.append((protocol, data))
        except ValueError as error:
            if args.protocol:
                raise
            print(f"{data.name} {protocol} is left out: {error}", file=sys.stderr)
    return possible


def _has_labels(args: argparse.Namespace) -> bool:
    return bool(args.voc or args.coco or args.train or args.test)


def _data(args: argparse.Namespace) -> "list[BenchmarkData]":
    from sspyr_mm.benchmarks.classification.multi_label_data import (
        Source,
        coco_sources,
        load_data,
        voc07_sources,
    )

    alone = [
        name
        for name in ("train_split", "test_split", "train_images", "test_images")
        if getattr(args, name) and not args.train
    ]
    if alone:
        raise ValueError(f"--{alone[0].replace('_', '-')} belongs to --train and --test: give both")
    if bool(args.train) != bool(args.test):
        raise ValueError("--train and --test belong together: give both")
    if not _has_labels(args):
        raise ValueError("No data: give --voc DIR, --coco DIR, or --train SET with --test SET")
    found = []
    if args.voc:
        found.append(load_data("voc07", *voc07_sources(args.voc)))
    if args.coco:
        found.append(load_data(*coco_sources(args.coco)))
    if args.train:
        sources = (
            Source(args.train, args.train_split, args.train_images),
            Source(args.test, args.test_split, args.test_images),
        )
        found.append(load_data(args.name, *sources))
    return found
