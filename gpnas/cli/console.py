"""Where the commands write: results to `out`, everything else to `log`."""

from __future__ import annotations

import argparse
import sys

from rich.console import Console
from rich.markup import escape

log = Console(stderr=True, highlight=False, soft_wrap=True)
# a pipe has no width of its own: wide enough that no table is cut
out = Console(highlight=False, soft_wrap=True, width=None if sys.stdout.isatty() else 140)


def plain(text: object) -> str:
    """Text as it is: brackets in it are not markup."""
    return escape(str(text))


def positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, but got {number}")
    return number


def sides(text: str) -> tuple[int, ...]:
    """Whole numbers with commas between them."""
    return tuple(int(number) for number in text.split(","))


def add_limits(sub: argparse.ArgumentParser) -> None:
    """Options of what the networks of a portfolio may cost together."""
    sub.add_argument(
        "--max-gmacs", type=float, help="of all networks together, at 120×120 LR pixels (default: any)"
    )
    sub.add_argument("--max-parameters", type=float, help="of all networks together (default: any)")


def add_resources(sub: argparse.ArgumentParser) -> None:
    """Options of what each trial is lent."""
    sub.add_argument("--cpus-per-trial", type=positive, help="CPUs of each training (default: 1)")
    sub.add_argument(
        "--gpus-per-trial",
        type=float,
        help="part of a GPU for each training, 0 to 1 (default: by its memory and --concurrent)",
    )


def limits_of(options: argparse.Namespace) -> dict[str, float]:
    """What these options say, as an `Allowance` takes it."""
    given = {"gmacs": options.max_gmacs, "parameters": options.max_parameters}
    return {name: limit for name, limit in given.items() if limit is not None}
