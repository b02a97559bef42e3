"""The conductor: Ray Tune asks it what to run, and tells it what came of it.

It stands between three parties. The engine says what to train next; the journal gets every
candidate before Tune sees it and every observation before the engine learns of it; Tune runs
trials. Tune's own state is disposable: a new conductor over the same journal goes on where the last
one ended, orphans first.
"""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import wraps
from typing import Any, Protocol, TypeVar

from ray import tune
from ray.tune.search import Searcher

from gpnas.early_stopping import LEAST_CHANCE, Curve, Outlook, outlook
from gpnas.errors import GpnasError
from gpnas.heterogeneity import CORRELATION
from gpnas.journal import Journal
from gpnas.records import Architecture, Candidate, Observation, Progress, Stop
from gpnas.run.cores import use_one_core

MAX_RESTARTS = 3
"""So often a candidate whose worker died is started again, before it counts as failed."""
MAX_UNBEGUN = 5
"""So often Tune may give up a candidate that no worker has begun, before the search ends and leaves it."""

stop = threading.Event()
"""Set to end a search in good order: running trials write a checkpoint, none is started.

Of the module, since Tune copies the objects that it is given.
"""


hopeless: set[str] = set()
"""Tune's names of the running trials that will not matter; of the module for the same reason."""


class Stopper(tune.Stopper):
    """Ends Tune's session once `stop` is set, and a trial that is hopeless at its next report."""

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return trial_id in hopeless and not result.get("done")

    def stop_all(self) -> bool:
        return stop.is_set()

    def close(self) -> None:
        """Leaves nothing behind, once the session has ended."""


class Forgetting(tune.Callback):
    """Has Tune drop what it computes of each trial's metrics, 27 KB in the driver; the journal has all."""

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        trial.run_metadata.metric_analysis.clear()
        trial.run_metadata.metric_n_steps.clear()


class Adviser(Protocol):
    """Who says what to train: a search's engine, or someone who knows it beforehand."""

    def suggest(self, n: int) -> list[Candidate]: ...
    def observe(self, observation: Observation) -> None: ...
    def outlook(self, architecture: Architecture) -> tuple[float, float] | None: ...
    def uncertainty(self) -> float | None: ...


@dataclass(frozen=True)
class Event:
    """Something that a person who watches a search wants to know."""

    kind: str
    """`started`, `progress`, `note`, `observed`."""
    candidate: Candidate
    observation: Observation | None = None
    step: int = 0
    psnr: float | None = None
    note: str = ""
    """What a training had to do to go on."""


F = TypeVar("F", bound=Callable[..., Any])


def _kept(method: F) -> F:
    """Keeps the error that a method raises in `error`, and ends the session.

    Tune wraps what it is raised, or takes it for the trial's failure and starts that again.
    """

    @wraps(method)
    def keeping(self: Conductor, *arguments: Any, **options: Any) -> Any:
        try:
            return method(self, *arguments, **options)
        except GpnasError as error:
            self.error = self.error or error
            stop.set()
            raise

    return keeping  # type: ignore[return-value]


