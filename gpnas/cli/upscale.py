"""`gpnas upscale`: images, super-resolved by a bundle."""

from __future__ import annotations

import argparse

from gpnas.bundle import read_bundle
from gpnas.cli.reporting import Report
from gpnas.cli.terminal import bar, say
from gpnas.cli.text import printable
from gpnas.ensemble import upscale_files


def run(options: argparse.Namespace) -> Report:
    bundle = read_bundle(options.bundle)
    with bar("tiles") as progress:
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
            convert=options.convert,
            progress=lambda name, done, total: progress(done, total, name),
            say=say,
        )
    return Report(
        [{"input": str(source), "output": str(target)} for source, target in written],
        [f"{printable(source)} -> {printable(target)}" for source, target in written],
    )
