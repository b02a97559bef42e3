"""`gpnas export`: another bundle of a finished search."""

from __future__ import annotations

import argparse

from gpnas.bundle import Licence, known_licence, read_licence
from gpnas.cli.arguments import allowance_of
from gpnas.cli.reporting import Report
from gpnas.cli.terminal import say
from gpnas.cli.text import printable
from gpnas.results.exporting import export


def run(options: argparse.Namespace) -> Report:
    text = None
    if options.licence_file is not None:
        text = read_licence(options.licence_file)
    elif options.licence is not None:
        text = known_licence(options.licence, options.licence_holder)
        if text is None:
            say(f"{options.licence}: its text is not known here; --licence-file FILE adds it")
    document = export(
        options.search,
        options.top,
        options.output,
        allowance=allowance_of(options),
        picture=options.picture or not options.no_picture,
        licence=Licence(options.licence, text),
    )
    networks, psnr = len(document["portfolio"]), document["psnr"]
    count = "one network" if networks == 1 else f"{networks} networks"
    lines = [*document["selection"]["left_out"], f"{count}, {psnr:.2f} dB: {document['bundle']}"]
    return Report(document, map(printable, lines))
