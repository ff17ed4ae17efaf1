"""From data and checkpoints to results: what `evaluate` does. A result that exists is not measured again."""

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from typing import TypeAlias

from sspyr_mm.benchmarks.base_protocol import DataOptions, Job, Outcome, Protocol, Settings
from sspyr_mm.benchmarks.classification.multi_label_data import MeasuredData
from sspyr_mm.benchmarks.networks import Network
from sspyr_mm.benchmarks.protocols import PROTOCOLS
from sspyr_mm.benchmarks.results.result import Result, fingerprint, matches, package_versions, read_result, write_result
from sspyr_mm.benchmarks.training.recipes import load_recipe
from sspyr_mm.compat import find_distribution

__all__ = ["Run", "evaluate", "evaluate_all", "plan_runs"]

Run: TypeAlias = tuple[Protocol, MeasuredData]
"""A protocol and the data it is measured on."""


def plan_runs(chosen: Sequence[Protocol], options: DataOptions, seeds: Sequence[int], settings: Settings) -> list[Run]:
    """Reads the data and checks that they suffice.

    Args:
        chosen: Protocols; empty: those that run by default on the data given, as far as there are enough images.
        options: Where the data are.
        seeds: Random seeds.
        settings: What differs from the paper.

    Returns:
        Each protocol with each of its data sets.

    Raises:
        ValueError: If a protocol does not have a setting or lacks data, or no chosen protocol reads a data set.
        ImportError: If a protocol needs compiled ops, and mmcv has none.
    """
    for protocol in chosen:
        _check_settings(protocol, settings)
    _check_data_is_used(options, chosen)
    protocols = chosen or [p for p in PROTOCOLS if p.by_default and options.given(p.reads)]
    if not protocols:
        raise ValueError("No data: give --voc DIR, --coco DIR, --train SET with --test SET, or --voc-masks DIR")
    readers: dict[Callable, list[Protocol]] = {}  # data of several protocols are read once
    for protocol in protocols:
        readers.setdefault(type(protocol).load_data, []).append(protocol)
    runs = []
    for group in readers.values():
        for data in group[0].load_data(options):
            for protocol in group:
                if chosen or protocol.runs_by_default_on(data):
                    runs.append((protocol, data))
    return [run for run in runs if _is_possible(run, seeds, required=bool(chosen))]


def _check_data_is_used(options: DataOptions, chosen: Sequence[Protocol]) -> None:
    """Refuses data that no chosen protocol reads: a figure of other data than the user meant."""
    read = {name for protocol in chosen for name in protocol.reads}
    for name in options.given([name for protocol in PROTOCOLS for name in protocol.reads]):
        if chosen and name not in read:
            names = ", ".join(protocol.name for protocol in chosen)
            raise ValueError(f"--{name.replace('_', '-')} is read by none of {names}: leave it out, or add a protocol")


def _check_settings(protocol: Protocol, settings: Settings) -> None:
    """Refuses settings that a protocol does not have."""
    for name in settings.changed:
        if name not in protocol.settings:
            others = ", ".join(one.name for one in PROTOCOLS if name in one.settings)
            flag = "cfg-options" if name == "options" else name.replace("_", "-")
            raise ValueError(
                f"--{flag} is for {others}, not for {protocol.name}: leave it out, or choose with --protocol"
            )


def _is_possible(run: Run, seeds: Sequence[int], *, required: bool) -> bool:
    """Whether the data suffice.

    Raises:
        ValueError: If they do not, and the protocol is required.
    """
    protocol, data = run
    try:
        for seed in seeds:
            protocol.check_data(data, seed)
    except ValueError as error:
        if required:
            raise
        print(f"{data.name} {protocol.name} is left out: {error}", file=sys.stderr)
        return False
    return True


def evaluate_all(
    networks: Sequence[Network], runs: Sequence[Run], seeds: Sequence[int], *, work_dir: str, settings: Settings
) -> Iterator[Result]:
    """Measures every network by every protocol with every seed; see :func:`evaluate`.

    All are checked before the first is trained.

    Args:
        networks: Networks to measure.
        runs: Protocols and data.
        seeds: Random seeds.
        work_dir: Folder of results, features and unfinished runs.
        settings: What differs from the paper.

    Yields:
        Results.
    """
    for protocol, data in runs:
        _check_settings(protocol, settings)
        for network in networks:
            protocol.check_network(network, settings)
        for seed in seeds:
            protocol.check_data(data, seed)
    for protocol, data in runs:
        for network in networks:
            for seed in seeds:
                yield evaluate(network, protocol, data, seed=seed, work_dir=work_dir, settings=settings)


def evaluate(
    network: Network,
    protocol: Protocol,
    data: MeasuredData,
    *,
    seed: int,
    work_dir: str,
    settings: Settings | None = None,
) -> Result:
    """Measures one network by one protocol, unless its result is in ``work_dir`` already.

    Args:
        network: Network to measure.
        protocol: How.
        data: Training and test images.
        seed: Random seed.
        work_dir: Folder of results, features and unfinished runs.
        settings: What differs from the paper.

    Returns:
        The result, also written to ``work_dir/result-*.json``.

    Raises:
        ValueError: If the data or the network do not allow it.
        ChildProcessError: If training fails.
    """
    settings = settings or Settings()
    _check_settings(protocol, settings)
    protocol.check_network(network, settings)
    stem = f"{protocol.name}-{data.name}-{_key(network, protocol, data, seed, settings)}"
    path = os.path.join(work_dir, f"result-{stem}.json")
    known = _read_known(path)
    if known and matches(
        known,
        protocol=protocol.name,
        data=data.name,
        seed=seed,
        identity=network.identity,
        data_sha256=data.labels_digest,
    ):
        # The file may have been renamed or moved since.
        return replace(known, network=network.name, checkpoint=network.about)
    job = Job(network, data, seed, work_dir, os.path.join(work_dir, stem), settings)
    result = _make_result(protocol, job, protocol.run(job))
    write_result(result, path)
    return result


def _make_result(protocol: Protocol, job: Job, outcome: Outcome) -> Result:
    """The result of a job, complete enough to be compared later."""
    figures, changed = dict(outcome.figures), job.settings.changed
    return Result(
        network=job.network.name,
        protocol=protocol.name,
        data=job.data.name,
        seed=job.seed,
        metric=protocol.metric,
        value=figures.pop(protocol.metric),
        as_published=not changed and job.data.is_official,
        checkpoint=job.network.about,
        counts=job.data.counts,
        data_sha256=job.data.labels_digest,
        settings={**outcome.settings, "seed": job.seed, "changed": changed},
        further={**figures, **outcome.further},
        versions=package_versions(),
    )


def _key(network: Network, protocol: Protocol, data: MeasuredData, seed: int, settings: Settings) -> str:
    """A hash of all that a result depends on; another order of these would lose the results that exist."""
    return fingerprint(
        network.identity,
        protocol.name,
        data.name,
        data.digest,
        # An edited config is another protocol.
        load_recipe(protocol.config).pretty_text if protocol.config else "",
        seed,
        asdict(settings),
        package_versions()["sspyr_mm"],
        *map(find_distribution, protocol.packages),
    )


def _read_known(path: str) -> Result | None:
    """The result of an earlier run; None if its file does not exist or is damaged."""
    if not os.path.exists(path):
        return None
    try:
        return read_result(path)
    except ValueError as error:
        print(f"Measured again: {error}", file=sys.stderr)
        return None
