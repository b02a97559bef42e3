"""Builders of searches whose trainings are formulas, written by the engine and the journal themselves."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from pathlib import Path

from gpnas import Architecture, Engine, SearchSpace
from gpnas.ask_tell import AskTell
from gpnas.journal import Header, Journal, Search
from gpnas.records import Candidate, Fidelity, Objective, Observation, Progress, Stop
from gpnas.run.setup import PSNR
from gpnas.space import CategoricalAxis, Family, IntegerAxis

STEPS = 40
SPACE = SearchSpace(
    [
        Family(
            "net",
            (
                IntegerAxis("width", (4, 8, 12, 16, 20)),
                IntegerAxis("depth", (1, 2, 3, 4)),
                CategoricalAxis("block", ("plain", "residual")),
            ),
        )
    ]
)


def truth(architecture: Architecture) -> float:
    """A value that grows with width and levels off, best at three of depth, in the unit of the objective."""
    axes = architecture.axes
    width, depth = float(axes.get("width", 4)), float(axes.get("depth", 1))
    return 28 + math.log(width) / 4 - 0.1 * (depth - 3) ** 2 + (0.1 if axes.get("block") == "residual" else 0)


def header_of(space: SearchSpace, trials: int, objective: Objective, setup: dict[str, object]) -> Header:
    """The header of a search whose networks are nobody's."""
    return Header(
        trials=max(1, trials),
        objective=objective,
        search=Search({"fingerprint": space.fingerprint, **space.to_document()}, "mi+nei", STEPS, 3),
        setup=setup,
        versions={"python": "3"},
        machine={"cpus": 2},
    )


def searched(
    run: Path,
    trials: int = 14,
    *,
    space: SearchSpace = SPACE,
    value: Callable[[Architecture], float] = truth,
    objective: Objective = PSNR,
    failing: str = "CUDA out of memory",
    setup: dict[str, object] | None = None,
) -> Path:
    """A search of so many trials: every seventh fails, every fifth is stopped, one was restarted."""
    noise = random.Random(0)
    with Journal.create_or_open(run, header_of(space, trials, objective, setup or {})) as journal:
        engine = Engine(space, seed=0, strategy="mi+nei", trials=max(1, trials), steps=STEPS)
        search = AskTell(engine, journal, trials=trials)
        for number in range(trials):
            candidate = search.ask()
            assert candidate is not None
            measured = value(candidate.architecture) + noise.gauss(0, 0.02)
            if number == 3:
                journal.start_attempt(candidate.id)
                journal.end_attempt(candidate.id, 1, "killed")
            trained(journal, candidate, measured, last=STEPS // 2 if number % 5 == 4 else STEPS)
            if number % 7 == 6:
                outcome = Observation(candidate, None, failing, 3.0)
            elif number % 5 == 4:
                outcome = Observation(candidate, measured, None, 8.0, {}, stop(measured))
            else:
                outcome = Observation(candidate, measured, None, 10.0 + number, {"ssim": 0.8})
            search.tell(outcome)
        search.close()
    return run


def listed(
    run: Path, count: int, space: SearchSpace = SPACE, *, value: Callable[[Architecture], float] = truth
) -> Path:
    """A search of many trials whose architectures were drawn by chance: no engine is asked."""
    noise = random.Random(0)
    with Journal.create_or_open(run, header_of(space, count, PSNR, {})) as journal:
        candidates = [
            Candidate(
                f"c{number:04d}",
                space[noise.randrange(len(space))],
                Fidelity(STEPS),
                number,
                {"phase": "random"},
            )
            for number in range(count)
        ]
        journal.commit_candidates(candidates)
        for candidate in candidates:
            measured = value(candidate.architecture) + noise.gauss(0, 0.02)
            trained(journal, candidate, measured)
            journal.commit_observation(Observation(candidate, measured, None, 10.0, {}))
    return run


def trained(journal: Journal, candidate: Candidate, measured: float, last: int = STEPS) -> None:
    """Enters an attempt that was evaluated halfway and at its end."""
    attempt = journal.start_attempt(candidate.id)
    for step in range(STEPS // 2, last + 1, STEPS // 2):
        reached = measured - 0.2 * (1 - step / STEPS)
        journal.record_progress(candidate.id, Progress(attempt, step, reached, {}, step / 10))


def stop(measured: float) -> Stop:
    """A verdict halfway."""
    return Stop(step=STEPS // 2, value=measured - 0.1, stddev=0.05, chance=0.01, best=3)
