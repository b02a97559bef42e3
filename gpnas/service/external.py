"""A search whose trainings ask and tell over HTTP: what a request does to its journal.

Requests that wait share one transaction, so that one synchronisation of the disk serves all of them; each is
a part of it that fails alone. Nobody is answered before the commit.
"""

from __future__ import annotations

import dataclasses
import json
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from gpnas.asked import Asked
from gpnas.errors import LeaseError
from gpnas.journal import Answer, Answers, Holder, Journal, Lease, Memory
from gpnas.journal.answers import digest
from gpnas.own_search import OwnSearch
from gpnas.records import Architecture, Candidate
from gpnas.run.setup import OwnSetup
from gpnas.service.documents import AskBody, ObservationBody, Point, TellBody
from gpnas.service.problems import Problem, another_request
from gpnas.service.turns import Turns

FRESH_SECONDS, LOST_SECONDS = 1.0, 30.0
"""Pauses after which it is worth to ask again: while the engine thinks; while others train all the rest."""
HEARTBEATS = 3
"""Heartbeats within the length of a lease."""


@dataclass(frozen=True)
class Foreseen:
    """A candidate that the engine would have trained next, and what is known of it before."""

    candidate: Candidate
    costs: Mapping[str, float]
    answer: int
    """Which answer of the engine's process it comes from, by which that process knows it again."""


