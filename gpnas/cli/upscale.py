"""`gpnas upscale`: images, super-resolved by a bundle."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.progress import Progress

from gpnas.cli.console import log, out, plain, sides


def add_command(command: Callable[..., Any]) -> None:
    """Adds it; `command` makes a parser with what all commands share."""
    upscale = command("upscale", _upscale, "make super-resolved images")
    upscale.add_argument("bundle", metavar="BUNDLE", type=Path, help="folder or .zip")
    upscale.add_argument("inputs", metavar="IN", nargs="+", type=Path, help="images, or folders of them")
    upscale.add_argument("-o", "--output", type=Path, required=True, help="a file, or a folder for several")
    upscale.add_argument(
        "--self-ensemble",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="average over eight flips and transposes",
    )
    upscale.add_argument(
        "--tile",
        metavar="SIDE[,SIDE...]",
        type=sides,
        default=(120,),
        help="of tiles, in LR pixels; of several, each makes an image, and those are averaged; 0 takes the "
        "whole image at once (default: 120)",
    )
    upscale.add_argument("--overlap", type=int, help="LR pixels shared by tiles (default: half of each tile)")
    upscale.add_argument(
        "--blend",
        choices=("distance", "gaussian", "constant"),
        default="distance",
        help="how a tile's pixels count: by their distance from its centre, or equally (default: distance)",
    )
    upscale.add_argument(
        "--drop-outlier",
        action="store_true",
        help="of three or more networks, leave out at each pixel the one farthest from their median",
    )
    upscale.add_argument(
        "--precision",
        choices=("float32", "bfloat16", "float16"),
        default="float32",
        help="of the networks; float16 needs a GPU (default: float32)",
    )


def _upscale(options: argparse.Namespace) -> Any:
    from gpnas.bundle import read_bundle
    from gpnas.ensemble import upscale_files

    bundle = read_bundle(options.bundle)
    with Progress(console=log, transient=True) as bar:
        task = bar.add_task("tiles", total=None)
        written = upscale_files(
            bundle,
            options.inputs,
            options.output,
            tile=options.tile,
            overlap=options.overlap,
            blend=options.blend,
            self_ensemble=options.self_ensemble,
            drop_outlier=options.drop_outlier,
            precision=options.precision,
            progress=lambda name, done, total: bar.update(
                task, description=name, completed=done, total=total
            ),
            say=lambda line: log.print(plain(line)),
        )
    if options.json:
        return [{"input": str(source), "output": str(target)} for source, target in written]
    for source, target in written:
        out.print(f"{plain(source)} -> {plain(target)}")
    return None
