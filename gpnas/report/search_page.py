"""The page of a search."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from gpnas.figures.catalogue import figures, see
from gpnas.figures.records import Recorded, Trial
from gpnas.figures.style import unchecked
from gpnas.records import trials_of
from gpnas.report.page import Block, Cell, Column, Page, Picture, Row, Section, Table, columns, listed
from gpnas.report.sentences import checks, summary

SECTIONS = {
    "progress": ("How it went", "Course", ("course", "left", "curves")),
    "space": (
        "What was learned of the space",
        "Space",
        ("relevance", "slices", "posterior", "coordinates", "design"),
    ),
    "quality": ("Quality, cost and portfolio", "Quality", ("costs", "portfolio")),
    "trust": ("Whether to believe it", "Trust", ("trust",)),
    "work": ("Where the time went", "Work", ("workers",)),
}
"""Name of a section of figures to its heading, its short form and its figures."""
SCORES = {
    "mutual information": "nats of information about all architectures left",
    "knowledge gradient": "the logarithm of what was expected to be gained, in standardised units",
    "noisy expected improvement": "the logarithm of the expected improvement, in standardised units",
    "portfolio improvement": "the logarithm of the dB expected to be added to the best portfolio's average",
    "posterior mean": "the posterior mean, less where success was unlikely",
}
"""Phase to what its score is."""


def search_page(run: Path, *, table1: Table | None = None) -> Page:
    """The page of a search, also of one under way.

    Args:
        run: its folder.
        table1: of its bundle, where it was evaluated.

    Raises:
        JournalError: the run folder has no journal that can be read.
    """
    seen = see(run)
    recorded = seen.recorded
    with unchecked():
        drawn = {figure.name: figure for figure in figures(seen)}
    sections = [
        Section(
            *("summary", "In short", "In short"),
            lines=(*summary(seen), *(f"Note: {note}." for note in seen.notes)),
            checks=tuple(checks(seen)),
        )
    ]
    for name, (heading, short, members) in SECTIONS.items():
        shown = tuple(drawn[each] for each in members if each in drawn)
        tables = (table1,) if name == "quality" and table1 is not None else ()
        if shown or tables:
            sections.append(Section(name, heading, short, figures=shown, tables=tables))
    sections.append(Section("trials", "All trials", "Trials", tables=(trials_table(recorded),)))
    failures = [trial for trial in recorded.trials if trial.state == "failed"]
    if failures or recorded.events:
        sections.append(_trouble(recorded, failures))
    sections.append(_provenance(recorded))
    count = len(recorded.trials)
    return Page(
        kind="A gpnas search",
        title=Path(run).absolute().name,
        state=f"{recorded.state}, {trials_of(count)}; {recorded.run}",
        sections=tuple(sections),
    )


def with_pictures(page: Page, pictures: Sequence[Picture]) -> Page:
    """The page of a search with pictures of its networks at work, before the table of its trials."""
    if not pictures:
        return page
    place = [section.name for section in page.sections].index("trials")
    sections = (*page.sections[:place], pictures_section(pictures), *page.sections[place:])
    return replace(page, sections=sections)


def pictures_section(pictures: Sequence[Picture]) -> Section:
    """Pictures of networks at work, looked at together."""
    return Section(
        *("pictures", "What the networks do, seen", "Pictures"),
        lines=(
            "A part of a validation image that no training saw. Point at a picture, or use the arrow keys, "
            "to look at the same place in all; a click, plus or minus magnifies. Error maps show where an "
            "image differs from HR: the brighter, the more, 20 grey levels and more are white.",
        ),
        pictures=tuple(pictures),
    )


def trials_table(recorded: Recorded) -> Table:
    """Every trial in a row, with its explanation folded."""
    unit = recorded.objective
    priced = {name for trial in recorded.trials for name in trial.costs}
    costs = [name for name in ("parameters", "gmacs") if name in priced]
    priced_by = [{"gmacs": "GMACs"}.get(name, name) for name in costs]
    numbers = (unit.label, "predicted", *priced_by, "seconds", "attempts")
    titles = (*columns("trial", "architecture", "state", numbers=numbers), Column("chosen by"))
    best = recorded.best
    rows = []
    for trial in recorded.trials:
        predicted = Cell("")
        if trial.mean is not None and trial.stddev is not None:
            spread = f"{trial.stddev:,.{unit.decimals}f}"
            predicted = Cell(f"{trial.mean:,.{unit.decimals}f} ± {spread}", trial.mean)
        cells = [
            Cell(trial.id),
            Cell(trial.label),
            Cell(trial.shown_state),
            Cell("" if trial.value is None else f"{trial.value:,.{unit.decimals + 1}f}", trial.value),
            predicted,
            *(_cost(trial, name) for name in costs),
            Cell(f"{trial.seconds:,.1f}", trial.seconds),
            Cell(str(len(trial.spans)), len(trial.spans)),
            Cell(trial.phase, summary="why", more=tuple(explained(recorded, trial))),
        ]
        rows.append(Row(tuple(cells), trial.state, strong=trial is best))
    return Table("trials", "", titles, tuple(rows), sortable=True)


def explained(recorded: Recorded, trial: Trial) -> Iterator[str]:
    """Why a trial was chosen and what came of it, as the journal notes it."""
    unit = recorded.objective
    known = "" if trial.known is None else f" after {trial.known} observations"
    again = ", once more" if trial.replicate else ""
    yield f"Chosen by {trial.phase}{known}{again}."
    if trial.score is not None:
        yield f"Score {trial.score:.4g}: {SCORES.get(trial.phase, 'the larger, the better')}."
    if trial.mean is not None and trial.stddev is not None:
        yield f"Predicted then: {unit.shown(trial.mean, more=1)} ± {unit.shown(trial.stddev, more=1)}."
    if trial.stop is not None:
        yield f"{trial.stop}; its curve predicted {unit.shown(trial.value or 0.0, more=1)}."
    elif trial.value is not None:
        told = f"It came to {unit.shown(trial.value, more=1)}"
        if trial.mean is not None:
            told += f", {unit.shown(trial.value - trial.mean, signed=True, more=1)} beside the prediction"
        yield f"{told}."
    elif trial.failure is not None:
        yield f"It failed: {trial.failure}"
    others = ", ".join(f"{name} {value:.4g}" for name, value in list(trial.metrics.items())[:6])
    if others:
        yield f"Also measured: {others}."
    yield f"gpnas explain {recorded.run} {trial.id} computes it all again."


def _cost(trial: Trial, name: str) -> Cell:
    value = trial.costs.get(name)
    if value is None:
        return Cell("")
    return Cell(f"{value:,.0f}" if name == "parameters" else f"{value:,.3g}", value)


def _trouble(recorded: Recorded, failures: Sequence[Trial]) -> Section:
    tables = []
    if failures:
        rows = tuple(
            Row(tuple(map(Cell, (each.id, each.label, str(len(each.spans)), each.failure or ""))))
            for each in failures
        )
        titles = (*columns("trial", "architecture", numbers=("attempts",)), Column("reason"))
        tables.append(Table("failures", "Trainings that failed", titles, rows))
    if recorded.events:
        rows = tuple(Row(tuple(map(Cell, event))) for event in recorded.events)
        tables.append(Table("events", "Events", columns("time", "kind", "details"), rows))
    return Section("trouble", "Failures and events", "Failures", tables=tuple(tables))


def _provenance(recorded: Recorded) -> Section:
    setup = recorded.header.get("setup")
    setup = setup if isinstance(setup, dict) else {}
    facts = [("run", recorded.run)]
    if recorded.architectures is not None:
        facts.append(("space", f"{recorded.architectures:,} architectures of {', '.join(recorded.families)}"))
    known = {**recorded.header, **recorded.search, **setup}
    for key in ("strategy", "seed", "scale", "steps", "trials", "concurrent", "early_stopping"):
        if known.get(key) is not None:
            facts.append((key.replace("_", " "), str(known[key])))
    for key in ("data", "machine", "versions"):
        value = known.get(key)
        if isinstance(value, dict):
            facts.append((key, listed(value)))
    return Section(
        *("provenance", "Where this comes from", "Provenance"),
        facts=tuple(facts),
        blocks=tuple(_blocks(recorded)),
    )


def _blocks(recorded: Recorded) -> Iterator[Block]:
    space = {
        name: {axis.name: list(axis.values) for axis in axes} for name, axes in recorded.families.items()
    }
    if space:
        yield Block.of("The axes of the space", space)
    yield Block.of("The journal's header", {**recorded.header, "search": dict(recorded.search)})
    if recorded.delivery is not None:
        yield Block.of("What was delivered", dict(recorded.delivery))
