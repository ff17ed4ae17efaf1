"""``python -m sspyr_mm compare``: measures whether a pre-trained network helps on the user's own labelled images."""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sspyr_mm.cli.arguments import (
    add_checkpoint_options,
    add_custom_import,
    check_writable,
    positive_int,
    reading_options,
    seed,
)

if TYPE_CHECKING:
    from sspyr_mm.benchmarks.comparison.report import Results
    from sspyr_mm.datasets.labelled import LabelledImages

_HELD_OUT_PERCENT = 20
"""Percentage of the images that becomes the test set if none is given."""
_MANY_PERCENT = 5
"""Percentage of near-duplicates above which the user should look at them."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's arguments."""
    parser.add_argument(
        "networks",
        nargs="+",
        metavar="CKPT",
        help="checkpoints of any known format; models of timm as timm:NAME, which downloads, or timm:NAME=FILE. The "
        "first one is compared with the others",
    )
    parser.add_argument(
        "--data",
        required=True,
        metavar="SET",
        help="labelled images: a folder with one folder per class, COCO json, VOC tree, or CSV",
    )
    parser.add_argument(
        "--test",
        metavar="SET",
        help=f"test set, in the same formats; default: --test-split of --data, else {_HELD_OUT_PERCENT} %% of --data",
    )
    parser.add_argument("--split", help="split of --data: of a VOC tree, such as trainval, or of a folder")
    parser.add_argument("--test-split", help="split of the test set")
    parser.add_argument("--train-images", metavar="DIR", help="images of --data, if not next to it")
    parser.add_argument("--test-images", metavar="DIR", help="images of the test set, if not next to it")
    parser.add_argument(
        "--percent",
        type=_percentage,
        nargs="+",
        default=[1, 10, 100],
        help="percentages of the labels to train on (default: 1 10 100)",
    )
    parser.add_argument(
        "--seeds", type=seed, nargs="+", default=[0, 1, 2, 3, 4], help="seeds of the label subsets (default: 0 1 2 3 4)"
    )
    parser.add_argument("--size", type=positive_int, default=224, help="side of the centre crop (default: 224)")
    parser.add_argument("--no-random", action="store_true", help="skip the first network with random weights")
    parser.add_argument(
        "--keep-duplicates", action="store_true", help="also test on near-duplicates of training images"
    )
    parser.add_argument(
        "--work-dir", type=Path, default=Path("work_dirs/compare"), help="results and features (default: %(default)s)"
    )
    add_checkpoint_options(parser)
    add_custom_import(parser)


def _percentage(text: str) -> int:
    """Parses an integer from 1 to 100."""
    if not text.isdecimal() or not 1 <= int(text) <= 100:
        raise argparse.ArgumentTypeError(f"must be an integer from 1 to 100, got {text!r}")
    return int(text)


def run(args: argparse.Namespace) -> int:
    """Probes every network, prints and writes the comparison, and returns 0."""
    from sspyr_mm.benchmarks.comparison.candidates import read_candidates
    from sspyr_mm.benchmarks.comparison.compare import compare, usable_percents

    seeds = _check(args)
    candidates = read_candidates(
        args.networks,
        size=args.size,
        random=not args.no_random,
        custom_imports=args.custom_import,
        **reading_options(args),
    )
    train, test = _read_data(args)
    sizes = usable_percents(train, args.percent, seeds)
    test, duplicates = _without_duplicates(train, test, keep=args.keep_duplicates)
    loading = {"size": args.size, "cache_dir": args.work_dir / "features", **_devices()}
    measured = compare(candidates, train, test, percents=list(sizes), seeds=seeds, **loading)
    metric = "mAP" if train.multi_label else "top-1"
    results = {}
    for candidate, found in zip(candidates, measured, strict=True):
        results[candidate.name] = found
        shown = ", ".join(f"{one.interval.value:.1f} at {percent} %" for percent, one in found.items())
        print(f"{candidate.name}: {metric} {shown} of the labels", file=sys.stderr, flush=True)
    about = {
        "networks": {candidate.name: candidate.about for candidate in candidates},
        "num_test": len(test.paths),
        "seeds": seeds,
        "size": args.size,
        "near_duplicates": duplicates,
    }
    _write(args.work_dir / "comparison", results, sizes, metric, about)
    return 0


def _check(args: argparse.Namespace) -> tuple[int, ...]:
    """Checks the options before the work; returns the different seeds."""
    from sspyr_mm.files import shortened

    seeds = tuple(dict.fromkeys(args.seeds))
    if len(seeds) < 2 and min(args.percent) < 100:
        raise ValueError(
            f"Intervals need at least two different --seeds, got {shortened(args.seeds)}; the default is 5"
        )
    for ending in ("md", "csv", "png", "json"):
        check_writable("--work-dir", str(args.work_dir / f"comparison.{ending}"))
    return seeds


