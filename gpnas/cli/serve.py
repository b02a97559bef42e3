"""`gpnas serve`: searches that people and machines share."""

from __future__ import annotations

import argparse

from gpnas.cli.reporting import Report
from gpnas.cli.terminal import say
from gpnas.service.managed import Managing
from gpnas.service.serving import Address, serve


def run(options: argparse.Namespace) -> Report:
    address = Address(options.host, options.port, tuple(options.host_name), options.certificate, options.key)
    trainers = None if options.trainers is None else options.trainers.absolute()
    serve(options.runs, address, say, Managing(options.address, trainers))
    return Report({"runs": str(options.runs)}, [])
