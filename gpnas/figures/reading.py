"""A search, read from its journal into the records that figures are drawn from."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gpnas.errors import SpaceError
from gpnas.figures.records import (
    AxisLevels,
    Evaluation,
    Objective,
    Recorded,
    Span,
    Trial,
    decimals_for,
)

if TYPE_CHECKING:
    from gpnas.records import Candidate, Observation
    from gpnas.space import SearchSpace

HIDDEN = ("space", "sources")
"""Keys of a header that are too long to be read by people."""


def read_search(run: Path) -> Recorded:
    """A search as its journal tells it, also while it is under way.

    Raises:
        JournalError: the run folder has no journal that can be read.
    """
    from gpnas.journal import Journal, status

    run = Path(run)
    with Journal.read(run) as journal, journal.moment():
        header = journal.header
        candidates, observations = journal.candidates(), journal.observations()
        moments = journal.moments()
        times = _observation_times(journal)
        attempts = journal.attempts()
        progress = {candidate.id: journal.progress(candidate.id) for candidate in candidates}
        delivery, events, note = journal.result("delivery"), journal.events(), journal.note
    state = status(run)
    states = {row["id"]: row["state"] for row in state["candidates"]}
    begun = min(
        [_seconds(each.started) for each in attempts] + [_seconds(each.time) for each in moments], default=0.0
    )
    by_name = {each.candidate.id: each for each in observations}
    places = {each.candidate.id: number for number, each in enumerate(observations, start=1)}
    spans: dict[str, list[Span]] = {}
    for each in attempts:
        ended = None if each.ended is None else _seconds(each.ended) - begun
        spans.setdefault(each.candidate, []).append(
            Span(each.number, _seconds(each.started) - begun, ended, each.outcome)
        )
    space, notes = _space(header)
    trials = []
    for candidate, moment in zip(candidates, moments, strict=True):
        observation = by_name.get(candidate.id)
        rows = progress[candidate.id]
        seconds = observation.seconds if observation else max((row.seconds for row in rows), default=0.0)
        trials.append(
            Trial(
                id=candidate.id,
                family=candidate.architecture.family,
                axes=dict(candidate.architecture.axes),
                state=states.get(candidate.id, "pending"),
                **_outcome(observation),
                seconds=seconds,
                place=places.get(candidate.id),
                **_decision(candidate),
                proposed=_seconds(moment.time) - begun,
                observed=_seconds(times[candidate.id]) - begun if candidate.id in times else None,
                costs=_costs(space, candidate),
                curve=tuple(_evaluations(rows)),
                spans=tuple(spans.get(candidate.id, ())),
            )
        )
    values = [trial.value for trial in trials if trial.value is not None]
    return Recorded(
        run=str(run),
        state=state["state"],
        objective=_objective(header, values),
        trials=tuple(trials),
        granted=_number(header.get("trials")),
        header={key: value for key, value in header.items() if key not in HIDDEN},
        families={} if space is None else _families(space),
        architectures=None if space is None else len(space),
        steps=_number((header.get("recipe") or {}).get("steps")),
        delivery=delivery,
        events=tuple((time, kind, json.dumps(details, ensure_ascii=False)) for time, kind, details in events),
        notes=tuple(([note] if note else []) + notes),
    )


def space_of(header: Mapping[str, Any]) -> SearchSpace:
    """The space that a journal describes, with costs where its networks' costs can be counted.

    Raises:
        SpaceError: the journal does not describe its space.
    """
    from gpnas.run.pricing import priced
    from gpnas.space import SearchSpace

    try:
        space = SearchSpace.from_document(header["space"])
    except (KeyError, TypeError, ValueError) as error:
        raise SpaceError(f"the journal does not describe its space: {error}") from None
    if space.fingerprint == header["space"].get("fingerprint"):  # a space without costs
        return space
    try:
        return priced(space, header["scale"])
    except (SpaceError, ValueError, KeyError, TypeError):
        return space  # networks of others, whose costs nobody can count here


def _space(header: Mapping[str, Any]) -> tuple[SearchSpace | None, list[str]]:
    try:
        space = space_of(header)
    except SpaceError as error:
        return None, [f"{error}; figures over the axes of the space are left out"]
    return space, []


def _evaluations(rows: Sequence[Any]) -> Iterator[Evaluation]:
    return (Evaluation(row.attempt, row.step, row.value) for row in rows if row.value is not None)


def _observation_times(journal: Any) -> dict[str, str]:
    return {row["candidate"]: row["time"] for row in journal.export()["observations"]}


def _outcome(observation: Observation | None) -> dict[str, Any]:
    if observation is None:
        return {}
    return {
        "value": observation.value,
        "failure": observation.failure,
        "stop": observation.stopped,
        "metrics": dict(observation.metrics),
    }


def _decision(candidate: Candidate) -> dict[str, Any]:
    decision = candidate.decision

    def number(key: str) -> float | None:
        value = decision.get(key)
        return float(value) if isinstance(value, int | float) else None

    return {
        "phase": str(decision.get("phase", "not noted")),
        "mean": number("mean"),
        "stddev": number("stddev"),
        "score": number("score"),
        "known": _number(decision.get("observations")),
        "replicate": bool(decision.get("replicate")),
    }


def _costs(space: SearchSpace | None, candidate: Candidate) -> dict[str, float]:
    if space is None or not space.costs or candidate.architecture not in space:
        return {}
    index = space.index(candidate.architecture)
    return {name: float(values[index]) for name, values in space.costs.items()}


def _families(space: SearchSpace) -> dict[str, tuple[AxisLevels, ...]]:
    from gpnas.space import IntegerAxis

    return {
        family.name: tuple(
            AxisLevels(axis.name, tuple(axis.values), isinstance(axis, IntegerAxis)) for axis in family.axes
        )
        for family in space.families
    }


def _objective(header: Mapping[str, Any], values: list[float]) -> Objective:
    named = header.get("objective")
    if isinstance(named, Mapping):
        return Objective(str(named.get("name", "value")), str(named.get("unit") or ""), decimals_for(values))
    return Objective(decimals=2)


def _number(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _seconds(time: str) -> float:
    return datetime.fromisoformat(time).timestamp()
