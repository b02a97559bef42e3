"""`gpnas serve`: searches that people and machines share."""

from __future__ import annotations

import argparse

from gpnas.cli.reporting import Report
from gpnas.cli.terminal import say
from gpnas.service.serving import Address, serve


def run(options: argparse.Namespace) -> Report:
    address = Address(options.host, options.port, tuple(options.host_name), options.certificate, options.key)
    serve(options.runs, address, say)
    return Report({"runs": str(options.runs)}, [])
