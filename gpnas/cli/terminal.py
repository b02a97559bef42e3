"""What commands show: results on stdout, everything else on stderr.

No text is ever taken for markup, and none commands the terminal: the consoles see to it, so that no command
has to.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console, RenderableType
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TimeRemainingColumn,
)
from rich.text import Text

from gpnas.cli.text import printable

PIPE_WIDTH = 140
"""Columns of a table where stdout is no terminal: so wide that a usual one is not wrapped."""


class PlainConsole(Console):
    """A console to which all text is text, wherever it stands: in lines, cells, titles."""

    def __init__(self, **options: Any) -> None:
        super().__init__(markup=False, emoji=False, highlight=False, soft_wrap=True, **options)

    def render_str(self, text: str, *arguments: Any, **options: Any) -> Text:
        lines = "\n".join(printable(line) for line in text.split("\n"))
        return super().render_str(lines, *arguments, **options)


log = PlainConsole(stderr=True)
"""Everything but results."""


def show(*renderables: RenderableType) -> None:
    """Prints results."""
    wide = sys.stdout is None or not (sys.stdout.isatty() or "COLUMNS" in os.environ)
    PlainConsole(width=PIPE_WIDTH if wide else None).print(*renderables, sep="\n")


def say(line: str) -> None:
    """Prints a line beside the results."""
    log.print(printable(line))


def fail(line: str) -> None:
    """Prints an error."""
    log.print(Text("error", "bold red") + f": {printable(line)}")


def styled(text: object, style: str) -> Text:
    """Text in a colour or weight."""
    return Text(printable(text), style)


class Words(ProgressColumn):
    """A bar's description, or a field of its, as it is."""

    def __init__(self, field: str = "") -> None:
        super().__init__()
        self._field = field

    def render(self, task: Task) -> Text:
        return Text(printable(task.fields[self._field] if self._field else task.description))


def bars(*columns: ProgressColumn, **options: Any) -> Progress:
    """Bars on stderr; nothing, not even an empty line, where that is no terminal that can draw them."""
    hidden = not log.is_terminal or log.is_dumb_terminal
    return Progress(*columns, console=log, disable=hidden, **options)


@contextmanager
def bar(description: str, *columns: ProgressColumn) -> Iterator[Callable[..., None]]:
    """A bar on stderr; yields what is called with the work done, all of it, and maybe a new description."""
    shown: Sequence[ProgressColumn] = columns or (MofNCompleteColumn(), TimeRemainingColumn())
    with bars(Words(), BarColumn(), *shown, transient=True) as progress:
        task = progress.add_task(description, total=None)

        def update(done: float, total: float, description: str | None = None) -> None:
            progress.update(task, completed=done, total=total, description=description)

        yield update
