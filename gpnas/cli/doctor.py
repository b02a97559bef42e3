"""`gpnas doctor`: what a bug report needs, and what may be wrong here."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import asdict

from rich.console import RenderableType

from gpnas.cli.reporting import Report
from gpnas.cli.tables import Table
from gpnas.cli.text import printable
from gpnas.results.checkup import Check, examined

STYLES = {"good": None, "note": "yellow", "bad": "red"}


def run(options: argparse.Namespace) -> Report:
    checks = examined(options.path)
    bad = any(check.verdict == "bad" for check in checks)
    return Report({"good": not bad, "checks": [asdict(check) for check in checks]}, _shown(checks), int(bad))


def _shown(checks: Sequence[Check]) -> Iterator[RenderableType]:
    table = Table("", "part", "what", "", "finding", left=("part", "finding", ""), whole=("what",))
    part = None
    for check in checks:
        if part not in (None, check.part):
            table.add_section()
        mark = "" if check.verdict == "good" else check.verdict
        shown = (printable(text) for text in ("" if check.part == part else check.part, check.subject))
        table.add_row(*shown, mark, printable(check.finding), style=STYLES[check.verdict])
        part = check.part
    yield table
    bad, notes = (sum(check.verdict == verdict for check in checks) for verdict in ("bad", "note"))
    yield f"{bad} bad, {notes} worth knowing, {len(checks) - bad - notes} good"
