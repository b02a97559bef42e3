"""The page that compares several searches."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from pathlib import Path

from gpnas.figures.catalogue import Figure, View
from gpnas.figures.comparing import best_courses, differences, names_of, overlap
from gpnas.figures.reading import read_search
from gpnas.figures.records import Recorded
from gpnas.figures.style import unchecked
from gpnas.records import trials_of
from gpnas.report.page import Cell, Page, Row, Section, Table, columns


def comparison_page(runs: Sequence[Path]) -> Page:
    """What differs between searches, and which found what, when.

    Raises:
        JournalError: a run folder has no journal that can be read.
    """
    read = [read_search(run) for run in runs]
    names = names_of(read)
    units = {run.objective.label for run in read}
    figures: tuple[Figure, ...] = ()
    if len(units) == 1 and any(run.best for run in read):
        with unchecked():
            views = (View("", (best_courses(read, "observations"), best_courses(read, "hours"))),)
        reading = "The best measured value so far of each run, by trials that have ended and by hours."
        figures = (Figure("best", "Which run found the best, and when?", reading, views),)
    return Page(
        kind="gpnas searches, compared",
        title=" and ".join(filter(None, (", ".join(names[:-1]), names[-1]))),
        state="",
        sections=(
            Section("summary", "In short", "In short", tuple(_lines(read, names, units)), figures=figures),
            Section("headers", "What differs", "What differs", tables=(_differences(read, names),)),
            Section("overlap", "What was trained in both", "Overlap", tables=(_overlap(read, names),)),
        ),
    )


def _lines(runs: Sequence[Recorded], names: Sequence[str], units: set[str]) -> list[str]:
    lines = []
    for run, name in zip(runs, names, strict=True):
        best = run.best
        told = "no training has succeeded"
        if best is not None and best.value is not None:
            told = f"the best is {best.label} ({best.id}) with {run.objective.shown(best.value)}"
        lines.append(f"{name}: {run.state}, {trials_of(len(run.trials))}; {told}.")
    if len(units) > 1:
        lines.append(
            f"The objectives are not the same ({'; '.join(sorted(units))}), so values are not drawn together."
        )
    return lines


def _differences(runs: Sequence[Recorded], names: Sequence[str]) -> Table:
    rows = [Row((Cell(key), *map(Cell, values))) for key, values in differences(runs)]
    spaces = [str(run.architectures) if run.architectures is not None else "–" for run in runs]
    if len(set(spaces)) > 1:
        rows.append(Row((Cell("architectures of the space"), *map(Cell, spaces))))
    titles = columns("entry", *names)
    return Table("differences", "Entries of the headers that are not the same", titles, tuple(rows))


def _overlap(runs: Sequence[Recorded], names: Sequence[str]) -> Table:
    rows = []
    for (a, first), (b, second) in combinations(zip(names, runs, strict=True), 2):
        rows.append(Row((Cell(f"{a} and {b}"), *(Cell(str(n), n) for n in overlap(first, second)))))
    titles = columns("runs", numbers=("in both", "in the first", "in the second"))
    return Table("overlap", "Architectures that were proposed", titles, tuple(rows))
