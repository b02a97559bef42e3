"""The command line: a parser, one call per command, one place that turns errors into exit codes.

Results go to stdout (with `--json` one JSON document), everything else to stderr.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import signal
import sys
import warnings
from collections.abc import Callable, Sequence
from contextlib import nullcontext, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from gpnas import GpnasError, __version__
from gpnas.cli import bundles, data, portfolio, train, upscale
from gpnas.cli.console import Watcher, above_zero, add_resources, interruptible, log, out, plain, positive
from gpnas.records import STRATEGIES

if TYPE_CHECKING:
    from gpnas.dispatch.cluster import Cluster
    from gpnas.dispatch.conductor import Event
    from gpnas.results.delivery import Delivery


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command and returns its exit code: 0, 1 for an error, 128 + signal when interrupted."""
    options = parser().parse_args(arguments)
    logging.basicConfig(
        stream=sys.stderr,
        format="%(levelname)s: %(message)s",
        level=logging.DEBUG if options.verbose else logging.ERROR,
    )
    if not options.verbose:
        warnings.simplefilter("ignore")  # libraries warn for developers; a user can do nothing about it
    try:
        # what libraries print goes to stderr: stdout belongs to the document
        with interruptible(), redirect_stdout(sys.stderr) if options.json else nullcontext():
            document = options.run_command(options)
        if options.json:
            print(json.dumps(document, indent=2, allow_nan=False))
        return getattr(options, "exit_code", 0)
    except GpnasError as error:
        if options.verbose:
            log.print_exception()
        orderly = hasattr(error, "exit_code")  # an end that was ordered
        log.print(f"{'' if orderly else '[bold red]error[/]: '}{plain(error)}")
        return int(getattr(error, "exit_code", 1))
    except KeyboardInterrupt as error:
        log.print("interrupted")
        return 128 + int(error.args[0] if error.args else signal.SIGINT)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        if options.verbose:
            log.print_exception()
        where = f"{error.filename}: " if error.filename else ""
        log.print(f"[bold red]error[/]: {plain(where)}{plain(error.strerror or error)}")
        return 1


def parser() -> argparse.ArgumentParser:
    """The whole command line; a test holds its options."""
    top = argparse.ArgumentParser(
        prog="gpnas",
        description="Gaussian-process architecture search and heterogeneous ensembles "
        "for real image super-resolution.",
    )
    top.add_argument("--version", action="version", version=f"gpnas {__version__}")
    top.add_argument("--verbose", action="store_true", help="log everything, with tracebacks")
    commands = top.add_subparsers(title="commands", required=True, metavar="COMMAND")

    def command(name: str, run: Callable[[argparse.Namespace], Any], text: str, among: Any = commands) -> Any:
        sub = among.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
        sub.set_defaults(run_command=run)
        sub.add_argument("--json", action="store_true", help="print one JSON document on stdout")
        return sub

    search = command("search", _search, "search architectures, choose a portfolio, write its bundle")
    search.add_argument("--space", required=True, help="a YAML file, or the name of a shipped one")
    search.add_argument("--data", type=Path, help="folder of LR/HR pairs (default: shipped photographs)")
    search.add_argument("--scale", type=int, help="super-resolution factor (default: the space file's)")
    search.add_argument("--trials", type=positive, help="trainings granted (default: the space file's)")
    search.add_argument("--concurrent", type=positive, help="trials side by side")
    search.add_argument("--strategy", choices=STRATEGIES, help="how it chooses")
    search.add_argument(
        "--cost-aware",
        action=argparse.BooleanOptionalAction,
        help="count what a training brings per predicted second (default: the space file's)",
    )
    search.add_argument(
        "--portfolio-aware",
        action=argparse.BooleanOptionalAction,
        help="value an architecture by what it adds to the ensemble (default: the space file's)",
    )
    search.add_argument(
        "--warm-start",
        metavar="RUN",
        type=Path,
        action="append",
        default=[],
        help="a finished search of the same axes, at another scale or on other data, to learn from",
    )
    search.add_argument("--seed", type=int, default=0, help="of choices and trainings (default: 0)")
    search.add_argument("--run", type=Path, help="run folder (default: runs/SPACE); an existing one goes on")
    search.add_argument(
        "--storage",
        metavar="URI",
        help="where checkpoints and networks go: a path, s3://… or what else pyarrow opens (default: --run)",
    )
    add_resources(search)
    search.add_argument("--address", help="of a Ray cluster (default: start Ray on this machine)")
    search.add_argument("--budget-hours", type=above_zero, help="end in good order after so many hours")
    search.add_argument(
        "--early-stopping",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="end trainings that will not matter (default: the space file's)",
    )

    status = command("status", _status, "show where a search stands")
    status.add_argument("search", metavar="RUN", type=Path, help="run folder")

    explain = command("explain", _explain, "show why a candidate was chosen, or every one in short")
    explain.add_argument("search", metavar="RUN", type=Path, help="run folder")
    explain.add_argument(
        "candidate", metavar="CANDIDATE", nargs="?", help="such as c0007, or best (default: all in short)"
    )

    space = command("space", _space, "show what a space file means")
    space.add_argument("space", metavar="FILE", help="a YAML file, or the name of a shipped one")

    data.add_commands(commands, command)
    portfolio.add_command(command)
    train.add_command(command)

    bundles.add_commands(command)
    upscale.add_command(command)
    return top


