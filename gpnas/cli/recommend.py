"""`gpnas recommend`: which architectures to begin with."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping
from typing import Any

from rich.console import RenderableType

from gpnas.cli.reporting import Report
from gpnas.cli.tables import Table
from gpnas.cli.terminal import say
from gpnas.cli.text import duration, label, legend
from gpnas.records import Architecture
from gpnas.results.recommending import recommend
from gpnas.run.shipped import SPACE

SHOWN = 10


def run(options: argparse.Namespace) -> Report:
    document = recommend(options.data, options.hours, options.scale, say)
    return Report(document, _shown(document))


def _shown(document: Mapping[str, Any]) -> Iterator[RenderableType]:
    rows = document["architectures"]
    title = f"What to begin with at ×{document['scale']}, from {document['trainings']} finished trainings"
    table = Table(title, "architecture", "PSNR dB", "90 % interval", "time", whole=("architecture",))
    architectures = [Architecture.from_json(row["architecture"]) for row in rows[:SHOWN]]
    for row, architecture in zip(rows, architectures, strict=False):
        table.add_row(
            label(architecture),
            f"{row['mean']:.2f}",
            f"{row['low']:.2f} … {row['high']:.2f}",
            duration(3600 * row["hours"]),
        )
    yield table
    yield legend(architectures)
    total = sum(row["hours"] for row in rows)
    speeds = sorted(document["speeds"].values())
    yield (
        f"{len(rows)} trainings of {document['steps']} steps take about {duration(3600 * total)} of one core "
        f"here, where one takes {speeds[0]:.2g} to {speeds[-1]:.2g} times, by family, what it took where the "
        "table was made"
    )
    yield "PSNR is that of the table's photographs: on others take the order, not the numbers"
    yield f"next: gpnas search --space {SPACE} --warm-start shipped"
