"""`gpnas explain`: why candidates were chosen."""

from __future__ import annotations

import argparse

from gpnas.cli import display
from gpnas.cli.reporting import Report
from gpnas.cli.terminal import bar
from gpnas.results.recall import explain_candidate, explain_search


def run(options: argparse.Namespace) -> Report:
    if options.candidate:
        document = explain_candidate(options.search, options.candidate)
        return Report(document, display.candidate(document))
    with bar("candidates") as progress:
        document = explain_search(options.search, progress)
    return Report(document, display.overview(document))
