"""A search, read back from its journal: why each candidate was chosen, and what was learned."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from gpnas.engine import Engine, engine_for
from gpnas.errors import JournalError
from gpnas.explanation import Explanation, History, explain, explain_all, standing
from gpnas.journal import Journal
from gpnas.run.cores import one_core
from gpnas.run.pricing import searched_space
from gpnas.run.provenance import versions


def explain_candidate(run: Path, name: str) -> dict[str, Any]:
    """Why a candidate of a run was chosen, recomputed, as a JSON document.

    Args:
        run: its run folder.
        name: of the candidate, or `best`: the one with the best observed value.

    Raises:
        JournalError: there is no such run or candidate, or the run cannot be computed again.
    """
    with one_core():
        history, document, then = _recall(run)
        try:
            number = history.number(name)
        except ValueError as error:
            raise JournalError(f"{run}: {error}") from None
        explained = explain(history, history.choices[number].candidate.id).to_json()
    return document | {"versions": _changed(then[number])} | explained


def explain_search(run: Path, progress: Callable[[int, int], None]) -> dict[str, Any]:
    """Every candidate of a run in short, and what was learned in the end, as a JSON document.

    Args:
        run: its run folder.
        progress: told how many candidates of how many are explained.

    Raises:
        JournalError: there is no such run, or it cannot be computed again.
    """
    with one_core():
        history, document, then = _recall(run)
        rows = []
        for explanation in explain_all(history):
            rows.append(_row(explanation))
            progress(len(rows), len(history.choices))
        learned, diagnostics = standing(history)
    judged = [row["inside"] for row in rows if row["inside"] is not None]
    return document | {
        "versions": _changed(then[-1] if then else {}),
        "candidates": rows,
        "intervals": {"held": sum(judged), "of": len(judged)},
        "learned": None if learned is None else asdict(learned),
        "diagnostics": diagnostics.to_json(),
    }


def _row(explanation: Explanation) -> dict[str, Any]:
    document = explanation.to_json()
    outcome = document["outcome"] or {}
    keys = ("id", "architecture", "phase", "replicate", "rank", "weighed", "mean_rank", "ranked")
    return {key: document[key] for key in keys} | {
        "prediction": document["prediction"],
        "value": outcome.get("value"),
        "failure": outcome.get("failure"),
        "inside": outcome.get("inside"),
        "agrees": document["agrees"],
        "differences": document["differences"],
        "older_engine": document["older_engine"],
    }


def _recall(run: Path) -> tuple[History, dict[str, Any], list[Mapping[str, str]]]:
    """A run's history, what to say of the run itself, and the versions behind each candidate."""
    with Journal.read(run) as journal, journal.moment():
        header, sessions = journal.header, journal.sessions()
        moments, observations, words = journal.moments(), journal.observations(), journal.words()
        space, note = searched_space(journal), journal.note
    notes = [note] if note else []
    assert header.search is not None
    if space.fingerprint != header.search.space["fingerprint"]:
        notes.append("costs are counted otherwise than when the search began: numbers differ from its own")
    headers = [sessions[moment.session].header for moment in moments]

    def engine(number: int) -> Engine:
        return engine_for(space, headers[number] if headers else header)

    document: dict[str, Any] = {
        "run": str(run),
        "strategy": header.search.strategy,
        "objective": asdict(header.objective),
        "notes": notes,
    }
    return History(moments, observations, engine, words), document, [each.versions for each in headers]


def _changed(then: Mapping[str, str]) -> dict[str, list[str]]:
    """Package to its version then and now, of those that differ."""
    now = versions()
    return {
        name: [then.get(name, "not noted"), version]
        for name, version in now.items()
        if then.get(name, "not noted") != version
    }
