"""The conductor: Ray Tune asks it what to run, and tells it what came of it.

It stands between Tune, which runs trials, and `AskTell`, which knows what to train and keeps what was
observed. Tune's own state is disposable: a new conductor over the same journal goes on where the last one
ended.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from typing import Any, TypeVar

from ray import tune
from ray.tune.search import Searcher

from gpnas.ask_tell import AskTell
from gpnas.dispatch.halt import Halt
from gpnas.dispatch.report import TrialReport, report_of
from gpnas.errors import GpnasError, TrialError
from gpnas.heterogeneity import CORRELATION
from gpnas.records import Candidate, Observation, Progress

MAX_RESTARTS = 3
"""How often a candidate whose worker died is started again before it counts as failed."""
MAX_UNBEGUN = 5
"""How often Tune may give up a candidate that no worker has begun before the search ends and leaves it."""
SECONDS_OF_THOUGHT = 1.0
"""How long the engine is waited for where nothing runs; Tune would sleep as long."""


@dataclass(frozen=True)
class Event:
    """Something that a person who watches a search wants to know."""

    kind: str
    """`started`, `progress`, `note`, `observed`."""
    candidate: Candidate
    observation: Observation | None = None
    step: int = 0
    value: float | None = None
    """The objective after this step, where it was evaluated."""
    note: str = ""
    """What a training had to do to go on."""


@dataclass(frozen=True)
class RunningTrial:
    """One of Tune's trials."""

    candidate: Candidate
    begun_before: int
    """Attempts at the candidate that had begun before Tune was given it."""


F = TypeVar("F", bound=Callable[..., Any])


def _kept(method: F) -> F:
    """Keeps the error that a method raises, and ends the session.

    Tune wraps what a searcher raises, or takes it for the trial's failure and starts that again.
    """

    @wraps(method)
    def keeping(self: Conductor, *arguments: Any, **options: Any) -> Any:
        try:
            return method(self, *arguments, **options)
        except GpnasError as error:
            self._halt.fail(error)
            raise

    return keeping  # type: ignore[return-value]


