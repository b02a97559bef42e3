"""A search whose trainings are someone else's: ask for a candidate, train it anywhere, tell what it came to.

`gpnas.open_search` opens a run folder, or makes one. Several processes of one machine may have it open at
once; the journal is the only thing that they share. Whoever asks and finds nothing that waits thinks for
all: it catches up with the journal, computes the next candidate and commits it, unless another was committed
meanwhile, which is then learned first. Every candidate is leased (`gpnas.journal.leases`), so that one whose
holder died is handed out again.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import datetime
from functools import cached_property
from itertools import islice
from typing import TYPE_CHECKING, Literal, SupportsFloat

from gpnas.asked import Asked, Verdict, number, whole
from gpnas.early_stopping import LEAST_CHANCE, Curve, Outlook, outlook
from gpnas.errors import JournalError, LeaseError, SpaceError
from gpnas.journal import Holder, Journal, Lease, Memory, process_identity
from gpnas.journal.files import turn
from gpnas.journal.leases import tried
from gpnas.records import (
    ENTERED,
    WANTED,
    Architecture,
    Candidate,
    Fidelity,
    Observation,
    Progress,
    Stop,
    derived_seed,
)

if TYPE_CHECKING:
    from gpnas.engine import Engine
    from gpnas.space import SearchSpace

LEASE_SECONDS = 86_400.0
"""Length of a lease where nobody asks for another."""
ASKING = "asking"
"""File whose lock one of several processes has while it thinks."""


State = Literal["open", "waiting", "finished"]
"""`open`: who asks gets a candidate. `waiting`: others train all that is left, one of which may yet be lost.
`finished`: all that was granted is observed, or the space is exhausted."""


class OwnSearch:
    """A search that is asked and told by whoever trains; a context manager. Use `open_search`."""

    def __init__(
        self,
        journal: Journal,
        space: Callable[[], SearchSpace],
        *,
        worker: str | None = None,
        seconds: float = LEASE_SECONDS,
        bound: bool = True,
    ) -> None:
        """Takes part in a search.

        Args:
            journal: shared, and open for writing; this object closes it.
            space: makes the space of the search; called once something needs it.
            worker: a name by which the one that asks is known again; None names this process.
            seconds: length of the leases.
            bound: whether leases end with this process, rather than with time.
        """
        self.journal = journal
        self._make_space = space
        process = process_identity() if bound else None
        self.holder = Holder(worker or f"process {os.getpid()}", process)
        self._named = worker is not None
        self._seconds = seconds
        self._engine: Engine | None = None
        self.memory = Memory(journal)
        """What the journal holds, as of the last look."""
        self._taught = (0, 0, 0)  # candidates, observations and words that the engine knows
        self._held: dict[str, str] = {}  # candidate to lease, of what this object itself was handed
        self._header = journal.header

    def __enter__(self) -> OwnSearch:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Gives back the candidates that this object was handed and told nothing of, and closes the run."""
        for lease in self._held.values() if self.holder.process else ():
            with suppress(LeaseError):  # what granted it was undone
                self.journal.leases.end(lease, "given back")
        self._held.clear()
        self.journal.close()

    @cached_property
    def space(self) -> SearchSpace:
        """The space of the search."""
        return self._make_space()

    @property
    def sign(self) -> int:
        """1 where the objective is to be maximised, else -1."""
        return self._header.objective.sign

    def ask(self, *, count: int = 1) -> Asked | None:
        """The next candidate to train, leased: one that was lost or is wanted first, else a new one.

        Args:
            count: of candidates that are asked for at once; the others wait for whoever asks next.

        Returns:
            None where there is none by now; `state` says why.

        Raises:
            JournalError: the run cannot be read or written.
        """
        while True:
            asked = self.take()
            if asked is not None:
                return asked
            with turn(self.journal.run, ASKING):
                from gpnas.run.cores import one_core  # with PyTorch, which whoever only tells does without

                asked = self.take()  # another may have thought meanwhile
                if asked is not None:
                    return asked
                self.catch_up()
                left = self.left
                if left < 1:
                    return None
                with one_core():  # what is computed must not depend on where
                    suggested = self.engine.suggest(min(count, left))
                if not suggested:
                    return None
                if not self.commit(suggested):
                    self._engine = None  # it believes what did not come true

    def take(
        self,
        holder: Holder | None = None,
        seconds: float | None = None,
        fits: Callable[[Candidate], bool] = lambda _: True,
    ) -> Asked | None:
        """A candidate that waits, leased; None where none does. Nobody thinks for it.

        Args:
            holder: whoever trains it; None is this object's.
            seconds: length of the lease; None is this object's.
            fits: whether the holder can train a candidate.
        """
        leases = self.journal.leases
        with self.journal.writing():
            self.catch_up()
            pending = self.memory.pending
            leases.lapse(among=pending)
            if self._named:  # who asks again under its own name has lost what it had
                for lease in leases.open(pending):
                    if lease.holder.name == self.holder.name and self._held.get(lease.candidate) != lease.id:
                        leases.end(lease.id, "lost")
            with self.journal.reading() as connection:
                under_way = tried(connection, pending)
            vetoed = self.memory.vetoed
            free = (each for name, each in pending.items() if name not in under_way)
            candidate = next((each for each in free if each.architecture not in vetoed and fits(each)), None)
            if candidate is None:
                return None
            name = candidate.id
            checkpoint = leases.checkpoint(name)
            lease = leases.grant(name, holder or self.holder, seconds or self._seconds)
        if holder is None:
            self._held[name] = lease.id
        return Asked(candidate, lease, checkpoint)

    def tell(
        self,
        candidate: Asked | str,
        value: SupportsFloat,
        *,
        seconds: float | None = None,
        lease: str | None = None,
        **metrics: float,
    ) -> bool:
        """Enters what a candidate's training came to.

        Args:
            candidate: as it was asked for, or its name.
            value: of the objective, finite.
            seconds: of training and validation; None takes the time since it was handed out.
            lease: where only the name is given, the `id` of the lease; None takes the newest.
            metrics: what was measured besides.

        Returns:
            Whether it counts: False where the candidate was observed before.

        Raises:
            TrialError: the value is no finite number.
            JournalError: there is no such candidate.
        """
        measured = {name: number(each, f"`{name}`") for name, each in metrics.items()}
        what = f"the {self._header.objective.name} of {_name(candidate)}"
        return self._tell(candidate, lease, seconds, value=number(value, what), metrics=measured)

    def failed(
        self,
        candidate: Asked | str,
        reason: str,
        *,
        seconds: float | None = None,
        lease: str | None = None,
    ) -> bool:
        """Enters that a candidate cannot be trained; the search avoids its surroundings.

        Args:
            candidate: as it was asked for, or its name.
            reason: one line.
            seconds, lease: as of `tell`.

        Returns:
            Whether it counts.
        """
        line = " ".join(str(reason).split()) or "it failed without a reason"
        return self._tell(candidate, lease, seconds, failure=line)

    def progress(
        self,
        candidate: Asked | str,
        step: int,
        value: SupportsFloat | None = None,
        *,
        checkpoint: str | None = None,
        lease: str | None = None,
        **metrics: float,
    ) -> Verdict:
        """Enters how far a training has come, renews its lease, and says whether it goes on.

        A training that is told to stop since it will not matter is observed by that: its value is what its
        curve predicts, and nothing needs to be told of it any more.

        Args:
            candidate: as it was asked for, or its name.
            step: steps done, at least 0.
            value: of the objective after them; None where it was not measured.
            checkpoint: address of what is trained so far, for whoever may go on with it.
            lease: as of `tell`.
            metrics: what was measured besides.
        """
        step = whole(step)
        measured = (
            None if value is None else number(value, f"the {self._header.objective.name} at step {step}")
        )
        rest = {name: number(each, f"`{name}`") for name, each in metrics.items()}
        held = self._lease(candidate, lease)
        name = _name(candidate)
        try:
            self.journal.leases.renew(held.id, checkpoint=checkpoint)
        except LeaseError as error:
            observed = self.journal.observation(name)
            if observed is not None and observed.stopped is not None:
                return Verdict("stop", observed.stopped.chance, str(observed.stopped))
            return Verdict("stop", None, str(error))
        seconds = self._seconds_of(name)
        self.journal.record_progress(name, Progress(held.attempt, step, measured, rest, seconds))
        look = self._outlook(name) if measured is not None else None
        if look is None or look.chance >= LEAST_CHANCE or not self._header.early_stopping:
            chance = None if look is None else look.chance
            among = "" if look is None else f": {look.chance:.2g} to end among the best {look.best}"
            return Verdict("continue", chance, f"goes on{among}")
        stop = Stop(look.step, self.sign * look.value, look.forecast.stddev, look.chance, look.best)
        self._tell(candidate, held.id, seconds, value=self.sign * look.forecast.mean, stopped=stop)
        return Verdict("stop", look.chance, str(stop))

    def heartbeat(self, candidate: Asked | str, *, lease: str | None = None) -> Lease:
        """Renews a lease; a LeaseError where it is lost."""
        return self.journal.leases.renew(self._lease(candidate, lease).id)

    def give_back(self, candidate: Asked | str, *, lease: str | None = None) -> None:
        """Gives a candidate back, to be handed out again."""
        self.journal.leases.end(self._lease(candidate, lease).id, "given back")
        self._held.pop(_name(candidate), None)

    def wanted(self, architecture: Architecture) -> Candidate:
        """Has an architecture trained that a person wants, before whatever the search thinks of; a veto is
        lifted. It counts as one of the trials.

        Raises:
            SpaceError: it is not of the space.
        """
        architecture = self._of_space(architecture)
        with self.journal.writing(keep=True):
            self.journal.enter_event("wanted", architecture.to_json())
            return self._enter_candidate(architecture, WANTED)

    def veto(self, architecture: Architecture) -> None:
        """Has an architecture not be trained; a training under way goes on.

        Raises:
            SpaceError: it is not of the space.
        """
        architecture = self._of_space(architecture)
        self.journal.enter_event("vetoed", architecture.to_json())

    def enter(
        self,
        architecture: Architecture,
        value: SupportsFloat,
        *,
        seconds: float = 0.0,
        **metrics: float,
    ) -> Candidate:
        """Enters a training that was made elsewhere; it takes nothing from the trials.

        Args:
            architecture: of the space.
            value: of the objective, finite.
            seconds: that it took, where that is known.
            metrics: what was measured besides.

        Raises:
            SpaceError: the architecture is not of the space.
        """
        architecture = self._of_space(architecture)
        finite = number(value, f"the {self._header.objective.name} of {architecture}")
        measured = {name: number(each, f"`{name}`") for name, each in metrics.items()}
        with self.journal.writing(keep=True):
            candidate = self._enter_candidate(architecture, ENTERED)
            self.journal.leases.tell(Observation(candidate, finite, None, seconds, measured))
        return candidate

    @property
    def state(self) -> State:
        """Whether there is more to train."""
        self.catch_up()
        memory = self.memory
        left = [name for name, each in memory.pending.items() if each.architecture not in memory.vetoed]
        held = {each.candidate for each in self.journal.leases.lasting(left)}
        if len(held) < len(left) or (self.left and not self._exhausted()):
            return "open"
        return "waiting" if left else "finished"

    @property
    def left(self) -> int:
        """Trials that may still be proposed, as of the last look."""
        return max(0, self._header.trials - self.memory.granted)

    def named(self, text: str) -> Architecture:
        """The architecture of the space that a person wrote as `family:axis=value,…`.

        Raises:
            SpaceError: it is not written so, or not of the space.
        """
        try:
            architecture = Architecture.parse(text)
        except ValueError as error:
            raise SpaceError(f"{text}: {error}") from None
        return self.space[self.space.index(architecture)]

    def _of_space(self, architecture: Architecture) -> Architecture:
        if not isinstance(architecture, Architecture):
            raise SpaceError(
                "an architecture must be a gpnas.Architecture, such as Architecture('net', {'width': 16}), "
                f"but got {architecture!r:.60}"
            )
        self.space.index(architecture)
        return architecture

    def best(self) -> Observation | None:
        """The observation of the best value that was measured; None while there is none."""
        self.catch_up()
        return self._header.objective.best(self.memory.observations)

    @property
    def engine(self) -> Engine:
        """The engine, which knows what the journal held when this object last looked."""
        if self._engine is None:
            from gpnas.engine import engine_for

            self._engine = engine_for(self.space, self._header)
            self._taught = (0, 0, 0)
            self._teach(self._engine)
        return self._engine

    def catch_up(self) -> None:
        """Reads what the journal got since the last time, and has the engine learn it."""
        if not self.memory.catch_up():
            self._engine = None  # it believes what did not come true
        if self._engine is not None:
            self._teach(self._engine)

    def _teach(self, engine: Engine) -> None:
        memory, (candidates, observations, words) = self.memory, self._taught
        new = [*islice(memory.candidates.values(), candidates, None)]
        engine.replay([each for each in new if not engine.knows(each)], memory.observations[observations:])
        for word, architecture in memory.words[words:]:
            engine.allow(architecture, word == "wanted")
        self._taught = (len(memory.candidates), len(memory.observations), len(memory.words))

    def commit(self, suggested: list[Candidate]) -> bool:
        """Enters candidates that an engine suggests after all that this object has seen, unless others were
        entered meanwhile.

        Returns:
            Whether they were entered.
        """
        with self.journal.writing(keep=True):
            if self.journal.count() != len(self.memory.candidates):
                return False
            self.journal.commit_candidates(suggested)
        return True

    def _enter_candidate(self, architecture: Architecture, phase: str) -> Candidate:
        count, search = self.journal.count(), self._header.search
        assert search is not None
        place = count
        if search.common_seeds:
            self.catch_up()
            place = [each.architecture for each in self.memory.candidates.values()].count(architecture)
        candidate = Candidate(
            f"c{count:04d}",
            architecture,
            Fidelity(search.steps),
            derived_seed(self._header.seed, "training", place),
            {"phase": phase, "observations": self.journal.count("observations")},
        )
        self.journal.commit_candidates([candidate])
        return candidate

    def _exhausted(self) -> bool:
        search = self._header.search
        assert search is not None
        # an engine that may train architectures again never is, while one succeeded
        if search.strategy == "mi+kg":
            return False
        taken, vetoed, size = self.memory.taken, self.memory.vetoed, len(self.space)
        return len(taken) + len(vetoed) >= size and len(taken | vetoed) >= size  # seldom more than two counts

    def _lease(self, candidate: Asked | str, lease: str | None) -> Lease:
        leases = self.journal.leases
        if isinstance(candidate, Asked):
            return leases.find(candidate.lease.id)
        if lease is not None:
            return leases.find(lease)
        newest = leases.newest(self.journal.candidate(candidate).id)
        if newest is None:
            raise JournalError(
                f"{self.journal.run}: {candidate} must be asked for before anything is told of it, "
                "but nobody has"
            )
        return newest

    def _tell(
        self,
        candidate: Asked | str,
        lease: str | None,
        seconds: float | None,
        *,
        value: float | None = None,
        failure: str | None = None,
        metrics: Mapping[str, float] | None = None,
        stopped: Stop | None = None,
    ) -> bool:
        held = self._lease(candidate, lease)
        name = _name(candidate)
        took = self._seconds_of(name) if seconds is None else float(seconds)
        committed = candidate.candidate if isinstance(candidate, Asked) else self.journal.candidate(name)
        observation = Observation(committed, value, failure, took, metrics or {}, stopped)
        counts = self.journal.leases.tell(observation, held.id)
        self._held.pop(name, None)
        return counts

    def _seconds_of(self, name: str) -> float:
        """Time that the attempts at a candidate have taken."""
        now, total = time.time(), 0.0
        for attempt in self.journal.attempts(name):
            ended = now if attempt.ended is None else _wall(attempt.ended)
            total += max(0.0, ended - _wall(attempt.started))  # a clock may be set back
        return total

    def _outlook(self, name: str) -> Outlook | None:
        """What the curves say of a training; they alone, since whoever reports may not wait for a fit."""
        search = self._header.search
        assert search is not None
        self.catch_up()
        finished = []
        for each in self.memory.observations:
            if each.finished and each.value is not None:
                curve = self._curve(each.candidate.id)
                if curve:
                    finished.append({**curve, search.steps: self.sign * each.value})
        return outlook(finished, self._curve(name), last=search.steps, best=search.portfolio)

    def _curve(self, name: str) -> Curve:
        rows = self.journal.progress(name)
        return {row.step: self.sign * row.value for row in rows if row.value is not None}


def _name(candidate: Asked | str) -> str:
    return candidate if isinstance(candidate, str) else candidate.id


def _wall(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()
