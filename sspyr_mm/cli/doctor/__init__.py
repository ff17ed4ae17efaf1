"""``python -m sspyr_mm doctor``: checks whether this machine can pre-train, and names the remedies."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import asdict

from sspyr_mm.cli.doctor import image_check, machine_check, stack_check
from sspyr_mm.cli.doctor.finding import NOTE, OK, PROBLEM, Finding


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the arguments of the command."""
    parser.add_argument(
        "--data",
        nargs="+",
        default=[],
        metavar="PATH",
        help="images to check as well: folders, list files (.txt) or COCO annotations (.json)",
    )
    parser.add_argument("--json", action="store_true", help="print the findings as JSON")
    parser.add_argument("--quick", action="store_true", help="skip the import of the package")


def run(args: argparse.Namespace) -> int:
    """Runs all checks and prints their findings.

    Returns:
        0 if pre-training can run, also on the data of ``--data``; otherwise 1.
    """
    findings = []
    for finding in _examine(args):
        findings.append(finding)
        if not args.json:
            _show(finding)

    count = sum(finding.level == PROBLEM for finding in findings)
    if args.json:
        report = {"ready": count == 0, "findings": [asdict(finding) for finding in findings]}
        print(json.dumps(report, indent=2))
    elif count:
        print(f"\nPre-training can't run: {count} problem{'s' * (count > 1)}, marked ✗ above.")
    else:
        print("\nPre-training can run.")
    return 1 if count else 0


def _examine(args: argparse.Namespace) -> Iterator[Finding]:
    yield from stack_check.check_python()
    yield from stack_check.check_stack()
    yield from stack_check.check_opencv()
    yield from machine_check.check_torch()
    yield from stack_check.check_ops()
    yield from machine_check.check_machine()
    yield from image_check.check_links()
    if not args.quick:
        yield from stack_check.check_package()
    for path in args.data:
        yield image_check.check_data(path)


def _show(finding: Finding) -> None:
    mark = {OK: "✓", NOTE: "!", PROBLEM: "✗"}[finding.level]
    print(f"{mark} {finding.name}: {finding.found}", flush=True)
    if finding.remedy:
        print(f"    → {finding.remedy}", flush=True)
