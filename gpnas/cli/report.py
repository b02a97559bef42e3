"""`gpnas report`."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gpnas.cli.console import out, plain


def add_command(command: Callable[..., Any]) -> None:
    """Adds it to the parser."""
    report = command("report", _report, "write a page about a search, for people to read")
    report.add_argument("search", metavar="RUN", type=Path, help="run folder, also of a search under way")
    report.add_argument(
        "-o", "--output", type=Path, default=Path("report.html"), help="the file (default: report.html)"
    )


def _report(options: argparse.Namespace) -> Any:
    from gpnas.report.writing import Request, write_report

    document = write_report(Request((options.search,), options.output))
    if options.json:
        return document
    out.print(f"{plain(document['report'])}: {document['bytes'] / 1e6:.1f} MB, opens in any browser")
    return None
