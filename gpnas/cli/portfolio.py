"""`gpnas portfolio`: which networks of a run belong together, and what that costs."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.console import RenderableType

from gpnas.cli.arguments import allowance_of
from gpnas.cli.reporting import Report
from gpnas.cli.tables import Table
from gpnas.cli.text import label, legend, printable
from gpnas.errors import TrialError
from gpnas.records import Architecture
from gpnas.results.own_delivery import is_own, own_portfolio
from gpnas.results.portfolio_report import portfolio_document


def run(options: argparse.Namespace) -> Report:
    if is_own(options.search):
        others = ("guests", "data", "output", "max_gmacs", "max_parameters")
        if any(getattr(options, name) for name in others):
            raise TrialError(
                f"{options.search}: its trainings are a person's own, so a portfolio of them can have --top "
                "alone; leave out the other options"
            )
        own = own_portfolio(options.search, options.top)
        return Report(own, _own_shown(own))
    document = portfolio_document(
        options.search,
        options.top,
        allowance_of(options),
        guests=options.guests,
        data=options.data,
        output=options.output,
    )
    return Report(document, _shown(document))


def _own_shown(document: Mapping[str, Any]) -> Iterator[RenderableType]:
    title = f"The best averages of {document['trainings']} trainings, by {document['numbers']:,} errors each"
    frontier = Table(title, "members", "mean square error", "weights", left=("weights",), whole=("members",))
    for row in document["frontier"]:
        weights = ", ".join(f"{weight:.0%}" for weight in row["weights"])
        frontier.add_row(", ".join(row["members"]), f"{row['mean_square_error']:.6g}", weights)
    yield frontier
    yield from _members(document["frontier"])
    correlation = document["correlation"]
    alone = [f"{error:.6g}" for error in correlation["mean_square_error"]]
    yield _correlation(correlation, "mean square error", alone)
    if document["note"]:
        yield printable(document["note"])


def _shown(document: Mapping[str, Any]) -> Iterator[RenderableType]:
    networks, images = document["networks"], document["images"]
    yield _costs("The frontier: no portfolio is better and cheaper", document["frontier"], "networks")
    yield _costs(
        f"Beside other choices among {networks} networks, {images} images", document["compared"], "way"
    )
    for line in document["selection"]["left_out"]:
        yield printable(line)
    yield printable(document["fusion"]["why"])
    yield from _members([*document["frontier"], *document["compared"]])
    if document["guests"]:
        guests = Table("From elsewhere", "name", "network", "PSNR dB", "GMACs", "parameters", whole=("name",))
        for guest in document["guests"]:
            name = label(Architecture.from_json(guest["architecture"]))
            cells = (f"{guest['psnr']:.3f}", f"{guest['gmacs']:.3f}", f"{guest['parameters']:,}")
            guests.add_row(guest["id"], name, *cells)
        yield guests
    correlation = document["correlation"]
    yield _correlation(correlation, "PSNR dB", [f"{psnr:.2f}" for psnr in correlation["psnr"]])
    if document["untrained"] is not None:
        yield from _untrained(document["untrained"])
    if document["bundle"] is not None:
        yield f"bundle: {printable(document['bundle'])}"


def _members(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """The networks that portfolios name, each once, and what their labels mean."""
    named = {
        name: Architecture.from_json(architecture)
        for row in rows
        for name, architecture in zip(row["members"], row["architectures"], strict=True)
    }
    yield "members: " + ", ".join(f"{name} {label(named[name])}" for name in sorted(named))
    yield legend(named.values())


def _correlation(correlation: Mapping[str, Any], heading: str, alone: Sequence[str]) -> Table:
    """The correlation of errors, beside how good each network is alone."""
    names = correlation["candidates"]
    table = Table("Correlation of errors, the best alone", "candidate", heading, *names, whole=("candidate",))
    for name, own, values in zip(names, alone, correlation["matrix"], strict=True):
        table.add_row(name, own, *(f"{value:.4f}" for value in values))
    return table


def _costs(title: str, rows: Sequence[Mapping[str, Any]], first: str) -> Table:
    made = Table(title, first, "GMACs", "parameters", "PSNR dB", "members", left=("way", "members"))
    for row in rows:
        members = zip(row["members"], row["weights"], strict=True)
        made.add_row(
            row.get("way", str(len(row["members"]))),
            f"{row['gmacs']:.3f}",
            f"{row['parameters']:,}",
            f"{row['psnr']:.3f}",
            ", ".join(f"{name} {weight:.0%}" for name, weight in members),
        )
    return made


def _untrained(untrained: Mapping[str, Any]) -> Iterator[RenderableType]:
    left_out = untrained["leave_one_out"]
    if untrained["rows"]:
        made = Table(
            "What untrained architectures would add to the average",
            *("architecture", "adds dB", "predicted dB", "correlation"),
            whole=("architecture",),
        )
        for row in untrained["rows"]:
            made.add_row(
                label(Architecture.from_json(row["architecture"])),
                f"{row['gain']:.4f}",
                f"{row['predicted']:.2f} ± {row['stddev']:.2f}",
                f"{row['correlation']:.4f}",
            )
        yield made
    if left_out["rmse"] is not None:
        yield (
            f"each of the {left_out['networks']} trained networks left out once: given its PSNR, its "
            f"correlations are predicted to ± {left_out['rmse']:.4f} (the others' mean as the prediction: "
            f"± {left_out['mean_correlation_rmse']:.4f})"
        )