class Conductor(Searcher):
    """Feeds Tune from an engine and a journal."""

    def __init__(
        self,
        engine: Adviser,
        journal: Journal,
        *,
        trials: int,
        trial_config: Callable[[Candidate], dict[str, Any]],
        listen: Callable[[Event], None],
        best: int | None = None,
        begun: Callable[[Candidate], int] | None = None,
    ) -> None:
        """Takes up a search where its journal ends.

        Args:
            engine: that has replayed the journal.
            journal: open for writing.
            trials: the whole allowance.
            trial_config: what a worker must know of a candidate.
            listen: told of everything that happens, on Tune's event loop.
            best: a trial is stopped where it will hardly end among so many best; None stops none.
            begun: how many attempts at a candidate have begun, heard of or not; None asks the journal alone.
        """
        super().__init__(metric="psnr", mode="max")
        self._engine = engine
        self._journal = journal
        self._trials = trials
        self._trial_config = trial_config
        self._listen = listen
        self._orphans = deque(journal.pending())
        self._proposed = len(journal.candidates())
        self._running: dict[str, Candidate] = {}
        self._attempt: dict[str, int] = {}
        self._seconds: dict[str, float] = {}
        self._noted: set[tuple[str, str]] = set()
        self._best = best
        self._curves = {candidate.id: self._curve(candidate) for candidate in journal.candidates()}
        self._finished = {each.candidate.id for each in journal.observations() if each.finished}
        self._begun = begun or (lambda candidate: len(journal.attempts(candidate.id)))
        self._begun_before: dict[str, int] = {}  # when Tune was given the candidate
        self._unbegun: Counter[str] = Counter()
        self._judged: dict[str, int] = {}  # candidate -> step
        self._outlooks: dict[str, Outlook] = {}  # of hopeless trials, by Tune's name
        hopeless.clear()
        # one thread does all of the engine's work, in order, off Tune's event loop
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="engine", initializer=use_one_core)
        self._suggestion: Future[list[Candidate]] | None = None
        self._told: list[Future[None]] = []
        self.error: GpnasError | None = None
        """What ended the session, which Tune would wrap in a traceback; None while nothing did."""
        self.abort: str | None = None
        """Why no trial can run any more; None while they can."""
        self.uncertainty: float | None = None
        """What `Engine.uncertainty` said after the newest suggestion; None while it knows nothing."""

    # Tune pickles and snapshots its searcher; nothing of this one belongs there.
    def __getstate__(self) -> dict[str, Any]:
        return {}

    def save(self, checkpoint_path: str) -> None: ...

    def restore(self, checkpoint_path: str) -> None: ...

    def save_to_dir(self, checkpoint_dir: str, session_str: str = "default") -> None: ...

    @_kept
    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """A candidate's trial, None while the engine still thinks, or FINISHED."""
        if self.abort or stop.is_set():
            return Searcher.FINISHED
        for told in self._told:
            if told.done():
                told.result()
        self._told = [told for told in self._told if not told.done()]
        candidate = self._next()
        if candidate is None:
            # one that runs may have to be given again
            return None if self._suggestion or self._running else Searcher.FINISHED
        self._running[trial_id] = candidate
        self._begun_before[trial_id] = self._begun(candidate)
        self._listen(Event("started", candidate))
        return self._trial_config(candidate)

    def _next(self) -> Candidate | None:
        if self._orphans:
            return self._orphans.popleft()
        if self._suggestion is None:
            if self._proposed >= self._trials:
                return None
            self._suggestion = self._thread.submit(self._engine.suggest, 1)
        if not self._suggestion.done():
            return None
        candidates = self._suggestion.result()
        self._suggestion = None
        if not candidates:  # the space is exhausted
            self._proposed = self._trials
            return None
        self._journal.commit_candidates(candidates)
        self._proposed += 1
        self._told.append(self._thread.submit(self._measure_uncertainty))
        return candidates[0]

    def _measure_uncertainty(self) -> None:
        self.uncertainty = self._engine.uncertainty() or self.uncertainty

    @_kept
    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        candidate = self._running.get(trial_id)
        if candidate is not None and "step" in result:
            self._record(candidate, result)
            self._judge(trial_id, candidate)

    @_kept
    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        candidate = self._running.pop(trial_id, None)
        if candidate is None:
            return
        result, before = result or {}, self._begun_before.pop(trial_id)
        if error and self._begun(candidate) - before <= MAX_RESTARTS:
            self._give_again(candidate)
        elif error:
            failure = f"its worker died {MAX_RESTARTS + 1} times; see Ray's logs for why"
            self._observe(Observation(candidate, None, failure, self._seconds.get(candidate.id, 0.0)))
        elif "abort" in result:
            self.abort = str(result["abort"])
            self._end_attempt(candidate, "aborted")
            stop.set()
        elif "failure" in result:
            self._note_attempt(candidate, int(result["attempt"]))
            self._observe(
                Observation(candidate, None, str(result["failure"]), self._seconds.get(candidate.id, 0.0))
            )
        elif "stopped" in result:
            self._end_attempt(candidate, "interrupted")
        elif result.get("done") and int(result["step"]) < candidate.fidelity.steps:
            self._record(candidate, result)
            self._observe_stopped(candidate, self._outlooks[trial_id], result)
        elif result.get("done"):
            self._record(candidate, result)
            metrics = _metrics(result)
            for other, correlation in result.get("correlations", {}).items():
                metrics[f"{CORRELATION}{other}"] = float(correlation)
            self._observe(
                Observation(candidate, float(result["psnr"]), None, float(result["seconds"]), metrics)
            )
        else:
            self._end_attempt(candidate, "interrupted")

    def _give_again(self, candidate: Candidate) -> None:
        """Has a candidate run later whose starts were not all its own: Ray counts those, too, that found
        no node, as when all nodes are gone for a while."""
        self._unbegun[candidate.id] += 1
        if self._unbegun[candidate.id] <= MAX_UNBEGUN:
            self._orphans.append(candidate)
            return
        self.abort = (
            f"{candidate.id}: Ray must be able to start workers, but time and again has not; "
            "see its logs for why; the same command goes on"
        )
        stop.set()

    def _judge(self, trial_id: str, candidate: Candidate) -> None:
        """Has the engine's thread judge a trial by its newest evaluation, once; Tune does not wait.

        A verdict counts at the trial's next report, when the trial is observed as stopped. A search
        that is killed before judges again.
        """
        running = self._curves.get(candidate.id, {})
        step = max(running, default=0)
        if self._best is None or step in (0, self._judged.get(candidate.id)):
            return
        self._judged[candidate.id] = step
        finished: list[Curve] = [dict(self._curves[name]) for name in self._finished]
        self._told.append(
            self._thread.submit(self._look_ahead, trial_id, candidate, dict(running), finished, self._best)
        )

    def _look_ahead(
        self, trial_id: str, candidate: Candidate, running: Curve, finished: list[Curve], best: int
    ) -> None:
        prior = self._engine.outlook(candidate.architecture)
        look = outlook(finished, running, last=candidate.fidelity.steps, best=best, prior=prior)
        if look is not None and look.chance < LEAST_CHANCE:
            self._outlooks[trial_id] = look
            hopeless.add(trial_id)

    def _curve(self, candidate: Candidate) -> dict[int, float]:
        """Step to the objective, over all attempts."""
        rows = self._journal.progress(candidate.id)
        return {row.step: row.value for row in rows if row.value is not None}

    def _observe_stopped(self, candidate: Candidate, look: Outlook, result: dict[str, Any]) -> None:
        # the surrogate learns what the curve says alone; what it believed itself it need not be told
        reason = Stop(look.step, look.value, look.forecast.stddev, look.chance, look.best)
        metrics = _metrics(result)
        seconds = float(result["seconds"])
        self._observe(Observation(candidate, look.forecast.mean, None, seconds, metrics, reason))

    def _record(self, candidate: Candidate, result: dict[str, Any]) -> None:
        self._note_attempt(candidate, int(result["attempt"]))
        self._seconds[candidate.id] = float(result.get("seconds", 0.0))
        attempt = int(result["attempt"])
        curve = self._curves.setdefault(candidate.id, {})
        for earlier in result.get("evaluations", ()):  # a checkpoint may know what no driver heard
            if int(earlier["step"]) not in curve:
                self._enter_progress(candidate, attempt, earlier)
        self._enter_progress(candidate, attempt, result)
        for note in result.get("notes", ()):
            if (candidate.id, note) not in self._noted:  # Tune may tell a last result twice
                self._noted.add((candidate.id, note))
                self._listen(Event("note", candidate, step=int(result["step"]), note=note))
        self._listen(Event("progress", candidate, step=int(result["step"]), psnr=result.get("psnr")))

    def _enter_progress(self, candidate: Candidate, attempt: int, row: dict[str, Any]) -> None:
        value = None if row.get("psnr") is None else float(row["psnr"])
        progress = Progress(attempt, int(row["step"]), value, _metrics(row), float(row["seconds"]))
        self._journal.record_progress(candidate.id, progress)
        if value is not None:
            self._curves.setdefault(candidate.id, {})[progress.step] = value

    def _note_attempt(self, candidate: Candidate, attempt: int) -> None:
        """Enters an attempt at its first word; an earlier one that never ended was killed."""
        if self._attempt.get(candidate.id) != attempt:
            self._end_attempt(candidate, "killed")
            self._attempt[candidate.id] = attempt
            self._journal.start_attempt(candidate.id, attempt)

    def _end_attempt(self, candidate: Candidate, outcome: str) -> None:
        attempt = self._attempt.pop(candidate.id, None)
        if attempt is not None:
            self._journal.end_attempt(candidate.id, attempt, outcome)

    def _observe(self, observation: Observation) -> None:
        self._journal.commit_observation(observation)
        if observation.finished:
            self._finished.add(observation.candidate.id)
        self._attempt.pop(observation.candidate.id, None)
        self._told.append(self._thread.submit(self._engine.observe, observation))
        self._listen(Event("observed", observation.candidate, observation))

    def close(self) -> None:
        """Waits for the engine, so that what it raised is not lost; what still ran was interrupted."""
        for candidate in self._running.values():
            self._end_attempt(candidate, "interrupted")
        self._thread.shutdown(wait=True)
        for told in self._told:
            told.result()


def _metrics(row: Mapping[str, Any]) -> dict[str, float]:
    """What was measured, beside the objective, at a step."""
    return {name: float(row[name]) for name in ("psnr", "ssim", "loss") if row.get(name) is not None}


class Deadline:
    """Sets `stop` when a search's hours are used up."""

    def __init__(self, hours: float | None) -> None:
        self._timer = threading.Timer(hours * 3600, self._end) if hours is not None else None
        self.passed = False

    def _end(self) -> None:
        self.passed = True
        stop.set()

    def __enter__(self) -> Deadline:
        if self._timer is not None:
            self._timer.daemon = True
            self._timer.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._timer is not None:
            self._timer.cancel()
