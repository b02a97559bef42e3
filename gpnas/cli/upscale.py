"""`gpnas upscale`: images, super-resolved by a bundle."""

from __future__ import annotations

import argparse

from gpnas.cli.arguments import bundle_of, levels_of
from gpnas.cli.reporting import Report
from gpnas.cli.terminal import bar, fail, say
from gpnas.cli.text import printable
from gpnas.ensemble import upscale_files


def run(options: argparse.Namespace) -> Report:
    levels = levels_of(options)
    bundle = bundle_of(options)
    with bar("tiles") as progress:
        results = upscale_files(
            bundle,
            options.inputs,
            options.output,
            levels,
            average=options.average,
            convert=options.convert,
            progress=lambda name, done, total: progress(done, total, name),
            say=say,
        )
    failed = [each for each in results if each.error is not None]
    if failed:
        fail(f"every image must be read and its result written, but {len(failed)} of {len(results)} were not")
    return Report(
        [
            {"input": str(each.source)}
            | ({"output": str(each.target)} if each.error is None else {"error": each.error})
            for each in results
        ],
        [f"{printable(each.source)} -> {printable(each.target)}" for each in results if each.error is None],
        1 if failed else 0,
    )
