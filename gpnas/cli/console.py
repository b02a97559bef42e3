"""Where the commands write: results to `out`, everything else to `log`."""

from __future__ import annotations

import argparse
import math
import os
import re
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from gpnas.errors import DataError

if TYPE_CHECKING:
    from gpnas.dispatch.cluster import Cluster

log = Console(stderr=True, highlight=False, soft_wrap=True)
# a pipe has no width of its own: wide enough that no table is cut
out = Console(highlight=False, soft_wrap=True, width=None if sys.stdout.isatty() else 140)

CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
"""Characters that a terminal would obey, but for tabs and ends of lines."""


def plain(text: object) -> str:
    """Text as it is: brackets in it are not markup, and nothing in it commands the terminal."""
    return escape(CONTROLS.sub(lambda found: rf"\x{ord(found[0]):02x}", str(text)))


@contextmanager
def interruptible() -> Iterator[None]:
    """SIGTERM ends the block as Ctrl-C does, by a `KeyboardInterrupt` with its number: what is half done is
    undone. A second signal ends the process at once."""
    received: list[int] = []

    def end(number: int, frame: object) -> None:
        if received:
            os._exit(128 + number)
        received.append(number)
        raise KeyboardInterrupt(number)

    if threading.current_thread() is not threading.main_thread():
        yield  # signals are the main thread's business
        return
    before = {number: signal.signal(number, end) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def replacing(path: Path) -> Iterator[Callable[[str], object]]:
    """A file that takes its place once the block has ended well; yields what writes its text.

    Raises:
        DataError: at once, where no such file can be written.
    """
    if path.exists() and not path.is_file():  # a pipe, such as /dev/stdout
        with path.open("w", encoding="utf-8") as file:
            yield file.write
        return
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        file = temporary.open("w", encoding="utf-8")
    except OSError as error:
        raise DataError(
            f"{path}: must be a file that can be written, but: {error.strerror}; choose another place"
        ) from None
    try:
        with file:
            yield file.write
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def pairs_bar() -> Iterator[Callable[[int, int], None]]:
    """A bar of pairs that are looked at; yields what is to be called with pairs done and all."""
    columns = (TextColumn("pairs"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=log, transient=True) as bar:
        task = bar.add_task("pairs", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


class Watcher:
    """Trials that run, as the terminal shows them; `bar` begins with the first, and `close` ends it.

    Args:
        bar: of the trials.
        unit: what is counted.
    """

    def __init__(self, bar: Progress, unit: str) -> None:
        self.bar, self._unit = bar, unit
        self._open = ExitStack()
        self._pairs: Callable[[int, int], None] | None = None

    def say(self, line: str) -> None:
        log.print(plain(line))

    def preparing(self, done: int, total: int) -> None:
        if self._pairs is None:
            self._pairs = self._open.enter_context(pairs_bar())
        self._pairs(done, total)

    def started(self, run: Path, trials: int, observed: int, cluster: Cluster) -> None:
        self._open.close()
        self.say(f"run: {run}")
        if cluster.dashboard:
            self.say(f"dashboard: {cluster.dashboard} (it asks for the token in {cluster.token})")
        if observed:
            self.say(f"going on: {observed} of {trials} {self._unit}")
        self.bar.start()

    def close(self) -> None:
        self._open.close()
        self.bar.stop()


def positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, but got {number}")
    return number


def sides(text: str) -> tuple[int, ...]:
    """Whole numbers with commas between them."""
    return tuple(int(number) for number in text.split(","))


def above_zero(text: str) -> float:
    number = float(text)
    if not (math.isfinite(number) and number > 0):
        raise argparse.ArgumentTypeError(f"must be a number above 0, but got {text}")
    return number


def add_levels(sub: argparse.ArgumentParser, *, drop_outlier: str, self_ensemble: str) -> None:
    """Options of the ensemble's levels; two commands say differently what two of them do."""
    sub.add_argument(
        "--average",
        choices=("weights", "plain"),
        default="weights",
        help="of the networks: with the bundle's weights, or all equal (default: weights)",
    )
    sub.add_argument(
        "--tile",
        metavar="SIDE[,SIDE...]",
        type=sides,
        default=(120,),
        help="of tiles, in LR pixels; of several, each makes an image, and those are averaged; 0 takes the "
        "whole image at once (default: 120)",
    )
    sub.add_argument("--overlap", type=int, help="LR pixels shared by tiles (default: half of each tile)")
    sub.add_argument(
        "--blend",
        choices=("distance", "gaussian", "constant"),
        default="distance",
        help="how a tile's pixels count: by their distance from its centre, or equally (default: distance)",
    )
    sub.add_argument(
        "--self-ensemble", action=argparse.BooleanOptionalAction, default=True, help=self_ensemble
    )
    sub.add_argument("--drop-outlier", action="store_true", help=drop_outlier)
    sub.add_argument(
        "--precision",
        choices=("float32", "bfloat16", "float16"),
        default="float32",
        help="of the networks; float16 needs a GPU (default: float32)",
    )


def add_limits(sub: argparse.ArgumentParser) -> None:
    """Options of what the networks of a portfolio may cost together."""
    sub.add_argument(
        "--max-gmacs", type=above_zero, help="of all networks together, at 120×120 LR pixels (default: any)"
    )
    sub.add_argument("--max-parameters", type=above_zero, help="of all networks together (default: any)")


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