class _Watcher(Watcher):
    """A search, as the terminal shows it: a line per trial, a bar beneath."""

    def __init__(self) -> None:
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        super().__init__(Progress(*columns, console=log, transient=True), "trials observed")
        self.task = self.bar.add_task("trials", total=None)
        self.best = float("-inf")

    def started(self, run: Path, trials: int, observed: int, cluster: Cluster) -> None:
        super().started(run, trials, observed, cluster)
        self.bar.update(self.task, total=trials, completed=observed)

    def event(self, event: Event) -> None:
        candidate, observation = event.candidate, event.observation
        if event.note:
            self.say(f"{candidate.id}  {event.note}")
        if observation is None:
            return
        if observation.value is None:
            result = f"[red]failed[/]: {plain(observation.failure)}"
        elif observation.stopped is not None:
            result = f"[dim]{plain(observation.stopped)}[/]"
        else:
            self.best = max(self.best, observation.value)
            result = f"{observation.value:6.2f} dB  {observation.metrics['ssim']:.4f}"
        phase = candidate.decision.get("phase", "")
        log.print(
            f"{candidate.id}  {plain(candidate.architecture):42s} {result}"
            f"  {observation.seconds:5.1f} s  {plain(phase)}"
        )
        best = f", best {self.best:.2f} dB" if self.best > float("-inf") else ""
        self.bar.update(self.task, advance=1, description=f"trials{best}")


def _search(options: argparse.Namespace) -> Any:
    from gpnas.dispatch.resources import Asked
    from gpnas.dispatch.search import Request, run_search

    watcher = _Watcher()
    try:
        delivery = run_search(
            Request(
                space=options.space,
                run=options.run,
                data=options.data,
                scale=options.scale,
                trials=options.trials,
                concurrent=options.concurrent,
                strategy=options.strategy,
                cost_aware=options.cost_aware,
                portfolio_aware=options.portfolio_aware,
                warm_start=tuple(options.warm_start),
                seed=options.seed,
                address=options.address,
                budget_hours=options.budget_hours,
                early_stopping=options.early_stopping,
                storage=options.storage,
                asked=Asked(options.cpus_per_trial, options.gpus_per_trial),
            ),
            watcher,
        )
    finally:
        watcher.close()
    if not options.json:
        _show(delivery)
    return delivery.to_json()


def _show(delivery: Delivery) -> None:
    table = Table(title="The best architectures, by posterior mean", title_justify="left")
    for heading in ("share", "architecture", "predicted dB", "observed dB", "SSIM", "parameters", "seconds"):
        table.add_column(heading, justify="left" if heading == "architecture" else "right")
    shares = zip(delivery.portfolio.members, delivery.portfolio.weights, strict=True)
    chosen = {member.id: f"{weight:.0%}" for member, weight in shares}
    for place, ranked in enumerate(delivery.ranking):
        if place >= 10 and ranked.candidate.id not in chosen:
            continue
        table.add_row(
            chosen.get(ranked.candidate.id, ""),
            plain(ranked.candidate.architecture),
            f"{ranked.predicted:.2f} ± {ranked.stddev:.2f}",
            f"{ranked.observed:.2f}",
            f"{ranked.ssim:.4f}",
            f"{ranked.parameters:,}",
            f"{ranked.seconds:.1f}",
        )
    out.print(table)
    out.print(
        f"\nbicubic {delivery.bicubic:.2f} dB, best network {delivery.best.observed:.2f} dB, "
        f"portfolio of {len(chosen)} averaged {delivery.portfolio.value:.2f} dB, "
        f"and over eight transforms {delivery.ensemble:.2f} dB"
    )
    out.print(
        f"{delivery.observed} trials ({delivery.failed} failed, {delivery.stopped} stopped early), "
        f"{delivery.seconds:.0f} s\n"
        f"bundle: {plain(delivery.bundle)}\n\n"
        f"next: gpnas evaluate {plain(delivery.bundle)}\n"
        f"      gpnas upscale {plain(delivery.bundle)} photo.jpg -o photo_sr.png"
    )


