"""``python -m sspyr_mm atlas``: shows what the prototypes of a checkpoint have learned."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sspyr_mm.cli.arguments import (
    add_checkpoint_options,
    add_custom_import,
    add_images_and_out,
    non_negative_int,
    positive_int,
    reading_options,
)

if TYPE_CHECKING:
    from sspyr_mm.models import SSPRL
    from sspyr_mm.reports.atlas.atlas_server import Locator


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's arguments."""
    parser.add_argument("checkpoint", help="pre-training checkpoint of SS-PRL")
    add_images_and_out(parser, needs_images=False, note="; not needed to serve an atlas that exists")
    parser.add_argument("--rows", type=positive_int, default=8, help="prototypes of the figure (default: %(default)s)")
    parser.add_argument("--columns", type=positive_int, default=8, help="cells of each (default: %(default)s)")
    parser.add_argument(
        "--points",
        type=non_negative_int,
        default=10_000,
        help="cells on the map of a scale, at most; 0 for no map (default: %(default)s)",
    )
    after = parser.add_mutually_exclusive_group()
    after.add_argument(
        "--serve",
        type=non_negative_int,
        metavar="PORT",
        help="serve the page on this machine, to look up your own images; 0: any free port",
    )
    after.add_argument(
        "--open",
        choices=("embedding-atlas", "fiftyone", "tensorboard"),
        help="show the maps in another program afterwards",
    )
    add_checkpoint_options(parser)
    add_custom_import(parser)


def run(args: argparse.Namespace) -> int:
    """Writes the table, the figure and the page, shows them if asked to, and returns 0."""
    from sspyr_mm.checkpoints import load_pretraining
    from sspyr_mm.checkpoints.formats.training_settings import training_decoding
    from sspyr_mm.machine import limit_threads
    from sspyr_mm.reports.atlas.atlas_page import check_folder
    from sspyr_mm.reports.atlas.atlas_server import Locator, check_port, load_embeddings
    from sspyr_mm.reports.atlas.viewers import VIEWERS, show

    if args.open:
        if not args.points:
            raise ValueError(f"--open {args.open} shows maps, and --points 0 omits them: give a larger number")
        VIEWERS[args.open].check()
    if args.images is None and args.serve is None:
        raise ValueError("--images is missing: only --serve shows an atlas that exists")
    check_folder(args.out)
    if args.serve:
        check_port(args.serve)
    cfg, model = load_pretraining(args.checkpoint, **reading_options(args))
    decoding = training_decoding(cfg, where=args.checkpoint)
    limit_threads(args.workers)
    command = _write(args, model, decoding) if args.images is not None else None
    if args.serve is not None:
        _serve(args, Locator(model, load_embeddings(args.out, _source(args)), decoding))
    return show(command) if command else 0


def _source(args: argparse.Namespace) -> str:
    """Returns a text that identifies the network: a checksum of its file, and the selection of its weights."""
    from sspyr_mm.tensor_files import file_sha256

    return f"{file_sha256(args.checkpoint)} {args.key} {args.prefix} {args.ema}"


def _write(args: argparse.Namespace, model: "SSPRL", decoding: dict[str, Any]) -> list[str] | None:
    """Writes all files, and returns the command of ``--open``."""
    from sspyr_mm.datasets import UnlabelledImages
    from sspyr_mm.features.export import require_pyarrow
    from sspyr_mm.files import new_files
    from sspyr_mm.machine import list_devices
    from sspyr_mm.reports.atlas.atlas_files import write_figure, write_table
    from sspyr_mm.reports.atlas.atlas_map import compute_map, require_umap
    from sspyr_mm.reports.atlas.atlas_page import correlations, write_page
    from sspyr_mm.reports.atlas.atlas_server import save_embeddings
    from sspyr_mm.reports.atlas.scale_atlas import measure_atlas
    from sspyr_mm.reports.atlas.viewers import VIEWERS

    require_pyarrow("atlas")
    if args.points:
        require_umap("the map of an atlas", "--points 0")
    paths = UnlabelledImages(args.images, lazy_init=True).list_images()
    read: dict[str, Any] = {"decoding": decoding, "num_workers": args.workers}
    title = "/".join(Path(args.checkpoint).absolute().parts[-2:])  # file names are equal in all runs
    with new_files(args.out) as new:
        print(f"assigning prototypes to {len(paths)} images", flush=True)
        atlas = measure_atlas(model, paths, num_mapped=args.points, device=list_devices()[0], **read)
        print("drawing maps, figure and page", flush=True)
        maps = {part.scale: found for part in atlas if (found := compute_map(part)) is not None}
        write_table(new / "atlas.parquet", atlas, paths, maps, **read)
        files = write_figure(new, atlas, paths, decoding=decoding, num_prototypes=args.rows, num_cells=args.columns)
        page = write_page(new, atlas, paths, correlations(model), title=title, maps=maps, **read)
        save_embeddings(new, atlas, _source(args))
    for part in atlas:
        used = int((part.usage() > 0).sum())
        print(f"{part.scale}: {used} of {part.num_prototypes} prototypes used by {len(part.prototype)} cells")
    for name in ("atlas.parquet", *(file.name for file in files), page.name):
        print(Path(args.out, name))
    if args.open and not maps:
        raise ValueError(f"--open {args.open} shows maps, and no scale has enough cells for one: give more images")
    return VIEWERS[args.open].write(args.out, atlas, maps) if args.open else None


def _serve(args: argparse.Namespace, locate: "Locator") -> None:
    """Serves until Ctrl-C."""
    from contextlib import suppress

    from sspyr_mm.reports.atlas.atlas_server import make_server

    with make_server(args.out, locate, args.serve) as server, suppress(KeyboardInterrupt):
        print(f"http://127.0.0.1:{server.server_port}/  (Ctrl-C ends)", flush=True)
        server.serve_forever()
