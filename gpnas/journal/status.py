"""Where a search stands, from its journal."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

from gpnas.journal import files
from gpnas.journal.journal import Journal, outcome_of
from gpnas.journal.memory import Memory
from gpnas.journal.reading import PROSPECT
from gpnas.records import Observation

DELIVERY = "delivery"
"""Name of the result that a search keeps when it has delivered its portfolio."""
State = Literal["running", "finished", "interrupted"]


def status(run: Path) -> dict[str, Any]:
    """Where a search stands.

    Returns:
        A JSON document. `run`; `state`: `running` (a driver holds the lock), `finished` (the newest
        session's trials are observed and delivered) or `interrupted`; `objective`; `candidates`, in the
        order of proposal, each with `id`, `architecture`, `state` (`pending`, `running`, `observed`,
        `failed`, `stopped`), `value` of the objective (the last evaluation's where none is observed; None
        before the first; under the objective's name too), `seconds` of training and validation, number of
        `attempts`, `holder` of its lease where there is one; of one that was stopped also `stopped`: `step`,
        `value`, `predicted` final value and its `stddev`, `chance` to end among the `best`, and the `reason`
        in one line. `prospect`, as of the newest observation: `regret` is what is expected to be lost by
        stopping now, `bound` what that loss exceeds with a probability of 10 %. `diagnostics` of the
        surrogate as of the last delivery, where there was one. `note` where the file was damaged.

    Raises:
        JournalError: the run folder has no journal that can be read.
    """
    run = Path(run)
    # asked first: a search that ends in between is called running, never interrupted
    with Journal.read(run) as journal:
        return status_of(Memory(journal), is_driven(journal))


def is_driven(journal: Journal) -> bool:
    """Whether a driver holds the run's lock, or somebody a lease on a candidate that has not run out."""
    return files.held(journal.run) or bool(journal.leases.lasting())


def status_of(memory: Memory, driven: bool) -> dict[str, Any]:
    """Where a search stands whose journal is open.

    Args:
        memory: of the journal; it catches up.
        driven: whether somebody trains its candidates, as `is_driven` says.

    Returns:
        As `status` does.
    """
    journal = memory.journal
    with journal.moment():
        memory.catch_up()
        observations = {each.candidate.id: each for each in memory.observations}
        rows: list[dict[str, Any]] = []
        objective = journal.header.objective
        holders = {lease.candidate: lease.holder.name for lease in journal.leases.lasting()}
        attempts = journal.attempts()
        tries = Counter(each.candidate for each in attempts)
        open_ = {each.candidate for each in attempts if each.ended is None}
        for candidate in memory.candidates.values():
            observation = observations.get(candidate.id)
            if observation is not None:
                stop = observation.stopped
                value = observation.value if stop is None else stop.value
                state, seconds = outcome_of(observation), observation.seconds
            else:
                state = "running" if driven and candidate.id in open_ else "pending"
                progress = journal.progress(candidate.id)
                value = next((row.value for row in reversed(progress) if row.value is not None), None)
                seconds = max((row.seconds for row in progress), default=0.0)
            rows.append(
                {
                    "id": candidate.id,
                    "architecture": candidate.architecture.to_json(),
                    "state": state,
                    "value": value,
                    objective.name: value,
                    "seconds": seconds,
                    "attempts": tries[candidate.id],
                    **({"holder": holders[candidate.id]} if candidate.id in holders else {}),
                    **_why_stopped(observation),
                }
            )
        told = (journal.result(DELIVERY) or {}).get("diagnostics")
        more = {"prospect": journal.result(PROSPECT), "diagnostics": told, "note": journal.note}
        return {
            "run": str(journal.run),
            "state": state_of(memory, driven=driven),
            "objective": asdict(objective),
            "candidates": rows,
            **{name: each for name, each in more.items() if each},
        }


def state_of(memory: Memory, *, driven: bool) -> State:
    """Where a run stands: `running` with a driver or with leases, else `finished` where all is observed and,
    where gpnas trains, delivered."""
    if driven:
        return "running"
    header = memory.journal.header
    by_others = "trained_by" in header.setup
    whole = memory.granted >= header.trials if by_others else _delivered(memory.journal)
    return "finished" if whole and not memory.pending else "interrupted"


def _why_stopped(observation: Observation | None) -> dict[str, Any]:
    if observation is None or observation.stopped is None:
        return {}
    stop = observation.stopped
    return {"stopped": {**asdict(stop), "predicted": observation.value, "reason": str(stop)}}


def _delivered(journal: Journal) -> bool:
    """Whether the portfolio was delivered after as many trials as the newest session is granted."""
    number, sessions = journal.result_session(DELIVERY), journal.sessions()
    if number not in sessions:
        return False
    newest = sessions[max(sessions)]
    return sessions[number].header.trials == newest.header.trials
