"""A run under way, as a part of the screen that is drawn anew: what trains, the best so far, what is left.

What it shows comes from the journal alone, so that it looks the same to who started the run and to who
watches it from elsewhere.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console, ConsoleOptions, Group, RenderableType
from rich.live import Live
from rich.text import Text

from gpnas.cli.tables import Table
from gpnas.cli.terminal import log, styled
from gpnas.cli.text import duration, label, printable, sparkline
from gpnas.errors import GpnasError
from gpnas.journal import Look, Training, look
from gpnas.records import Objective, Observation, Prospect, gain_in_words, otherwise

SECONDS = 1.0
"""Least time from one look at the journal to the next."""
SHARE = 0.05
"""Part of the time that may go into looking."""
AROUND = 5
"""Lines of the table besides its rows, at most: a heading, in two lines where it is narrow, a line beneath
it, what is left out, how many more there are."""
CURVE = 16
"""Evaluations of a curve that are drawn: the newest."""


def valued(value: float, objective: Objective, digits: int = 2) -> str:
    """A value of an objective with its unit."""
    return f"{value:.{digits}f} {printable(objective.unit)}".rstrip()


def ended_line(observation: Observation, objective: Objective) -> Text:
    """What became of a trial, in a line."""
    candidate = observation.candidate
    if observation.value is None:
        result = styled("failed", "red") + f": {printable(observation.failure)}"
    elif observation.stopped is not None:
        result = styled(observation.stopped, "dim")
    else:
        ssim = f"  {observation.metrics['ssim']:.4f}" if "ssim" in observation.metrics else ""
        result = Text(f"{valued(observation.value, objective):>9s}{ssim}")
    phase = printable(candidate.decision.get("phase", ""))
    line = Text(f"{candidate.id}  {printable(label(candidate.architecture)):16s} ")
    return line + result + f"  {observation.seconds:5.1f} s  {phase}".rstrip()


class Region:
    """A look at a run, no higher than a screen."""

    def __init__(self, seen: Look) -> None:
        self._seen = seen

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[RenderableType]:
        seen = self._seen
        gain = left_to_gain(seen.prospect, seen.objective) if seen.prospect else ""
        below = filter(None, (_best(seen), gain, _time(seen)))
        lines = [_head(seen), *below][: max(1, console.height - 1)]
        words = [Text(line, no_wrap=True, overflow="ellipsis") for line in lines]
        room = max(0, console.height - 1 - len(words) - AROUND)
        yield words[0]
        if seen.training and room:
            shown = seen.training[:room]
            yield _table(shown, seen.objective)
            if len(shown) < len(seen.training):
                yield Text(f"… and {len(seen.training) - len(shown)} more")
        yield from words[1:]


def _head(seen: Look) -> str:
    failed = sum(each.failed for each in seen.ended)
    stopped = sum(each.stopped is not None for each in seen.ended)
    counted = f"{len(seen.ended)} of {seen.granted} trials ended{otherwise(failed, stopped)}"
    return f"{printable(seen.run.name)}: {counted}"


def _table(training: tuple[Training, ...], objective: Objective) -> Table:
    value = printable(objective.name.upper() if objective.unit == "dB" else objective.name)
    columns = ("training", "architecture", "step", value, "time left", "steps/s", "curve")
    table = Table("", *columns, whole=("training", "architecture"))
    for each in training:
        table.add_row(
            each.candidate.id,
            printable(label(each.candidate.architecture)),
            f"{each.step}/{each.candidate.fidelity.steps}",
            "" if each.value is None else f"{each.value:.2f}",
            "" if each.left is None else duration(each.left),
            "" if each.speed is None else f"{each.speed:.{1 if each.speed < 100 else 0}f}",
            sparkline([value for _, value in each.curve], CURVE),
        )
    return table


def _best(seen: Look) -> str:
    best, unit = seen.best, seen.objective
    if best is None:
        return ""
    told = f"best: {best.candidate.id} {printable(label(best.candidate.architecture))} with "
    told += valued(best.value or 0.0, unit)
    prospect = seen.prospect
    if prospect is None:
        return told
    interval = f"{prospect.mean:.2f} ± {valued(1.645 * prospect.stddev, unit)} (90 %)"
    who = "it" if prospect.leader == best.candidate.id else prospect.leader
    return f"{told}; expected of {who}: {interval}"


def left_to_gain(prospect: Prospect, objective: Objective) -> str:
    """What stopping now is expected to lose, in one line."""
    regret, bound = (valued(each, objective, 3) for each in (prospect.regret, prospect.bound))
    return f"left to gain: {gain_in_words(regret, bound, prospect.bound < prospect.regret)}"


def _time(seen: Look) -> str:
    if seen.state != "running" or seen.left is None or len(seen.ended) == seen.granted:
        return ""
    return f"all trials end in about {duration(seen.left)}"


class Screen:
    """The live part of the screen; nothing where stderr is no terminal that can draw it."""

    def __init__(self) -> None:
        self._seen: Look | None = None
        self._ended = threading.Event()

    def show(self, seen: Look) -> None:
        self._seen = seen

    def _drawn(self) -> RenderableType:
        return Group() if self._seen is None else Region(self._seen)

    @contextmanager
    def drawn(self) -> Iterator[None]:
        """Draws within the block what is shown; what is printed meanwhile stands above it."""
        if not log.is_terminal or log.is_dumb_terminal:
            yield
            return
        with Live(
            console=log,
            get_renderable=self._drawn,
            refresh_per_second=2,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
            vertical_overflow="crop",
        ):
            yield

    @contextmanager
    def following(self, run: Path) -> Iterator[None]:
        """Draws a run within the block, as its journal tells it, from a thread of its own."""
        if not log.is_terminal or log.is_dumb_terminal:
            yield
            return
        self._ended.clear()
        thread = threading.Thread(target=self._follow, args=(run,), name="screen", daemon=True)
        with self.drawn():
            thread.start()
            try:
                yield
            finally:
                self._ended.set()
                thread.join(timeout=10)

    def _follow(self, run: Path) -> None:
        def again(seen: Look) -> bool:
            self.show(seen)
            return True

        try:
            looking(run, again, self._ended.wait)
        except GpnasError:  # who searches is told by the search itself
            return


def looking(run: Path, shown: Callable[[Look], bool], wait: Callable[[float], object] = time.sleep) -> None:
    """Looks at a run time and again.

    Args:
        run: its folder.
        shown: called with each look; False ends it.
        wait: pauses for some seconds; a true value ends it.

    Raises:
        JournalError: the run folder has no journal that can be read.
    """
    while True:
        begun = time.monotonic()
        if not shown(look(run)):
            return
        if wait(max(SECONDS, (time.monotonic() - begun) / SHARE)):
            return
