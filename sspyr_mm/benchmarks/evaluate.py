"""Runs protocols on networks and data: the work of ``evaluate``. Existing results are reused."""

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from functools import cache
from itertools import product
from typing import TypeAlias

from sspyr_mm.benchmarks.base_protocol import DataOptions, Job, Outcome, Protocol, Settings
from sspyr_mm.benchmarks.classification.multi_label_data import MeasuredData
from sspyr_mm.benchmarks.networks import Network
from sspyr_mm.benchmarks.protocols import PROTOCOLS
from sspyr_mm.benchmarks.results.result import Result, fingerprint, package_versions, read_result, write_result
from sspyr_mm.benchmarks.training.recipes import load_recipe
from sspyr_mm.compat import find_distribution

Run: TypeAlias = tuple[Protocol, MeasuredData]
"""A protocol and the data set it is evaluated on."""


def plan_runs(chosen: Sequence[Protocol], options: DataOptions, seeds: Sequence[int], settings: Settings) -> list[Run]:
    """Reads the data and pairs each protocol with each of its data sets.

    Without ``chosen`` protocols, these are the ones that run by default on the given data and have enough images.
    Raises ValueError if a chosen protocol lacks a setting or data, or none of them reads a given data set, ImportError
    if a protocol needs compiled ops, and mmcv has none.
    """
    for protocol in chosen:
        _check_settings(protocol, settings)
    _check_data_is_used(options, chosen)
    protocols = chosen or [p for p in PROTOCOLS if p.by_default and options.given(p.reads)]
    if not protocols:
        raise ValueError("No data: give --voc DIR, --coco DIR, --train SET with --test SET, or --voc-masks DIR")
    readers: dict[Callable, list[Protocol]] = {}  # protocols that share data read them once
    for protocol in protocols:
        readers.setdefault(type(protocol).load_data, []).append(protocol)
    runs = []
    for group in readers.values():
        for data in group[0].load_data(options):
            for protocol in group:
                if chosen or not protocol.default_data or data.name in protocol.default_data:
                    runs.append((protocol, data))
    return [run for run in runs if _has_enough_data(run, seeds, required=bool(chosen))]


def _check_data_is_used(options: DataOptions, chosen: Sequence[Protocol]) -> None:
    """Raises ValueError for a data set that no chosen protocol reads."""
    read = {name for protocol in chosen for name in protocol.reads}
    for name in options.given([name for protocol in PROTOCOLS for name in protocol.reads]):
        if chosen and name not in read:
            names = ", ".join(protocol.name for protocol in chosen)
            raise ValueError(f"--{name.replace('_', '-')} is not read by {names}: leave it out, or add a protocol")


def _check_settings(protocol: Protocol, settings: Settings) -> None:
    for name in settings.changed:
        if name not in protocol.settings:
            others = ", ".join(one.name for one in PROTOCOLS if name in one.settings)
            flag = "cfg-options" if name == "options" else name.replace("_", "-")
            raise ValueError(
                f"--{flag} is for {others}, not for {protocol.name}: leave it out, or choose with --protocol"
            )


def _has_enough_data(run: Run, seeds: Sequence[int], *, required: bool) -> bool:
    """Returns whether the data suffice; raises the reason if the protocol is required."""
    protocol, data = run
    try:
        for seed in seeds:
            protocol.check_data(data, seed)
    except ValueError as error:
        if required:
            raise
        print(f"{data.name} {protocol.name} is skipped: {error}", file=sys.stderr)
        return False
    return True


def evaluate_all(
    networks: Sequence[Network], runs: Sequence[Run], seeds: Sequence[int], *, work_dir: str, settings: Settings
) -> Iterator[Result]:
    """Evaluates every network by every protocol of :func:`plan_runs` with every seed, after checking all of them.

    Raises ValueError if a protocol does not support a network or a setting, and the errors of :func:`evaluate`.
    """
    for protocol, _ in runs:
        _check_settings(protocol, settings)
        for network in networks:
            protocol.check_network(network, settings)
    for (protocol, data), network, seed in product(runs, networks, seeds):
        yield evaluate(network, protocol, data, seed=seed, work_dir=work_dir, settings=settings)


def evaluate(
    network: Network, protocol: Protocol, data: MeasuredData, *, seed: int, work_dir: str, settings: Settings
) -> Result:
    """Evaluates one network by one protocol, or returns its result (``result-*.json``) if ``work_dir`` contains it.

    Raises ValueError if the data or the network cannot be used, ChildProcessError if training fails.
    """
    stem = f"{protocol.name}-{data.name}-{_key(network, protocol, data, seed, settings)}"
    path = os.path.join(work_dir, f"result-{stem}.json")
    try:
        known = read_result(path) if os.path.exists(path) else None
    except ValueError as error:
        print(f"{error}; measured again", file=sys.stderr)
        known = None
    request = (protocol.name, data.name, seed, data.labels_digest, network.identity)
    if known and known.request == request:  # the file may have been renamed, copied or edited
        # The checkpoint file may have been renamed or moved since.
        return replace(known, network=network.name, checkpoint=network.about)
    job = Job(network, data, seed, work_dir, os.path.join(work_dir, stem), settings)
    result = _make_result(protocol, job, protocol.run(job))
    write_result(result, path)
    return result


def _make_result(protocol: Protocol, job: Job, outcome: Outcome) -> Result:
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
    """Returns a hash of everything a result depends on; another order of its parts would invalidate old results."""
    return fingerprint(
        network.identity,
        protocol.name,
        data.name,
        data.digest,
        # An edited config gives other results.
        _recipe_text(protocol.config) if protocol.config else "",
        seed,
        asdict(settings),
        package_versions()["sspyr_mm"],
        *map(find_distribution, protocol.packages),
    )


@cache
def _recipe_text(config: str) -> str:
    """Returns the text of a protocol's config; formatting it takes seconds."""
    return load_recipe(config).pretty_text
