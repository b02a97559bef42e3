"""`gpnas space`: what a space file means."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.console import RenderableType

from gpnas.cli.reporting import Report
from gpnas.cli.tables import Table
from gpnas.cli.terminal import bar
from gpnas.cli.text import printable
from gpnas.results.description import describe


def run(options: argparse.Namespace) -> Report:
    with bar("architectures") as progress:
        document = describe(options.space, progress, own_families=options.own)
    return Report(document, _shown(document))


def _shown(document: Mapping[str, Any]) -> Iterator[RenderableType]:
    part = f", {document['share']:.1%} of {document['size']:,}" if document["limits"] else ""
    scale = f"×{document['scale']}, " if document["cheapest"] else ""
    yield f"{printable(document['file'])}: {scale}{document['feasible']:,} architectures{part}"
    if document["limits"]:
        title = "What each limit excludes of what those above leave"
        limits = Table(title, "limit", "excludes", "leaves", left=("limit",))
        for row in document["limits"]:
            limits.add_row(row["limit"], f"{row['excludes']:,}", f"{row['leaves']:,}")
        yield limits
    axes = Table("Axes", "family", "axis", "kind", "values", left=("family", "axis", "kind", "values"))
    for name, family in document["families"].items():
        family_cell = f"{name}: {family['architectures']:,}"
        for axis in family["axes"]:
            axes.add_row(family_cell, axis["name"], axis["kind"], _in_short(axis["values"]))
            family_cell = ""
    yield axes
    for word in ("cheapest", "dearest"):
        row = document[word]
        if row is None:
            continue
        yield (
            f"{word}: {printable(row['name'])}  {row['parameters']:,} parameters, "
            f"{row['gmacs']:.2f} GMACs at 120×120, {row['memory'] / 1e6:,.0f} MB in training"
        )
    if document["design"]:
        yield "the first design would train:"
    for name in document["design"]:
        yield f"  {printable(name)}"


def _in_short(values: Sequence[Any]) -> str:
    """Values in a line; the middle of many is left out."""
    shown = [str(value) for value in values]
    if len(shown) > 10:
        shown = [*shown[:4], "…", *shown[-2:]]
        return f"{', '.join(shown)} ({len(values)} values)"
    return ", ".join(shown)
