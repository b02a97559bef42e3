"""Tables that fit a terminal without breaking a number or losing what a row is about."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

from rich.box import SIMPLE_HEAD
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderableType
from rich.measure import Measurement
from rich.table import Table as RichTable
from rich.text import Text

from gpnas.cli.text import printable

Cell = str | Text


class Table:
    """A table of which a narrow terminal shows fewer columns.

    Numbers stand on the right and are never broken. Where there is too little room, headings take several
    lines and words wrap; where that is not enough, columns of numbers are left out from the right, and a line
    beneath says so.

    Args:
        title: above it; may be empty.
        headings: of its columns.
        left: columns of words, which wrap.
        whole: columns of words that are never wrapped or left out, since they say what a row is about.
    """

    def __init__(
        self, title: str, *headings: str, left: Collection[str] = (), whole: Collection[str] = ()
    ) -> None:
        self._title = title
        self._headings = headings
        self._left, self._whole = left, whole
        self._rows: list[tuple[Sequence[Cell], str | None]] = []
        self._sections: set[int] = set()

    def add_row(self, *cells: Cell, style: str | None = None) -> None:
        self._rows.append((cells, style))

    def add_section(self) -> None:
        """Draws a line between the rows before and those to come."""
        self._sections.add(len(self._rows) - 1)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[RenderableType]:
        columns = list(range(len(self._headings)))
        shown = self._made(columns, narrow=False)
        if self._least(console, options, shown) > options.max_width:
            shown = self._made(columns, narrow=True)
        hidden: list[str] = []
        while self._least(console, options, shown) > options.max_width:
            numbers = [each for each in columns if self._headings[each] not in (*self._left, *self._whole)]
            if not numbers:
                break
            columns.remove(numbers[-1])
            hidden.insert(0, self._headings[numbers[-1]])
            shown = self._made(columns, narrow=True)
        yield shown
        if hidden:
            yield Text(f"(without {', '.join(filter(None, hidden))}: the terminal is narrow)")

    @staticmethod
    def _least(console: Console, options: ConsoleOptions, table: RichTable) -> int:
        return Measurement.get(console, options.update(max_width=10_000), table).minimum

    def _made(self, columns: Sequence[int], *, narrow: bool) -> RichTable:
        made = RichTable(
            title=printable(self._title) or None,
            title_justify="left",
            box=SIMPLE_HEAD,
            pad_edge=False,
            show_edge=False,
        )
        for column in columns:
            heading = self._headings[column]
            words = heading in (*self._left, *self._whole)
            shown = heading.replace(" ", "\n") if narrow and not words else heading
            texts = [shown, *(str(cells[column]) for cells, _ in self._rows if column < len(cells))]
            wraps = heading in self._left
            made.add_column(
                shown,
                justify="left" if words else "right",
                no_wrap=not wraps,
                overflow="fold",
                min_width=max(
                    cell_len(part)
                    for text in texts
                    for part in (text.split() or [""] if wraps else text.split("\n"))
                ),
            )
        for number, (cells, style) in enumerate(self._rows):
            made.add_row(
                *(cells[column] if column < len(cells) else "" for column in columns),
                style=style,
                end_section=number in self._sections,
            )
        return made
