"""A search, read from its journal into the records that figures are drawn from."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gpnas.errors import GpnasError
from gpnas.figures.records import Measure, Recorded, Span, Trial, decimals_for

if TYPE_CHECKING:
    from gpnas.journal import Attempt, Journal
    from gpnas.records import Candidate, Objective, Observation
    from gpnas.space import SearchSpace

HIDDEN = ("space", "sources")
"""Fields of a search's header that are too long to be read by people."""


def read_search(run: Path) -> Recorded:
    """A search as its journal tells it, also while it is under way.

    Raises:
        JournalError: the run folder has no journal that can be read.
    """
    from gpnas.journal import ENDED, PROSPECT, Journal, export, status

    run = Path(run)
    with Journal.read(run) as journal, journal.moment():
        header = journal.header
        candidates, observations = journal.candidates(), journal.observations()
        moments = journal.moments()
        times = {row["candidate"]: row["time"] for row in export(journal)["observations"]}
        attempts = journal.attempts()
        space, notes = _space(journal)
        progress = {candidate.id: journal.progress(candidate.id) for candidate in candidates}
        delivery, note = journal.result("delivery"), journal.note
        events = [each for each in journal.events() if each[1] not in (PROSPECT, ENDED)]  # one for each trial
    state = status(run)
    states = {row["id"]: row["state"] for row in state["candidates"]}
    begun = min(
        [_seconds(each.started) for each in attempts] + [_seconds(each.time) for each in moments], default=0.0
    )
    by_name = {each.candidate.id: each for each in observations}
    places = {each.candidate.id: number for number, each in enumerate(observations, start=1)}
    shown = header.to_json()
    spans = _spans(attempts, begun)
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
                curve=tuple(row for row in rows if row.value is not None),
                spans=tuple(spans.get(candidate.id, ())),
            )
        )
    return Recorded(
        run=str(run),
        state=state["state"],
        objective=_measure(header.objective, trials),
        trials=tuple(trials),
        granted=header.trials,
        header={key: value for key, value in shown.items() if key != "search"},
        search={key: value for key, value in (shown["search"] or {}).items() if key not in HIDDEN},
        families={} if space is None else {each.name: each.axes for each in space.families},
        architectures=None if space is None else len(space),
        steps=header.search.steps if header.search else None,
        delivery=delivery,
        events=tuple((time, kind, json.dumps(details, ensure_ascii=False)) for time, kind, details in events),
        notes=tuple(([note] if note else []) + notes),
    )


def _spans(attempts: Sequence[Attempt], begun: float) -> dict[str, list[Span]]:
    """Name of a candidate to its attempts."""
    spans: dict[str, list[Span]] = {}
    for each in attempts:
        ended = None if each.ended is None else _seconds(each.ended) - begun
        spans.setdefault(each.candidate, []).append(
            Span(each.number, _seconds(each.started) - begun, ended, each.outcome)
        )
    return spans


def space_of(journal: Journal) -> SearchSpace:
    """The space that a search's journal describes, with costs where its networks' costs can be counted.

    Raises:
        JournalError: the run is no search, or its journal does not describe its space.
    """
    from gpnas.run.pricing import check_candidates, searched_space
    from gpnas.space import SearchSpace

    search = journal.header.search
    if search is not None:
        try:
            space = SearchSpace.from_document(search.space)
        except (GpnasError, KeyError, TypeError, ValueError):
            pass  # said below
        else:
            if space.fingerprint == search.space.get("fingerprint"):  # one without costs
                check_candidates(journal, space)
                return space
    return searched_space(journal)


def _space(journal: Journal) -> tuple[SearchSpace | None, list[str]]:
    if journal.header.search is None:
        return None, []
    try:
        return space_of(journal), []
    except GpnasError as error:
        return None, [f"{error}; figures over the axes of the space are left out"]


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
        "known": None if (known := number("observations")) is None else int(known),
        "replicate": bool(decision.get("replicate")),
    }


def _costs(space: SearchSpace | None, candidate: Candidate) -> dict[str, float]:
    if space is None or not space.costs or candidate.architecture not in space:
        return {}
    index = space.index(candidate.architecture)
    return {name: float(values[index]) for name, values in space.costs.items()}


def _measure(objective: Objective, trials: Sequence[Trial]) -> Measure:
    values = [trial.value for trial in trials if trial.value is not None]
    name = objective.name.upper() if objective.name in ("psnr", "ssim") else objective.name
    decimals = 2 if objective.unit == "dB" else decimals_for(values)
    return Measure(name, objective.unit, decimals, objective.sign < 0)


def _seconds(time: str) -> float:
    return datetime.fromisoformat(time).timestamp()
