"""`gpnas upscale`: images, super-resolved by a bundle."""

from __future__ import annotations

import argparse

from gpnas.bundle import read_bundle
from gpnas.cli.arguments import levels_of
from gpnas.cli.reporting import Report
from gpnas.cli.terminal import bar, say
from gpnas.cli.text import printable
from gpnas.ensemble import upscale_files


def run(options: argparse.Namespace) -> Report:
    levels = levels_of(options)
    bundle = read_bundle(options.bundle)
    with bar("tiles") as progress:
        written = upscale_files(
            bundle,
            options.inputs,
            options.output,
            levels,
            average=options.average,
            convert=options.convert,
            progress=lambda name, done, total: progress(done, total, name),
            say=say,
        )
    return Report(
        [{"input": str(source), "output": str(target)} for source, target in written],
        [f"{printable(source)} -> {printable(target)}" for source, target in written],
    )