def _devices() -> dict[str, Any]:
    """Returns the devices and workers of this machine that compute features, and limits its threads."""
    from sspyr_mm.machine import limit_threads, list_devices, num_cores

    num_workers = num_cores() // 2
    limit_threads(num_workers)
    return {"devices": list_devices(), "num_workers": num_workers}


def _write(stem: Path, results: "Results", sizes: dict[int, int], metric: str, about: dict[str, Any]) -> None:
    """Prints the tables and writes all files."""
    from sspyr_mm.benchmarks.comparison.compare import MIN_TEST_IMAGES
    from sspyr_mm.benchmarks.comparison.report import plot, to_csv, to_markdown
    from sspyr_mm.benchmarks.results.result import package_versions
    from sspyr_mm.files import write_json, write_text

    num_test = about["num_test"]
    text = to_markdown(results, sizes, num_test, metric) + (
        f"\nLinear classifiers on frozen features of {about['size']} px. In parentheses: 95 % intervals over "
        f"{num_test} test images and the draws of labels, the same for all networks.\n"
    )
    if num_test < MIN_TEST_IMAGES:
        text += f"Fewer than {MIN_TEST_IMAGES} test images show no difference reliably: give more.\n"
    print(text, end="")
    for ending, content in (("md", text), ("csv", to_csv(results, sizes, num_test, metric))):
        write_text(f"{stem}.{ending}", content)
    plot(results, sizes, metric, f"{stem}.png")
    values = {name: {percent: one.values.tolist() for percent, one in found.items()} for name, found in results.items()}
    versions = package_versions()
    write_json(f"{stem}.json", {"metric": metric, "values": values, "images": sizes, **about, "versions": versions})
    print(f"Written: {stem}.md, .csv, .png and .json")


def _read_data(args: argparse.Namespace) -> "tuple[LabelledImages, LabelledImages]":
    """Reads the training set, and the test set or a part that is held out."""
    from sspyr_mm.datasets.labelled import match_classes, read_labelled

    train = read_labelled(args.data, split=args.split, image_root=args.train_images)
    name = "the test set"
    if args.test:
        test = read_labelled(args.test, split=args.test_split, image_root=args.test_images)
    elif args.test_split:
        test = read_labelled(args.data, split=args.test_split, image_root=args.train_images)
    else:
        name = "its held-out part"
        train, test = _hold_out(train, args.data)
    test = match_classes(train, test, ("--data", name))
    if not (test.targets == 1).any():
        raise ValueError(
            f"None of the {len(test.paths)} images of {name} shows a class: give one with labels by --test"
        )
    return train, test


def _hold_out(labelled: "LabelledImages", source: str) -> "tuple[LabelledImages, LabelledImages]":
    """Splits a set into a training and a test part, by class if images have one label."""
    from sspyr_mm.benchmarks.comparison.compare import draw_subset

    held_out = {labelled.image_ids[row] for row in draw_subset(labelled, _HELD_OUT_PERCENT, seed=0, at_least=0)}
    num_images = len(labelled.paths)
    if not held_out:
        raise ValueError(f"--data has {num_images} images, too few to hold a part out: give a test set by --test SET")
    print(f"No test set is given: {len(held_out)} of {num_images} images are held out", file=sys.stderr)
    kept = [image_id for image_id in labelled.image_ids if image_id not in held_out]
    return labelled.with_images(kept, source), labelled.with_images(held_out, source)


def _without_duplicates(
    train: "LabelledImages", test: "LabelledImages", *, keep: bool
) -> "tuple[LabelledImages, list[dict]]":
    """Removes test images that are near-duplicates of training images, and lists them."""
    from sspyr_mm.benchmarks.comparison.near_duplicates import find_near_duplicates

    found = find_near_duplicates(train.paths, test.paths)
    pairs = [{"test": test.paths[i], "train": train.paths[j], "different_bits": bits} for i, j, bits in found]
    if not pairs:
        return test, []
    example = f"{pairs[0]['test']} and {pairs[0]['train']}"
    count = f"{len(pairs)} of {len(test.paths)} test images are near-duplicates of training images, such as {example}"
    if len(pairs) > len(test.paths) * _MANY_PERCENT / 100:
        count += ". They are many: look at some; images that only share a composition (scans, characters) can be alike"
    if keep:
        print(f"{count}. They are kept: results are too high if they are copies", file=sys.stderr)
        return test, pairs
    print(f"{count}. They are left out (--keep-duplicates keeps them, comparison.json lists them)", file=sys.stderr)
    copies = {i for i, _, _ in found}
    kept = [image_id for i, image_id in enumerate(test.image_ids) if i not in copies]
    if not kept:
        raise ValueError(
            f"All {len(test.paths)} test images are near-duplicates of training images, such as {example}: give "
            "another test set"
        )
    return test.with_images(kept, "the test set"), pairs
