"""Protocols by name, and what can't be measured with what: refused before the first hour's work."""

from collections.abc import Sequence

from sspyr_mm.benchmarks.classification.finetune import FINETUNE, choose_images
from sspyr_mm.benchmarks.classification.multi_label_data import BenchmarkData
from sspyr_mm.benchmarks.dense.dense_data import DenseData
from sspyr_mm.benchmarks.dense.protocols import DENSE, check_backbone, check_compiled_ops
from sspyr_mm.benchmarks.networks import Network
from sspyr_mm.benchmarks.settings import Settings
from sspyr_mm.benchmarks.training.recipes import apply_options, load_recipe

PROTOCOLS = ("linear", *FINETUNE, *DENSE)


def recipe_name(protocol: str) -> str | None:
    """The config of a protocol, below ``configs/benchmarks``.

    Args:
        protocol: One of ``PROTOCOLS``.

    Returns:
        The file; None for ``linear``, which needs none.
    """
    recipe = DENSE.get(protocol) or FINETUNE.get(protocol)
    return recipe.config if recipe else None


def check_settings(protocol: str, settings: Settings) -> None:
    """Refuses settings that a protocol does not have.

    Args:
        protocol: One of ``PROTOCOLS``.
        settings: What differs from the paper.

    Raises:
        ValueError: If a grid of ``linear`` is given for another protocol, the length of the training in a unit that the
            protocol does not count in, or an option that its config has no place for.
    """
    dense = protocol in DENSE
    for name, wrong in (("epochs", dense), ("iterations", not dense), ("batch_size", not dense)):
        if wrong and getattr(settings, name) is not None:
            others = [other for other in PROTOCOLS if (other in DENSE) == (name != "epochs")]
            raise ValueError(
                f"--{name.replace('_', '-')} is for {', '.join(others)}, not for {protocol}: leave it out, or choose "
                "with --protocol"
            )
    if settings.learning_rates is not None and protocol != "linear":
        raise ValueError(
            f"--learning-rates is the grid of `linear`; {protocol} has rates of its own: leave it out, or add "
            "--protocol linear"
        )
    if settings.options is not None:
        if (recipe := recipe_name(protocol)) is None:
            raise ValueError(
                "--cfg-options changes a config, and `linear` runs none: leave it out, or choose another protocol with "
                "--protocol"
            )
        apply_options(load_recipe(recipe), settings.options)


def check_run(
    protocol: str,
    data: BenchmarkData | DenseData,
    seeds: Sequence[int],
    settings: Settings,
    networks: Sequence[Network] = (),
) -> None:
    """Refuses what could only fail later.

    Args:
        protocol: One of ``PROTOCOLS``.
        data: Training and test images.
        seeds: Of the runs.
        settings: What differs from the paper.
        networks: What is to be measured.

    Raises:
        ValueError: If the protocol does not have a setting, there are too few images for it, or it is for other
            networks.
        ImportError: If it needs compiled ops, and mmcv has none.
    """
    check_settings(protocol, settings)
    if isinstance(data, BenchmarkData) and protocol in FINETUNE:
        for seed in seeds:
            choose_images(FINETUNE[protocol], data, seed)
    if protocol in DENSE:
        check_compiled_ops(protocol)
        for network in networks:
            check_backbone(protocol, network.checkpoint.backbone, network.name)
