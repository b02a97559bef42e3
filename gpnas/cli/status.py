"""`gpnas status`: where a search stands."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping
from typing import Any

from rich.console import RenderableType

from gpnas.cli import display
from gpnas.cli.reporting import Report
from gpnas.cli.tables import Table
from gpnas.cli.text import label, legend
from gpnas.journal import status
from gpnas.records import Architecture


def run(options: argparse.Namespace) -> Report:
    document = status(options.search)
    return Report(document, _shown(document))


def _shown(document: Mapping[str, Any]) -> Iterator[RenderableType]:
    candidates = Table(
        f"{document['run']}: {document['state']}",
        *("candidate", "architecture", "state", "PSNR dB", "seconds", "attempts"),
        whole=("candidate", "architecture"),
        left=("state",),
    )
    architectures = [Architecture.from_json(row["architecture"]) for row in document["candidates"]]
    for row, architecture in zip(document["candidates"], architectures, strict=True):
        candidates.add_row(
            row["id"],
            label(architecture),
            row["stopped"]["reason"] if "stopped" in row else row["state"],
            "" if row["psnr"] is None else f"{row['psnr']:.2f}",
            "" if row["seconds"] is None else f"{row['seconds']:.1f}",
            str(row["attempts"]),
        )
    yield candidates
    if architectures:
        yield legend(architectures)
    if "diagnostics" in document:
        yield from display.diagnostics(document["diagnostics"])
    if "note" in document:
        yield document["note"]
