"""`gpnas upscale`: images, super-resolved by a bundle."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.progress import Progress

from gpnas.cli.console import add_levels, log, out, plain


def add_command(command: Callable[..., Any]) -> None:
    """Adds it; `command` makes a parser with what all commands share."""
    upscale = command("upscale", _upscale, "make super-resolved images")
    upscale.add_argument("bundle", metavar="BUNDLE", type=Path, help="folder or .zip")
    upscale.add_argument("inputs", metavar="IN", nargs="+", type=Path, help="images, or folders of them")
    upscale.add_argument("-o", "--output", type=Path, required=True, help="a file, or a folder for several")
    add_levels(
        upscale,
        drop_outlier="of three or more networks, leave out at each pixel the one farthest from their median",
        self_ensemble="average over eight flips and transposes",
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
            average=options.average,
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
