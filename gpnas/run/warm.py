"""Finished searches, as what they tell the next one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from gpnas.errors import JournalError
from gpnas.journal import Journal
from gpnas.records import Source
from gpnas.run.shipped import SHIPPED, shipped_source


def sources_of(runs: Sequence[Path], run: Path, scale: int) -> tuple[Source, ...]:
    """What the searches that warm this one up observed.

    A run that exists keeps what it began with, though its sources may have grown since.

    Args:
        runs: run folders of other searches, or `shipped`; empty for what an existing run began with.
        run: the run folder of this one.
        scale: of this one, by which shipped trainings are chosen.

    Raises:
        JournalError: one of the searches has no journal, or observed nothing yet.
    """
    if Journal.exists(run):
        with Journal.read(run) as journal:
            search = journal.header.search
        kept = search.sources if search is not None else ()
        if not runs or [source.name for source in kept] == [each.name for each in runs]:
            return kept
    return tuple(shipped_source(scale) if each == Path(SHIPPED) else _source(each) for each in runs)


def _source(run: Path) -> Source:
    with Journal.read(run) as journal:
        succeeded = [each for each in journal.observations() if each.value is not None]
    if not succeeded:
        raise JournalError(f"{run}: a search that warms up another must have observed something, but has not")
    values = tuple(float(each.value) for each in succeeded if each.value is not None)
    return Source(run.name, tuple(each.candidate.architecture for each in succeeded), values)
