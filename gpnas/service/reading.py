"""What the service says of a search, from its journal alone."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from gpnas.errors import JournalError
from gpnas.journal import Header, Journal, Memory, is_driven, status_of
from gpnas.service.folder import OPEN, Runs

POINTS = 60
"""Points of a sparkline, at most."""


@dataclass(frozen=True)
class Summary:
    """A search in a few numbers."""

    id: str
    state: str
    """`running`, `finished`, `interrupted`, or `unreadable`: its journal cannot be read."""
    kind: str
    """`managed`: trained on Ray by a driver of its own; `external`: its trainings ask and tell over HTTP."""
    driver: int | None = None
    """Number of the process that drives it; None while none does."""
    objective: dict[str, str] = field(default_factory=lambda: {"name": "", "unit": "", "goal": "maximise"})
    trials: int = 0
    """Granted in all."""
    counts: dict[str, int] = field(default_factory=dict)
    """State of a candidate to how many are in it."""
    best: dict[str, Any] | None = None
    """The best candidate so far: `id`, `architecture`, `value`; None before the first."""
    course: tuple[float, ...] = ()
    """The best value after each observation; at most 60 points, evenly spread."""
    strategy: str | None = None
    seed: int = 0
    begun: str = ""
    """ISO 8601, UTC."""
    note: str | None = None
    """One line about damage or another version, None where there is neither."""


class _Known:
    """What is known of one journal: what it held at the last look, and what was worked out of that."""

    def __init__(self, journal: Journal) -> None:
        self.guard, self.memory = threading.Lock(), Memory(journal)
        self._version: Any = None
        self.document: dict[str, Any] = {}
        self.summary: Summary | None = None

    def look(self) -> None:
        """Works out anew what has changed; to be called with the guard."""
        journal = self.memory.journal
        driven = is_driven(journal)
        version = journal.version(), driven
        if version != self._version:
            with journal.moment():
                self.document = {**status_of(self.memory, driven), "run": journal.run.name}
                self.summary = _summary(self.memory, self.document)
            self._version = version


class Reading:
    """What is said of the searches in a folder. Its methods may be called from several threads.

    It is kept for as long as a journal stays as it was; of one that grew only what is new is read.
    """

    def __init__(self, runs: Runs) -> None:
        self._runs = runs
        self._guard = threading.Lock()
        self._known: dict[str, _Known] = {}

    def summary(self, name: str) -> Summary:
        """A search in short, one that cannot be read as such.

        Raises:
            Problem: there is no such search.
        """
        path = self._runs.path(name)
        try:
            with self._looked(name) as known:
                assert known.summary is not None
                return known.summary
        except JournalError as error:
            note = str(error).replace(f"{path.parent}/", "")
            return Summary(name, "unreadable", "unknown", note=note)

    def document(self, name: str) -> dict[str, Any]:
        """Where a search stands, as `gpnas status` says it; `run` is its name.

        Raises:
            Problem: there is no such search.
            JournalError: it is damaged beyond its backup, or another gpnas wrote it.
        """
        with self._looked(name) as known:
            return known.document

    @contextmanager
    def _looked(self, name: str) -> Iterator[_Known]:
        journal = self._runs.journal(name)
        with self._guard:
            known = self._known.pop(name, None)
            if known is None or known.memory.journal is not journal:
                known = _Known(journal)
            self._known[name] = known
            while len(self._known) > OPEN:
                self._known.pop(next(iter(self._known)))
        with known.guard:
            known.look()
            yield known


def kind_of(header: Header) -> str:
    """Whether a driver of the service's own or trainings elsewhere train a search's candidates."""
    return "managed" if header.setup.get("recipe") or header.setup.get("code") else "external"


def _summary(memory: Memory, told: dict[str, Any]) -> Summary:
    journal, observations = memory.journal, memory.observations
    header, sessions = journal.header, journal.sessions()
    best, course, sign = None, [], header.objective.sign
    for each in observations:
        if each.finished and (best is None or sign * (each.value or 0.0) > sign * (best.value or 0.0)):
            best = each
        if best is not None:
            course.append(float(best.value or 0.0))
    newest = sessions[max(sessions)] if sessions else None
    return Summary(
        id=journal.run.name,
        state=told["state"],
        kind=kind_of(header),
        driver=newest.pid if newest is not None and told["state"] == "running" else None,
        objective=told["objective"],
        trials=header.trials,
        counts=dict(Counter(row["state"] for row in told["candidates"])),
        best=None
        if best is None
        else {
            "id": best.candidate.id,
            "architecture": best.candidate.architecture.to_json(),
            "value": best.value,
        },
        course=tuple(course[:: -(-len(course) // POINTS) or 1]),
        strategy=header.search.strategy if header.search else None,
        seed=header.seed,
        begun=sessions[min(sessions)].time if sessions else "",
        note=journal.note,
    )
