"""Ask and tell: an engine and a journal, put together once.

Whoever trains asks for a candidate, says what its training comes to on the way, and tells how it ended. The
journal gets every candidate before anyone trains it, and every observation before the engine learns of it, so
a killed search is taken up where its journal ends: candidates without an observation come first.

Nothing here knows where trainings run. The caller's thread reads and writes the journal; a thread of this
class's own does all of the engine's work, in the order in which it was handed in, and keeps in the journal
what the engine makes of the search.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from typing import Any, Protocol

from gpnas.early_stopping import LEAST_CHANCE, Curve, Outlook, outlook
from gpnas.journal import Journal
from gpnas.records import Architecture, Candidate, Observation, Progress, Prospect, Stop
from gpnas.run.cores import use_one_core
from gpnas.run.memory import give_back


class Adviser(Protocol):
    """Who says what to train: a search's engine, or someone who knows it beforehand."""

    def suggest(self, n: int) -> list[Candidate]: ...
    def observe(self, observation: Observation) -> None: ...
    def outlook(self, architecture: Architecture) -> tuple[float, float] | None: ...
    def uncertainty(self) -> float | None: ...
    def prospect(self) -> Prospect | None: ...


@dataclass
class Course:
    """What is known of one candidate's training while it has no observation."""

    curve: dict[int, float] = field(default_factory=dict)
    """Step to value, over all attempts."""
    attempt: int | None = None
    """Number of the attempt that runs; None while none does."""
    seconds: float = 0.0
    """Training and validation time over all attempts."""
    judged: int = 0
    """Step of the evaluation that was judged last; 0 while none was."""
    judging: Future[None] | None = None
    hopeless: Outlook | None = None
    """The first verdict that this training will not matter; None while there is none."""


