"""What the service says of a search, from its journal alone."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from gpnas.errors import JournalError
from gpnas.journal import Header, Journal, is_driven, status_of
from gpnas.service.folder import Runs

T = TypeVar("T")
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
    driver: int | None
    """Number of the process that drives it; None while none does."""
    objective: dict[str, str]
    trials: int
    """Granted in all."""
    counts: dict[str, int]
    """State of a candidate to how many are in it."""
    best: dict[str, Any] | None
    """The best candidate so far: `id`, `architecture`, `value`; None before the first."""
    course: tuple[float, ...]
    """The best value after each observation; at most 60 points, evenly spread."""
    strategy: str | None
    seed: int
    begun: str
    """ISO 8601, UTC."""
    note: str | None
    """One line about damage or another version, None where there is neither."""


class Kept(Generic[T]):
    """What was worked out of journals, each kept for as long as its journal stays as it was."""

    def __init__(self, work: Callable[[Journal, bool], T], most: int = 1_000) -> None:
        self._work, self._most = work, most
        self._guard = threading.Lock()
        self._known: dict[str, tuple[Any, T]] = {}

    def of(self, name: str, journal: Journal) -> T:
        """What is worked out of a journal as it is now; errors as those of the work."""
        driven = is_driven(journal)
        version = (journal, journal.version(), driven)
        with self._guard:
            known = self._known.pop(name, None)
        if known is None or known[0] != version:
            known = (version, self._work(journal, driven))
        with self._guard:
            self._known[name] = known
            while len(self._known) > self._most:
                self._known.pop(next(iter(self._known)))
        return known[1]


class Reading:
    """What is said of the searches in a folder. Its methods may be called from several threads."""

    def __init__(self, runs: Runs) -> None:
        self._runs = runs
        self._documents: Kept[dict[str, Any]] = Kept(_document)
        self._summaries: Kept[Summary] = Kept(_summary)

    def summary(self, name: str) -> Summary:
        """A search in short, one that cannot be read as such.

        Raises:
            Problem: there is no such search.
        """
        path = self._runs.path(name)
        try:
            return self._summaries.of(name, self._runs.journal(name))
        except JournalError as error:
            return _unreadable(name, str(error).replace(f"{path.parent}/", ""))

    def document(self, name: str) -> dict[str, Any]:
        """Where a search stands, as `gpnas status` says it; `run` is its name.

        Raises:
            Problem: there is no such search.
            JournalError: it is damaged beyond its backup, or another gpnas wrote it.
        """
        return self._documents.of(name, self._runs.journal(name))


def _unreadable(name: str, note: str) -> Summary:
    return Summary(
        id=name,
        state="unreadable",
        kind="unknown",
        driver=None,
        objective={"name": "", "unit": "", "goal": "maximise"},
        trials=0,
        counts={},
        best=None,
        course=(),
        strategy=None,
        seed=0,
        begun="",
        note=note,
    )


def kind_of(header: Header) -> str:
    """Whether a driver of the service's own or trainings elsewhere train a search's candidates."""
    return "managed" if header.setup.get("recipe") or header.setup.get("code") else "external"


def _summary(journal: Journal, driven: bool) -> Summary:
    told = _document(journal, driven)
    with journal.moment():
        header, sessions = journal.header, journal.sessions()
        observations = journal.observations()
    sign = 1 if header.objective.goal == "maximise" else -1
    best, course = None, []
    for each in observations:
        if each.value is not None and (best is None or sign * each.value > sign * (best.value or 0.0)):
            if not each.finished:
                continue
            best = each
        if best is not None:
            course.append(float(best.value or 0.0))
    counts: dict[str, int] = {}
    for row in told["candidates"]:
        counts[row["state"]] = counts.get(row["state"], 0) + 1
    newest = sessions[max(sessions)] if sessions else None
    return Summary(
        id=journal.run.name,
        state=told["state"],
        kind=kind_of(header),
        driver=newest.pid if newest is not None and told["state"] == "running" else None,
        objective={
            "name": header.objective.name,
            "unit": header.objective.unit,
            "goal": header.objective.goal,
        },
        trials=header.trials,
        counts=counts,
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


def _document(journal: Journal, driven: bool) -> dict[str, Any]:
    return {**status_of(journal, driven), "run": journal.run.name}
