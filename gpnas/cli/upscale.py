"""`gpnas upscale`: images, super-resolved by a bundle."""

from __future__ import annotations

import argparse
from pathlib import Path

from gpnas.bundle import read_bundle
from gpnas.cli.arguments import levels_of
from gpnas.cli.reporting import Report
from gpnas.cli.terminal import bar, fail, say
from gpnas.cli.text import printable
from gpnas.ensemble import Incomplete, upscale_files


def run(options: argparse.Namespace) -> Report:
    levels = levels_of(options)
    bundle = read_bundle(options.bundle)
    failed: dict[Path, str] = {}
    with bar("tiles") as progress:
        try:
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
        except Incomplete as error:  # what was made is told all the same
            fail(str(error))
            written, failed = error.written, error.failed
    return Report(
        [
            *({"input": str(source), "output": str(target)} for source, target in written),
            *({"input": str(source), "error": line} for source, line in failed.items()),
        ],
        [f"{printable(source)} -> {printable(target)}" for source, target in written],
        exit_code=1 if failed else 0,
    )
