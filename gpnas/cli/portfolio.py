"""`gpnas portfolio`: which networks of a run belong together, and what that costs."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.console import RenderableType

from gpnas.cli.arguments import limits_of
from gpnas.cli.reporting import Report
from gpnas.cli.tables import Table
from gpnas.cli.text import label, legend, printable
from gpnas.errors import TrialError
from gpnas.records import Architecture
from gpnas.results.choosing import Allowance
from gpnas.results.own_delivery import is_own, own_portfolio
from gpnas.results.portfolio_report import portfolio_document


def run(options: argparse.Namespace) -> Report:
    if is_own(options.search):
        given = [name for name in ("guests", "data", "output") if getattr(options, name)]
        if given or any(limits_of(options).values()):
            raise TrialError(
                f"{options.search}: its trainings are a person's own, so a portfolio of them can have --top "
                "alone; leave out the other options"
            )
        own = own_portfolio(options.search, options.top)
        return Report(own, _own_shown(own))
    document = portfolio_document(
        options.search,
        options.top,
        Allowance(**limits_of(options)),
        guests=options.guests,
        data=options.data,
        output=options.output,
    )
    return Report(document, _shown(document))


def _own_shown(document: Mapping[str, Any]) -> Iterator[RenderableType]:
    title = f"The best averages of {document['trainings']} trainings, by {document['numbers']:,} errors each"
    frontier = Table(title, "members", "mean square error", "weights", left=("weights",), whole=("members",))
    named: dict[str, Architecture] = {}
    for row in document["frontier"]:
        members = list(zip(row["members"], row["architectures"], row["weights"], strict=True))
        named |= {name: Architecture.from_json(architecture) for name, architecture, _ in members}
        weights = ", ".join(f"{weight:.0%}" for *_, weight in members)
        frontier.add_row(", ".join(row["members"]), f"{row['mean_square_error']:.6g}", weights)
    yield frontier
    yield "members: " + ", ".join(f"{name} {label(named[name])}" for name in sorted(named))
    yield legend(named.values())
    correlation = document["correlation"]
    names = correlation["candidates"]
    errors = Table(
        "Correlation of errors, the best alone",
        "candidate",
        "mean square error",
        *names,
        whole=("candidate",),
    )
    for name, alone, values in zip(
        names, correlation["mean_square_error"], correlation["matrix"], strict=True
    ):
        errors.add_row(name, f"{alone:.6g}", *(f"{value:.4f}" for value in values))
    yield errors
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
    rows = [*document["frontier"], *document["compared"]]
    named = {
        name: Architecture.from_json(architecture)
        for row in rows
        for name, architecture in zip(row["members"], row["architectures"], strict=True)
    }
    yield "members: " + ", ".join(f"{name} {label(named[name])}" for name in sorted(named))
    yield legend(named.values())
    if document["guests"]:
        guests = Table("From elsewhere", "name", "network", "PSNR dB", "GMACs", "parameters", whole=("name",))
        for guest in document["guests"]:
            name = label(Architecture.from_json(guest["architecture"]))
            cells = (f"{guest['psnr']:.3f}", f"{guest['gmacs']:.3f}", f"{guest['parameters']:,}")
            guests.add_row(guest["id"], name, *cells)
        yield guests
    correlation = document["correlation"]
    errors = Table(
        "Correlation of errors, the best alone",
        *("candidate", "PSNR dB", *correlation["candidates"]),
        whole=("candidate",),
    )
    for name, psnr, values in zip(
        correlation["candidates"], correlation["psnr"], correlation["matrix"], strict=True
    ):
        errors.add_row(name, f"{psnr:.2f}", *(f"{value:.4f}" for value in values))
    yield errors
    if document["untrained"] is not None:
        yield from _untrained(document["untrained"])
    if document["bundle"] is not None:
        yield f"bundle: {printable(document['bundle'])}"


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
