"""Finished searches, as what they tell the next one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from gpnas.errors import JournalError
from gpnas.journal import Journal
from gpnas.records import Objective, Source
from gpnas.run.shipped import SHIPPED, shipped_source


def sources_of(runs: Sequence[Path], run: Path, scale: int, objective: Objective) -> tuple[Source, ...]:
    """What the searches that warm this one up observed.

    A run that exists keeps what it began with, though its sources may have grown since.

    Args:
        runs: run folders of other searches, or `shipped`; empty for what an existing run began with.
        run: the run folder of this one.
        scale: of this one, by which shipped trainings are chosen.
        objective: of this one, which must be theirs.

    Raises:
        JournalError: one of the searches has no journal, has another objective, or observed nothing yet.
    """
    if Journal.exists(run):
        with Journal.read(run) as journal:
            search = journal.header.search
        kept = search.sources if search is not None else ()
        if not runs or [source.name for source in kept] == [each.name for each in runs]:
            return kept
    return tuple(
        shipped_source(scale) if each == Path(SHIPPED) else _source(each, objective) for each in runs
    )


def _source(run: Path, objective: Objective) -> Source:
    with Journal.read(run) as journal:
        theirs = journal.header.objective
        if (theirs.name, theirs.goal) != (objective.name, objective.goal):
            raise JournalError(
                f"{run}: a search that warms up another must have its objective, to {objective.goal} "
                f"{objective.name}, but this one's is to {theirs.goal} {theirs.name}"
            )
        succeeded = [each for each in journal.observations() if each.value is not None]
    if not succeeded:
        raise JournalError(f"{run}: a search that warms up another must have observed something, but has not")
    values = tuple(float(each.value) for each in succeeded if each.value is not None)
    return Source(run.name, tuple(each.candidate.architecture for each in succeeded), values)
