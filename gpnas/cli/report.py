"""`gpnas report`: a page about a search, for people to read."""

from __future__ import annotations

import argparse

from gpnas.cli.reporting import Report
from gpnas.cli.text import printable
from gpnas.report import Request, write_report


def run(options: argparse.Namespace) -> Report:
    request = Request(
        tuple(options.sources), options.output, options.data, options.evaluation, tuple(options.networks)
    )
    document = write_report(request)
    size = f"{document['bytes'] / 1e6:.1f} MB"
    return Report(document, [f"{printable(document['report'])}: {size}, opens in any browser"])
