"""`gpnas veto`: an architecture that is not to be trained."""

from __future__ import annotations

import argparse

from gpnas.cli.reporting import Report
from gpnas.opening import open_search


def run(options: argparse.Namespace) -> Report:
    with open_search(options.search, bound=False) as search:
        architecture = search.named(options.architecture)
        search.veto(architecture)
    return Report(
        {"vetoed": architecture.to_json()}, [f"{architecture} will not be trained, unless it is wanted"]
    )