def _status(options: argparse.Namespace) -> Any:
    from gpnas.cli.display import diagnostics
    from gpnas.journal import status

    document = status(options.search)
    if options.json:
        return document
    table = Table(title=f"{plain(document['run'])}: {document['state']}", title_justify="left")
    for heading in ("candidate", "architecture", "state", "PSNR dB", "seconds", "attempts"):
        table.add_column(heading, justify="left" if heading in ("candidate", "architecture") else "right")
    for row in document["candidates"]:
        axes = ",".join(f"{name}={value}" for name, value in row["architecture"]["axes"].items())
        table.add_row(
            row["id"],
            plain(f"{row['architecture']['family']}:{axes}"),
            row["stopped"]["reason"] if "stopped" in row else row["state"],
            "" if row["psnr"] is None else f"{row['psnr']:.2f}",
            "" if row["seconds"] is None else f"{row['seconds']:.1f}",
            str(row["attempts"]),
        )
    out.print(table)
    for line in diagnostics(document["diagnostics"]) if "diagnostics" in document else ():
        out.print(line)
    return None


def _explain(options: argparse.Namespace) -> Any:
    from gpnas.cli import display
    from gpnas.results.recall import explain_candidate, explain_search

    if options.candidate:
        document = explain_candidate(options.search, options.candidate)
        shown = display.candidate(document)
    else:
        with Progress(console=log, transient=True) as bar:
            task = bar.add_task("candidates", total=None)
            document = explain_search(
                options.search, lambda done, total: bar.update(task, completed=done, total=total)
            )
        shown = display.overview(document)
    if options.json:
        return document
    for each in shown:
        out.print(each)
    return None


def _space(options: argparse.Namespace) -> Any:
    from gpnas.results.description import describe

    document = describe(options.space)
    if options.json:
        return document
    out.print(
        f"{plain(document['file'])}: ×{document['scale']}, {document['feasible']:,} architectures"
        + (f", {document['share']:.1%} of {document['size']:,}" if document["limits"] else "")
    )
    if document["limits"]:
        table = Table(
            "limit", title="What each limit excludes of what those above leave", title_justify="left"
        )
        for heading in ("excludes", "leaves"):
            table.add_column(heading, justify="right")
        for row in document["limits"]:
            table.add_row(plain(row["limit"]), f"{row['excludes']:,}", f"{row['leaves']:,}")
        out.print(table)
    table = Table("family", "axis", "kind", "values", title="Axes", title_justify="left")
    for name, family in document["families"].items():
        label = f"{name}: {family['architectures']:,}"
        for axis in family["axes"]:
            table.add_row(plain(label), plain(axis["name"]), axis["kind"], plain(_in_short(axis["values"])))
            label = ""
    out.print(table)
    for word in ("cheapest", "dearest"):
        row = document[word]
        out.print(
            f"{word}: {plain(row['name'])}  {row['parameters']:,} parameters, "
            f"{row['gmacs']:.2f} GMACs at 120×120, {row['memory'] / 1e6:,.0f} MB in training"
        )
    if document["design"]:
        out.print("the first design would train:")
    for name in document["design"]:
        out.print(f"  {plain(name)}")
    return None


def _in_short(values: Sequence[Any]) -> str:
    """Values in a line; the middle of many is left out."""
    shown = [str(value) for value in values]
    if len(shown) > 10:
        shown = [*shown[:4], "…", *shown[-2:]]
        return f"{', '.join(shown)} ({len(values)} values)"
    return ", ".join(shown)