class AskTell:
    """Hands out candidates and takes in what their trainings come to; a context manager."""

    def __init__(
        self,
        adviser: Adviser,
        journal: Journal,
        *,
        trials: int,
        best: int | None = None,
        orphans: Iterable[Candidate] | None = None,
        stop_below: float | None = None,
    ) -> None:
        """Takes up a search where its journal ends.

        Args:
            adviser: one that has replayed the journal.
            journal: open for writing.
            trials: the whole allowance.
            best: a training is found hopeless where it will hardly end among so many best; None judges none.
            orphans: the candidates without an observation that nobody trains; None is all of them.
            stop_below: nothing more is proposed once stopping will hardly lose as much, in the objective's
                unit; None proposes all that is allowed.
        """
        candidates = journal.candidates()
        self.journal = journal
        self._adviser = adviser
        self._trials, self._best, self._stop_below = trials, best, stop_below
        self._sign = journal.header.objective.sign
        self._waiting = deque(journal.pending() if orphans is None else orphans)
        self._proposed = len(candidates)
        self._courses = {each.id: Course(self._curve(each)) for each in candidates}
        self._finished = {each.candidate.id for each in journal.observations() if each.finished}
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="engine", initializer=use_one_core)
        self._suggestion: Future[list[Candidate]] | None = None
        self._submitted: list[Future[None]] = []
        self._ahead = True  # whether the engine has looked since it last learned; its thread's own
        self.uncertainty: float | None = None
        """What the adviser said of its uncertainty after the newest suggestion, in the objective's unit; None
        while it knows nothing."""

    def __enter__(self) -> AskTell:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def thinking(self) -> bool:
        """Whether a suggestion was asked for that is not handed out yet."""
        return self._suggestion is not None

    def ask(self, *, patience: float | None = None) -> Candidate | None:
        """The next candidate to train; it is committed to the journal.

        Args:
            patience: seconds after which None is returned while the engine still thinks; None waits for it.

        Returns:
            None where the allowance is used up, the space is exhausted or the search may end. A candidate
            that is given again later is handed out by a later call.

        Raises:
            JournalError: the candidate cannot be committed. Whatever the engine raised is raised here, too.
        """
        self._raise_from_engine()
        if self._waiting:
            return self._waiting.popleft()
        if self._suggestion is None:
            if self._proposed >= self._trials:
                return None
            self._suggestion = self._thread.submit(self._suggest)
            self._submit(self._look_ahead)  # nobody waits for it
        if not wait([self._suggestion], patience).done:
            return None
        suggested, self._suggestion = self._suggestion.result(), None
        if not suggested:
            self._proposed = self._trials
            return None
        self.journal.commit_candidates(suggested)
        self._proposed += 1
        self._submit(self._measure_uncertainty)
        return suggested[0]

    def give_again(self, candidate: Candidate) -> None:
        """Has a candidate handed out once more, whose training was lost and is nobody's any longer."""
        self._waiting.append(candidate)

    def start(self, candidate: Candidate, attempt: int | None = None) -> int:
        """Enters an attempt at a candidate, once; an earlier one that never ended was killed.

        Args:
            candidate: one that was asked for.
            attempt: its number where whoever trains counts them, otherwise one more than the last.

        Returns:
            The number of the attempt.
        """
        course = self._course(candidate)
        if course.attempt is None or course.attempt != attempt:
            self.end(candidate, "killed")
            course.attempt = self.journal.start_attempt(candidate.id, attempt)
        return course.attempt

    def end(self, candidate: Candidate, outcome: str) -> None:
        """Enters that the attempt at a candidate, if any runs, ended without an observation.

        Args:
            candidate: one that was asked for.
            outcome: one word, such as `killed` or `interrupted`.
        """
        course = self._course(candidate)
        if course.attempt is not None:
            self.journal.end_attempt(candidate.id, course.attempt, outcome)
            course.attempt = None

    def progress(self, candidate: Candidate, progress: Progress) -> None:
        """Enters how far an attempt at a candidate has come, and with its first report that it started; an
        evaluation is judged by the engine's thread.
        """
        course = self._course(candidate)
        self.start(candidate, progress.attempt)
        course.seconds = progress.seconds
        self.journal.record_progress(candidate.id, progress)
        if progress.value is not None:
            course.curve[progress.step] = progress.value
        newest = max(course.curve, default=0)
        if self._best is not None and newest not in (0, course.judged):
            course.judged = newest
            finished = [self._merits(self._courses[name].curve) for name in self._finished]
            course.judging = self._submit(
                self._judge, candidate, course, self._merits(course.curve), finished
            )

    def knows(self, candidate: Candidate, step: int) -> bool:
        """Whether the journal has an evaluation of a candidate after this step."""
        return step in self._course(candidate).curve

    def seconds(self, candidate: Candidate) -> float:
        """Training and validation time of a candidate over all attempts, as far as this object was told."""
        return self._course(candidate).seconds

    def verdict(self, candidate: Candidate, *, wait: bool = False) -> Outlook | None:
        """Why a training should be stopped; None while it should go on.

        A verdict that a crash overtakes is reached again, from the curves in the journal.

        Args:
            candidate: one that is being trained.
            wait: until its newest evaluation is judged.
        """
        course = self._course(candidate)
        if wait and course.judging is not None:
            course.judging.result()
        return course.hopeless

    def stopped(
        self, candidate: Candidate, seconds: float, metrics: Mapping[str, float] | None = None
    ) -> Observation:
        """The observation of a training that was ended by its verdict: what its curve alone forecasts.

        What the surrogate believed it need not be told, so the forecast leaves that out.
        """
        look = self.verdict(candidate)
        assert look is not None, "a training is stopped by a verdict"
        value, predicted = self._sign * look.value, self._sign * look.forecast.mean
        reason = Stop(look.step, value, look.forecast.stddev, look.chance, look.best)
        return Observation(candidate, predicted, None, seconds, metrics or {}, reason)

    def tell(self, observation: Observation) -> bool:
        """Enters what a candidate's training came to; then the engine learns it.

        Returns:
            False where the candidate was observed before: the first observation counts, and the journal and
            the engine keep to it.
        """
        candidate = observation.candidate
        counts = self.journal.commit_observation(observation)
        self._course(candidate).attempt = None
        if counts:
            if observation.finished:
                self._finished.add(candidate.id)
            self._submit(self._observe, observation)
        return counts

    def close(self) -> None:
        """Waits for the engine, so that nothing that it made or raised is lost."""
        self._submit(self._look_ahead)
        self._thread.shutdown(wait=True)
        self._raise_from_engine()

    def _course(self, candidate: Candidate) -> Course:
        return self._courses.setdefault(candidate.id, Course())

    def _curve(self, candidate: Candidate) -> dict[int, float]:
        rows = self.journal.progress(candidate.id)
        return {row.step: row.value for row in rows if row.value is not None}

    def _merits(self, curve: Curve) -> Curve:
        """A curve in the sign in which larger is better."""
        return {step: self._sign * value for step, value in curve.items()}

    def _submit(self, work: Callable[..., None], *arguments: Any) -> Future[None]:
        future = self._thread.submit(work, *arguments)
        self._submitted.append(future)
        return future

    def _raise_from_engine(self) -> None:
        ended = [each for each in self._submitted if each.done()]
        self._submitted = [each for each in self._submitted if not each.done()]
        for each in ended:
            each.result()

    def _suggest(self) -> list[Candidate]:
        prospect = None if self._stop_below is None else self._adviser.prospect()
        return [] if prospect and prospect.settles(self._stop_below) else self._adviser.suggest(1)

    def _measure_uncertainty(self) -> None:
        self.uncertainty = self._adviser.uncertainty() or self.uncertainty

    def _observe(self, observation: Observation) -> None:
        self._look_ahead()
        self._adviser.observe(observation)
        self._ahead = False

    def _look_ahead(self) -> None:
        """Keeps what the engine makes of the search after the newest observation, once."""
        if self._ahead:
            return
        self._ahead = True
        prospect = self._adviser.prospect()
        if prospect is not None:
            self.journal.keep_prospect(prospect)
        give_back()

    def _judge(self, candidate: Candidate, course: Course, running: Curve, finished: list[Curve]) -> None:
        assert self._best is not None
        prior = self._adviser.outlook(candidate.architecture)
        if prior is not None:
            prior = (self._sign * prior[0], prior[1])
        look = outlook(finished, running, last=candidate.fidelity.steps, best=self._best, prior=prior)
        if course.hopeless is None and look is not None and look.chance < LEAST_CHANCE:
            course.hopeless = look
