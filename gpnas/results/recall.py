"""A search, read back from its journal: why each candidate was chosen, and what was learned."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from gpnas.engine import Engine
from gpnas.errors import JournalError, SpaceError
from gpnas.explanation import Choice, Explanation, History, explain, explain_all, standing
from gpnas.journal import Journal
from gpnas.run.cores import one_core
from gpnas.run.pricing import priced
from gpnas.run.provenance import versions
from gpnas.run.warm import sources_of
from gpnas.space import SearchSpace


def explain_candidate(run: Path, name: str) -> dict[str, Any]:
    """Why a candidate of a run was chosen, recomputed, as a JSON document.

    Args:
        run: its run folder.
        name: of the candidate, or `best`: the one with the highest observed value.

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
    }


def _recall(run: Path) -> tuple[History, dict[str, Any], list[dict[str, str]]]:
    """A run's history, what to say of the run itself, and the versions behind each candidate."""
    with Journal.read(run) as journal, journal.moment():
        header, sessions = journal.header, journal.sessions()
        moments, observations = journal.moments(), journal.observations()
        note = journal.note
    notes = [note] if note else []
    try:
        space = priced(SearchSpace.from_document(header["space"]), header["scale"])
        engine_for(space, header)
    except (SpaceError, ValueError, KeyError) as error:
        raise JournalError(
            f"{run}: a journal must describe its space for an explanation, but {error}; "
            "it was written by an older gpnas, or by a newer one"
        ) from None
    if space.fingerprint != header["space"]["fingerprint"]:
        notes.append("costs are counted otherwise than when the search began: numbers differ from its own")
    settings = [header | sessions.get(moment.session, {}).get("header", {}) for moment in moments]

    def engine(number: int) -> Engine:
        return engine_for(space, settings[number] if settings else header)

    choices = [Choice(each.candidate, each.time, each.observations) for each in moments]
    document: dict[str, Any] = {"run": str(run), "strategy": header["strategy"], "notes": notes}
    then = [each.get("versions", {}) for each in settings]
    return History(choices, observations, engine), document, then


def engine_for(space: SearchSpace, header: dict[str, Any]) -> Engine:
    """The engine of a search that a journal's header describes, before anything was suggested."""
    return Engine(
        space,
        seed=header["seed"],
        strategy=header["strategy"],
        trials=header["trials"],
        steps=header["recipe"]["steps"],
        sources=sources_of(header),
        cost_aware=header.get("cost_aware", False),
        portfolio=header["portfolio"] if header.get("portfolio_aware") else 1,
    )


def _changed(then: dict[str, str]) -> dict[str, list[str]]:
    """Package to its version then and now, of those that differ."""
    now = versions()
    return {
        name: [then.get(name, "not noted"), version]
        for name, version in now.items()
        if then.get(name, "not noted") != version
    }