class Conductor(Searcher):
    """Feeds Tune's trials from what is asked, and tells what they report."""

    def __init__(
        self,
        search: AskTell,
        halt: Halt,
        *,
        trial_config: Callable[[Candidate], dict[str, Any]],
        listen: Callable[[Event], None],
        begun: Callable[[Candidate], int] | None = None,
        logs: Callable[[str], str] = lambda why: "Ray's logs",
        allowed: Callable[[], int] = lambda: sys.maxsize,
    ) -> None:
        """Takes up a search where its journal ends.

        Args:
            search: to ask and to tell.
            halt: the orders to end.
            trial_config: what a worker must know of a candidate.
            listen: called with everything that happens, on Tune's event loop.
            begun: how many attempts at a candidate have begun, reported or not; None asks the journal, which
                knows those that were reported.
            logs: names Ray's logs to a person who wants to know why; they are kept then.
            allowed: how many trials may run at once now, where others share Ray.
        """
        super().__init__(metric="done", mode="max")
        self._search = search
        self._halt = halt
        self._trial_config = trial_config
        self._listen = listen
        self._begun = begun or (lambda candidate: len(search.journal.attempts(candidate.id)))
        self._logs, self._allowed = logs, allowed
        self._running: dict[str, RunningTrial] = {}  # by Tune's name
        self._unbegun: Counter[str] = Counter()  # by the candidate's
        self._noted: set[tuple[str, str]] = set()  # Tune may hand over a last result twice

    # Tune pickles and snapshots its searcher; nothing of this one belongs there.
    def __getstate__(self) -> dict[str, Any]:
        return {}

    def save(self, checkpoint_path: str) -> None: ...

    def restore(self, checkpoint_path: str) -> None: ...

    def save_to_dir(self, checkpoint_dir: str, session_str: str = "default") -> None: ...

    @_kept
    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """A candidate's trial, None while the engine still thinks, or FINISHED."""
        if self._halt.ordered:
            return Searcher.FINISHED
        if self.is_full:
            return None
        candidate = self._search.ask(patience=0.0 if self._running else SECONDS_OF_THOUGHT)
        if candidate is None:
            # a candidate that runs may have to be given again
            return None if self._search.thinking or self._running else Searcher.FINISHED
        self._running[trial_id] = RunningTrial(candidate, self._begun(candidate))
        self._listen(Event("started", candidate))
        return self._trial_config(candidate)

    @property
    def is_full(self) -> bool:
        """Whether as many trials run as may."""
        return len(self._running) >= self._allowed()

    def hopeless(self, trial_id: str) -> bool:
        """Whether a trial will not matter, as far as that is known by now."""
        trial = self._running.get(trial_id)
        return trial is not None and self._search.verdict(trial.candidate) is not None

    @_kept
    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        trial, report = self._running.get(trial_id), report_of(result)
        if trial is None or report is None:
            return
        if report.progress is not None:
            self._record(trial.candidate, report, report.progress)
        elif report.kind == "progress":  # it trains, and has not said how far it is
            self._search.start(trial.candidate, report.attempt)

    @_kept
    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        trial = self._running.pop(trial_id, None)
        if trial is None:
            return
        if error:
            self._worker_died(trial)
            return
        candidate, report = trial.candidate, report_of(result)
        hopeless = result is not None and result.get("done") and self._search.verdict(candidate) is not None
        match report:
            case TrialReport(kind="done", progress=Progress() as progress):
                self._record(candidate, report, progress)
                among = {f"{CORRELATION}{other}": each for other, each in report.correlations.items()}
                metrics = {**progress.metrics, **among}
                self._tell(Observation(candidate, progress.value, None, progress.seconds, metrics))
            case TrialReport(kind="failed"):
                self._search.start(candidate, report.attempt)
                self._tell_failure(candidate, report.reason)
            case TrialReport(kind="aborted"):
                self._search.end(candidate, "aborted")
                self._halt.fail(TrialError(report.reason))
            case TrialReport(kind="progress", progress=Progress() as progress) if hopeless:
                self._record(candidate, report, progress)  # `Stopper` has ended it
                self._tell(self._search.stopped(candidate, progress.seconds, progress.metrics))
            case _:
                self._search.end(candidate, "interrupted")

    def close(self) -> None:
        """Enters that what still ran was interrupted."""
        for trial in self._running.values():
            self._search.end(trial.candidate, "interrupted")

    def _worker_died(self, trial: RunningTrial) -> None:
        """Gives a candidate up whose starts were all its own; Ray also counts those that found no node, as
        when all nodes are gone for a while."""
        candidate, attempts = trial.candidate, self._begun(trial.candidate)
        for number in range(len(self._search.journal.attempts(candidate.id)), attempts):
            self._search.start(candidate, number + 1)  # it died before it said anything
        if attempts - trial.begun_before > MAX_RESTARTS:
            logs = self._logs(candidate.id)
            self._tell_failure(candidate, f"its worker died {MAX_RESTARTS + 1} times; see {logs} for why")
            return
        self._unbegun[candidate.id] += 1
        if self._unbegun[candidate.id] <= MAX_UNBEGUN:
            self._search.give_again(candidate)
            return
        self._halt.fail(
            TrialError(
                f"{candidate.id}: Ray must be able to start workers, but time and again has not; "
                f"see {self._logs(candidate.id)} for why; the same command goes on"
            )
        )

    def _record(self, candidate: Candidate, report: TrialReport, progress: Progress) -> None:
        for each in report.earlier:
            if not self._search.knows(candidate, each.step):
                self._search.progress(candidate, each)
        self._search.progress(candidate, progress)
        for note in report.notes:
            if (candidate.id, note) not in self._noted:
                self._noted.add((candidate.id, note))
                self._listen(Event("note", candidate, step=progress.step, note=note))
        self._listen(Event("progress", candidate, step=progress.step, value=progress.value))

    def _tell_failure(self, candidate: Candidate, reason: str) -> None:
        self._tell(Observation(candidate, None, reason, self._search.seconds(candidate)))

    def _tell(self, observation: Observation) -> None:
        if self._search.tell(observation):
            self._listen(Event("observed", observation.candidate, observation))


class Stopper(tune.Stopper):
    """Ends Tune's session once there is an order to, and a hopeless trial at its next report."""

    def __init__(self, halt: Halt, conductor: Conductor | None = None) -> None:
        self._halt, self._conductor = halt, conductor

    # Tune copies and pickles what it is given; this one stays where the orders are
    def __deepcopy__(self, memo: dict[int, Any]) -> Stopper:
        return self

    def __getstate__(self) -> dict[str, Any]:
        return {}

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return not result.get("done") and self._conductor is not None and self._conductor.hopeless(trial_id)

    def stop_all(self) -> bool:
        return self._halt.ordered

    def close(self) -> None:
        """Leaves nothing behind, once the session has ended."""


class Forgetting(tune.Callback):
    """Has Tune drop what it computes of each trial's metrics, 27 KB in the driver; the journal has all."""

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        trial.run_metadata.metric_analysis.clear()
        trial.run_metadata.metric_n_steps.clear()