class External(AbstractContextManager["External"]):
    """One search, open for whoever asks and tells; a context manager.

    What a request does is handed to `once`, which has it done by a thread of the search's own.
    """

    def __init__(self, run: Path) -> None:
        """Takes part in a run.

        Raises:
            JournalError: it is no search of this kind, a driver has it, or it cannot be used.
        """
        self.run = run
        self._guard = threading.RLock()
        self.size = sys.maxsize
        """How many architectures the space has, once that is known."""
        self.ahead: deque[Foreseen] = deque()
        """What would be trained next, in order; the first has the name of the journal's next candidate."""
        self.costs: dict[str, Mapping[str, float]] = {}
        """Name of a pending candidate to what is known of it before it is trained."""
        self.changed: Callable[[], None] = lambda: None
        """Called whenever what would be trained next may have become another."""
        self.by_seconds = False
        """Whether someone asks by the seconds that a training is expected to take."""
        self.journal = Journal.share(run)
        if not OwnSetup.describes(self.journal) or self.journal.header.setup.get("code"):
            self.journal.close()
            raise Problem(409, f"{run.name} is trained by a driver of its own, so nobody asks and tells")
        self._answers = Answers(self.journal)
        self._begin()
        self._turns = Turns(run.name, self._together)

    def _begin(self) -> None:
        """Knows nothing of the journal yet."""
        self._header = self.journal.header
        self._search = OwnSearch(self.journal, lambda: cast(Any, _Size(self)), bound=False)

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Lets go of the run, once what was asked is answered; leases last."""
        self._turns.close()
        with self._guard:
            self.journal.close()

    @contextmanager
    def moment(self) -> Iterator[Memory]:
        """What the journal holds, while no request writes to it."""
        with self._guard:
            self._search.memory.catch_up()
            yield self._search.memory

    def once(self, key: str | None, request: Any, do: Callable[[], Answer]) -> Future[Answer]:
        """Does something once for each key, in one transaction with keeping what was answered.

        Args:
            key: of the request; None does it anyway.
            request: what is asked, plain JSON.
            do: does it, in another thread. What it raises undoes what it did.

        Returns:
            The answer, once it is committed; a `Problem` where another request came with the key before.
        """
        asked = digest(json.dumps(request, sort_keys=True))

        def work() -> Answer:
            kept = None if key is None else self._answers.find(key)
            if kept is not None:
                if kept.request != asked:
                    raise another_request()
                return kept
            answer = dataclasses.replace(do(), request=asked)
            # an answer that says "later" is no answer, so the same request is tried again
            if key is not None and answer.status != 204:
                self._answers.keep(key, answer)
            return answer

        return self._turns.take(work)

    def _together(self, works: Sequence[Callable[[], Answer]]) -> list[Answer | Exception]:
        """Does what waits, each apart from the others, and commits all of it at once."""
        outcomes: list[Answer | Exception] = []
        with self._guard:
            undone = self.journal.undone
            try:
                with self.journal.writing():
                    for work in works:
                        try:
                            with self.journal.apart():
                                outcomes.append(work())
                        except Exception as error:
                            if not self.journal.is_writing:  # as when the disk is full: nothing is committed
                                raise
                            outcomes.append(error)
            finally:
                if self.journal.undone != undone:  # what was believed of it did not come true
                    self.ahead.clear()
                    self._begin()
        self.changed()
        return outcomes

    def ask(self, asking: AskBody) -> Answer:
        """Candidates with leases, or why there are none."""
        if self.stopped:
            return _gone(self.run, "it was stopped; POST …/go-on goes on with it")
        asked: list[Asked] = []
        holder = Holder(asking.worker)

        def fits(candidate: Candidate) -> bool:
            costs = self.costs.get(candidate.id)
            if costs is None:  # not yet worked out, as after the service began
                return not asking.capacity
            return all(costs.get(name, 0.0) <= most for name, most in asking.capacity.items())

        if "seconds" in asking.capacity and not self.by_seconds:
            self.by_seconds = True
            self.ahead.clear()  # comes again with the seconds, in a moment
            self.costs.clear()
        while len(asked) < asking.count:
            one = self._search.take(holder, asking.lease_seconds, fits)
            if one is not None:
                asked.append(one)
            elif not self._advance():
                break
        if asked:
            return Answer("", 200, {"candidates": [self._told(each) for each in asked]})
        state = self._search.state
        if state == "finished":
            return _gone(self.run, "all of its trials are observed, or every architecture was trained")
        return Answer("", 204, None, FRESH_SECONDS if state == "open" else LOST_SECONDS)

    def _advance(self) -> bool:
        """Commits the next candidate that was foreseen; whether there was one."""
        if not self.ahead or self._search.left < 1:
            return False
        foreseen = self.ahead.popleft()
        if foreseen.candidate.id != f"c{self.journal.count():04d}" or not self._search.commit(
            [foreseen.candidate]
        ):
            self.ahead.clear()  # others were entered meanwhile
            return False
        self.costs[foreseen.candidate.id] = foreseen.costs
        return True

    def _told(self, asked: Asked) -> dict[str, Any]:
        document = asked.to_json()
        decision = document["decision"]
        return {
            **document,
            "lease": f"{self.run.name}:{asked.lease.id}",
            "fencing": asked.attempt,
            "lease_seconds": asked.lease.seconds,
            "heartbeat_seconds": asked.lease.seconds / HEARTBEATS,
            "objective": dataclasses.asdict(self._header.objective),
            "prediction": {name: decision[name] for name in ("mean", "stddev") if name in decision} or None,
            "reason": decision.get("phase", ""),
            "costs": dict(self.costs.get(asked.id, {})),
        }

    def heartbeat(self, lease: str, points: Sequence[Point], checkpoint: str | None) -> Answer:
        """Renews a lease, enters how far its training has come, and says whether it goes on.

        Args:
            lease: its name in this journal.
            points: evaluations since the last heartbeat, in order.
            checkpoint: address of what is trained so far.
        """
        held = self._lease(lease)
        if held.outcome == "stopped":  # said before, and the answer was lost
            observed = self.journal.observation(held.candidate)
            stop = None if observed is None else observed.stopped
            chance = None if stop is None else stop.chance
            return Answer("", 200, {"verdict": "stop", "chance": chance, "reason": str(stop), "next": None})
        if held.outcome is not None:
            return self._fenced(held)
        self.journal.leases.renew(lease, checkpoint=checkpoint)
        word, chance, reason = ("continue", None, "goes on")
        for each in points:
            metrics: dict[str, Any] = each.metrics
            verdict = self._search.progress(held.candidate, each.step, each.value, lease=lease, **metrics)
            word, chance, reason = verdict.word, verdict.chance, verdict.reason
            if verdict.stop:
                break
        if self.stopped and word == "continue":
            word, reason = "stop", "the search was stopped; give the lease back"
        told = {"verdict": word, "chance": chance, "reason": reason, "next": held.seconds / HEARTBEATS}
        return Answer("", 200, told)

    def tell(self, lease: str, told: TellBody) -> Answer:
        """Enters what a training came to, a value or a failure, late or not."""
        held = self._lease(lease)
        name, failure = held.candidate, told.failure
        if failure is None:
            assert told.value is not None
            error = {} if told.standard_error is None else {"standard error": told.standard_error}
            metrics = told.metrics | error
            counts = self._search.tell(name, told.value, seconds=told.seconds, lease=lease, **metrics)
        else:
            reason = f"{failure.kind}: {failure.reason}" if failure.reason else failure.kind
            counts = self._search.failed(name, reason, seconds=told.seconds, lease=lease)
        if held.outcome is not None:
            return self._fenced(held, counted=counts)
        return Answer("", 200, {"candidate": name, "counted": counts})

    def give_back(self, lease: str, checkpoint: str | None, outcome: str = "given back") -> Answer:
        """Ends a lease before its time; its candidate is offered again, from its checkpoint.

        Args:
            lease: its name in this journal.
            checkpoint: address of what is trained so far; None keeps what was named before.
            outcome: a word for the journal.
        """
        held = self._lease(lease)
        if held.outcome is not None:
            return self._fenced(held)
        if checkpoint is not None:
            self.journal.leases.renew(lease, checkpoint=checkpoint)
        self.journal.leases.end(lease, outcome)
        return Answer("", 200, {"candidate": held.candidate, "outcome": outcome})

    def entered(self, architecture: Architecture, told: ObservationBody) -> Answer:
        """Enters a training that was made elsewhere; its architecture was found to be of the space."""
        self.ahead.clear()
        candidate = self._search.enter(architecture, told.value, seconds=told.seconds or 0.0, **told.metrics)
        return Answer("", 201, {"candidate": candidate.id, "counted": True})

    def wanted(self, architecture: Architecture) -> Answer:
        """Has an architecture of the space trained that a person wants."""
        self.ahead.clear()
        return Answer("", 201, {"candidate": self._search.wanted(architecture).id})

    def vetoed(self, architecture: Architecture) -> Answer:
        """Has an architecture of the space not be trained."""
        self.ahead.clear()
        self._search.veto(architecture)
        return Answer("", 201, {"vetoed": architecture.to_json()})

    def stop(self, stopped: bool) -> Answer:
        """Has the search hand out nothing any more, or go on."""
        if stopped != self.stopped:
            self.journal.enter_event("stopped" if stopped else "gone on", {})
        return Answer("", 200, {"stopped": stopped})

    def extend(self, trials: int) -> Answer:
        """Grants more trials in all."""
        if trials < self._header.trials:
            raise Problem(
                422, f"a search is granted more, not less: `trials` is {self._header.trials}, got {trials}"
            )
        if trials > self._header.trials:
            self.journal.begin_session(dataclasses.replace(self.journal.header, trials=trials))
            self._begin()
            self.ahead.clear()
        return Answer("", 200, {"trials": trials})

    @property
    def stopped(self) -> bool:
        """Whether someone stopped it and nobody went on."""
        self._search.memory.catch_up()
        return self._search.memory.stopped

    @property
    def left(self) -> int:
        """Trials that may still be proposed, as of the last look."""
        return self._search.left

    def _lease(self, name: str) -> Lease:
        try:
            return self.journal.leases.find(name)
        except LeaseError as error:
            raise Problem(404, str(error).replace(f"{self.run}: ", "")) from None

    def _fenced(self, held: Lease, counted: bool | None = None) -> Answer:
        """What a holder hears whose lease has ended."""
        more = {} if counted is None else {"counted": counted}
        newest = self.journal.leases.newest(held.candidate) or held
        body = {
            "detail": self.journal.leases.told(held),
            "candidate": held.candidate,
            "outcome": held.outcome,
            "fencing": newest.attempt,
            **more,
        }
        return Answer("", 409, body)


class _Size:
    """A space of which only its size is known: a helper has looked whether an architecture is in it."""

    def __init__(self, search: External) -> None:
        self._search = search

    def __len__(self) -> int:
        return self._search.size

    def index(self, architecture: Architecture) -> int:
        return 0


def _gone(run: Path, why: str) -> Answer:
    return Answer("", 410, {"detail": f"{run.name} has nothing more to train: {why}"})
