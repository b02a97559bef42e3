"""A run under way, as its journal tells it to who watches."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from gpnas.journal import files
from gpnas.journal.documents import read_record
from gpnas.journal.journal import Journal
from gpnas.journal.memory import Memory
from gpnas.journal.reading import PROSPECT
from gpnas.journal.status import State, is_driven, state_of
from gpnas.records import Candidate, Objective, Observation, Progress, Prospect


@dataclass(frozen=True)
class Training:
    """A candidate that is being trained."""

    candidate: Candidate
    step: int
    """The step of its newest report; 0 before the first."""
    curve: tuple[tuple[int, float], ...]
    """Step and value of each evaluation, by step."""
    seconds: float
    """Seconds of training and validation, over all attempts."""
    speed: float | None
    """Steps per second, since the last evaluation but one; None before the first report."""

    @property
    def value(self) -> float | None:
        """The value of its newest evaluation, in the objective's unit; None before the first."""
        return self.curve[-1][1] if self.curve else None

    @property
    def left(self) -> float | None:
        """Seconds to its last step at this speed; None while there is no speed."""
        return (self.candidate.fidelity.steps - self.step) / self.speed if self.speed else None


@dataclass(frozen=True)
class Look:
    """A run at one moment."""

    run: Path
    state: State
    kind: str
    """`search` or `final training`."""
    objective: Objective
    granted: int
    """Trials in all."""
    side_by_side: int
    """Trials that run at once, at most."""
    ended: tuple[Observation, ...]
    """What has ended, the earliest first."""
    training: tuple[Training, ...]
    """What is being trained, the earliest proposed first."""
    prospect: Prospect | None
    """What the surrogate makes of it, as of the newest observation; None while it knows nothing."""

    @property
    def best(self) -> Observation | None:
        """The observation of the best measured value, the first of several; None where there is none."""
        return self.objective.best(self.ended)

    @property
    def left(self) -> float | None:
        """Seconds until the last training ends, as far as those that ended tell; None where nothing is known.

        What is not begun is taken to last as long as trainings did so far, shared evenly by those that run
        side by side.
        """
        known = [each.seconds for each in self.ended if each.seconds > 0]
        known = known or [each.seconds + each.left for each in self.training if each.left is not None]
        if not known:
            return None
        mean = sum(known) / len(known)
        running = [max(mean - each.seconds, 0) if each.left is None else each.left for each in self.training]
        unbegun = max(0, self.granted - len(self.ended) - len(running))
        together = (sum(running) + unbegun * mean) / self.side_by_side
        return max([together, *running])


def look(run: Path) -> Look:
    """A run as it stands, also while its driver writes.

    Raises:
        JournalError: the run folder has no journal that can be read.
    """
    with Journal.read(run) as journal, files.errors(Path(run)):
        driven = is_driven(journal)  # asked first: a search that ends in between is called running
        with journal.moment():
            return _seen(journal, driven)


def _seen(journal: Journal, driven: bool) -> Look:
    header, document, memory = journal.header, journal.result(PROSPECT), Memory(journal)
    memory.catch_up()
    open_ = {each.candidate for each in journal.attempts() if each.ended is None}
    training = [each for name, each in memory.pending.items() if name in open_ and driven]
    return Look(
        journal.run,
        state_of(memory, driven=driven),
        header.kind,
        header.objective,
        max(header.trials, len(memory.candidates)),
        header.concurrent,
        tuple(memory.observations),
        tuple(_training(each, journal.progress(each.id)) for each in training),
        None if document is None else read_record(Prospect, document, PROSPECT),
    )


def _training(candidate: Candidate, rows: list[Progress]) -> Training:
    newest = rows[-1] if rows else None
    curve = {row.step: row.value for row in rows if row.value is not None}
    return Training(
        candidate,
        newest.step if newest else 0,
        tuple(sorted(curve.items())),
        newest.seconds if newest else 0.0,
        _speed(rows),
    )


def _speed(rows: list[Progress]) -> float | None:
    """Steps per second from the last evaluation but one to the newest report, else from the beginning."""
    if not rows:
        return None
    newest = rows[-1]
    earlier = [row for row in rows[:-1] if row.attempt == newest.attempt and row.value is not None]
    since = earlier[-2:][0] if earlier else None
    steps = newest.step - (since.step if since else 0)
    seconds = newest.seconds - (since.seconds if since else 0.0)
    return steps / seconds if steps > 0 and seconds > 0 else None
