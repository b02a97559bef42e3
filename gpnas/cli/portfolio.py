"""`gpnas portfolio`: which networks of a run belong together, and what that costs."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.table import Table

from gpnas.cli.console import add_limits, limits_of, out, plain, positive


def add_command(command: Callable[..., Any]) -> None:
    """Adds it; `command` makes a parser with what all commands share."""
    sub = command("portfolio", _portfolio, "show which networks of a run belong together, at which cost")
    sub.add_argument("search", metavar="RUN", type=Path, help="run folder")
    sub.add_argument("--top", type=positive, help="the most networks (default: the search's)")
    add_limits(sub)


def _portfolio(options: argparse.Namespace) -> Any:
    from gpnas.results.delivery import Allowance
    from gpnas.results.portfolio_report import portfolio_document

    document = portfolio_document(options.search, options.top, Allowance(**limits_of(options)))
    if not options.json:
        _show(document)
    return document


def _show(document: dict[str, Any]) -> None:
    networks, images = document["networks"], document["images"]
    out.print(_costs("The frontier: no portfolio is better and cheaper", document["frontier"], "networks"))
    out.print(_costs(f"Beside other choices among {networks} networks, {images} images",
                     document["compared"], "way"))  # fmt: skip
    correlation = document["correlation"]
    table = Table(title="Correlation of errors, the best alone", title_justify="left")
    for heading in ("candidate", "PSNR dB", *correlation["candidates"]):
        table.add_column(heading, justify="left" if heading == "candidate" else "right")
    for name, psnr, row in zip(
        correlation["candidates"], correlation["psnr"], correlation["matrix"], strict=True
    ):
        table.add_row(name, f"{psnr:.2f}", *(f"{value:.4f}" for value in row))
    out.print(table)
    if document["untrained"] is not None:
        _show_untrained(document["untrained"])


def _costs(title: str, rows: list[dict[str, Any]], first: str) -> Table:
    table = Table(title=title, title_justify="left")
    for heading in (first, "GMACs", "parameters", "PSNR dB", "members"):
        table.add_column(heading, justify="left" if heading in ("way", "members") else "right")
    for row in rows:
        members = zip(row["members"], row["weights"], strict=True)
        table.add_row(
            row.get("way", str(len(row["members"]))),
            f"{row['gmacs']:.3f}",
            f"{row['parameters']:,}",
            f"{row['psnr']:.3f}",
            ", ".join(f"{name} {weight:.0%}" for name, weight in members),
        )
    return table


def _show_untrained(untrained: dict[str, Any]) -> None:
    told = untrained["leave_one_out"]
    if untrained["rows"]:
        table = Table(title="What untrained architectures would add to the average", title_justify="left")
        for heading in ("architecture", "adds dB", "predicted dB", "correlation"):
            table.add_column(heading, justify="left" if heading == "architecture" else "right")
        for row in untrained["rows"]:
            axes = ",".join(f"{name}={value}" for name, value in row["architecture"]["axes"].items())
            table.add_row(
                plain(f"{row['architecture']['family']}:{axes}"),
                f"{row['gain']:.4f}",
                f"{row['predicted']:.2f} ± {row['stddev']:.2f}",
                f"{row['correlation']:.4f}",
            )
        out.print(table)
    if told["rmse"] is not None:
        out.print(
            f"each of the {told['networks']} trained networks left out once: correlations are predicted to "
            f"± {told['rmse']:.4f} (their mean as the prediction: ± {told['mean_correlation_rmse']:.4f})"
        )
