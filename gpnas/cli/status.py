"""`gpnas status`: where a run stands."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rich.console import RenderableType

from gpnas.cli import display
from gpnas.cli.live import Screen, ended_line, left_to_gain, looking
from gpnas.cli.reporting import Report
from gpnas.cli.tables import Table
from gpnas.cli.terminal import log, say
from gpnas.cli.text import label, legend, printable
from gpnas.journal import Look, status
from gpnas.records import Architecture, Objective, Prospect

SHOWN = 20
"""Trials that had ended before that are shown where a run begins to be watched."""


def run(options: argparse.Namespace) -> Report:
    if options.watch:
        _watch(options.search)
    document = status(options.search)
    return Report(document, _shown(document))


def _watch(run: Path) -> None:
    """Shows a run until its driver has ended, as the terminal of its driver does."""
    screen = Screen()
    told: list[int] = []

    def again(seen: Look) -> bool:
        if not told and seen.ended:
            say(f"candidate  {legend(each.candidate.architecture for each in seen.ended)}")
        for observation in seen.ended[told[-1] if told else max(0, len(seen.ended) - SHOWN) :]:
            log.print(ended_line(observation, seen.objective))
        if seen.ended:
            told.append(len(seen.ended))
        screen.show(seen)
        return seen.state == "running"

    with screen.drawn():
        looking(run, again)


def _shown(document: Mapping[str, Any]) -> Iterator[RenderableType]:
    objective = document["objective"]
    value = objective["name"].upper() if objective["unit"] == "dB" else objective["name"]
    candidates = Table(
        f"{document['run']}: {document['state']}",
        *("candidate", "architecture", "state", printable(f"{value} {objective['unit']}".strip())),
        *("seconds", "attempts"),
        whole=("candidate", "architecture"),
        left=("state",),
    )
    architectures = [Architecture.from_json(row["architecture"]) for row in document["candidates"]]
    for row, architecture in zip(document["candidates"], architectures, strict=True):
        candidates.add_row(
            row["id"],
            label(architecture),
            row["stopped"]["reason"] if "stopped" in row else row["state"],
            "" if row["value"] is None else f"{row['value']:.2f}",
            "" if row["seconds"] is None else f"{row['seconds']:.1f}",
            str(row["attempts"]),
        )
    yield candidates
    if architectures:
        yield legend(architectures)
    if "prospect" in document:
        yield left_to_gain(Prospect(**document["prospect"]), Objective(**objective))
    if "diagnostics" in document:
        yield from display.diagnostics(document["diagnostics"])
    if "note" in document:
        yield document["note"]
