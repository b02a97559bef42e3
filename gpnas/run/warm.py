"""Finished searches, as what they tell the next one."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gpnas.errors import JournalError
from gpnas.journal import Journal
from gpnas.records import Source


def sources_document(runs: Sequence[Path], run: Path) -> dict[str, Any] | None:
    """What a journal's header records of the searches that warm this one up; None where none do.

    A run that exists keeps what it began with, though its sources may have grown since.

    Args:
        runs: run folders of other searches; empty for what an existing run began with.
        run: the run folder of this one.

    Raises:
        JournalError: one of the searches has no journal, or observed nothing yet.
    """
    if Journal.exists(run):
        with Journal.read(run) as journal:
            kept: dict[str, Any] | None = journal.header.get("sources")
        if not runs or (kept and kept["names"] == [each.name for each in runs]):
            return kept
    if not runs:
        return None
    searches = [_source(each).to_json() for each in runs]
    digest = hashlib.sha256(json.dumps(searches, sort_keys=True).encode()).hexdigest()
    return {"fingerprint": digest, "names": [each.name for each in runs], "searches": searches}


def sources_of(header: dict[str, Any]) -> list[Source]:
    """The sources that a journal's header records."""
    return [Source.from_json(each) for each in (header.get("sources") or {"searches": []})["searches"]]


def _source(run: Path) -> Source:
    with Journal.read(run) as journal:
        succeeded = [each for each in journal.observations() if each.value is not None]
    if not succeeded:
        raise JournalError(f"{run}: a search that warms up another must have observed something, but has not")
    values = tuple(float(each.value) for each in succeeded if each.value is not None)
    return Source(run.name, tuple(each.candidate.architecture for each in succeeded), values)
