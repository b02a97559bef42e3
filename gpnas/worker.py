"""`gpnas worker`: trains what a service asks for, on a machine that Ray does not manage.

It asks, trains by a function of the user's, says how far it has come from a thread of its own, and tells what
came of it. Nothing but numbers and addresses leaves the machine. Where the link is lost the training goes on;
where the lease is lost, or the service says stop, the training ends at its next report.
"""

from __future__ import annotations

import math
import os
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from gpnas.client import Client, Failure, FinishedError, LeaseLostError, Lent, Point, RefusedError, Told
from gpnas.errors import SpaceError, TrialError
from gpnas.own_process import KilledError, OwnProcess
from gpnas.own_training import Assignment, OwnTask, Stopped
from gpnas.records import plain_value
from gpnas.run.networks import named_trainer
from gpnas.run.own_errors import ERRORS_FILE, keep_errors

LISTEN_SECONDS = 1.0
"""So long, at most, until a training in a process of its own heeds an order to end."""
ATTEMPTS = 3
"""A training whose process is killed at so many attempts has failed."""
LONGEST_PAUSE = 60.0
"""Seconds before whoever was told that there is nothing yet asks again, at most."""


class Trial(Assignment):
    """What a training function is given: what that of a space file's `trainer` has, and more."""

    def __init__(self, lent: Lent, folder: Path) -> None:
        """Takes what is to be trained, and a folder that is kept over the attempts of this worker."""
        super().__init__(
            lent.candidate, lent.architecture, lent.seed, lent.steps, folder, lent.attempt, lent.checkpoint
        )
        self._guard = threading.Lock()
        self._points: list[Point] = []
        self._address: str | None = None
        self._news = threading.Event()
        self._ordered: str | None = None  # why it is to end, once it is

    def report(
        self,
        step: int,
        value: float | None = None,
        *,
        errors: Any = None,
        checkpoint: str | None = None,
        **metrics: float,
    ) -> None:
        """Says how far the training has come.

        Args:
            step: steps done.
            value: of the objective after them; None where it was not measured.
            errors: what the outputs miss of the truth on a fixed validation set; the newest are kept in the
                folder, and do not leave this machine.
            checkpoint: address of what is trained so far; None keeps the one before, the folder at first.
            metrics: what was measured besides.

        Raises:
            Stopped: the training shall end now; no `except Exception` catches it.
            TrialError: the errors are not finite numbers.
        """
        numbers = {name: float(plain_value(each)) for name, each in metrics.items()}
        measured = None if value is None else float(plain_value(value))
        if errors is not None:
            self.folder.mkdir(parents=True, exist_ok=True)
            keep_errors(self.folder / ERRORS_FILE, errors)
        with self._guard:
            if measured is None or math.isfinite(measured):
                finite = {name: each for name, each in numbers.items() if math.isfinite(each)}
                self._points.append(Point(int(step), measured, finite))
            self._address = checkpoint or self._address
        if measured is not None:
            self._news.set()
        self._heed()

    def _heed(self) -> None:
        """Raises `Stopped` where the training is to end."""
        if self._ordered is not None:
            raise Stopped(self._ordered)

    def _taken(self) -> list[Point]:
        with self._guard:
            points, self._points = self._points, []
        return points

    def _saved(self) -> str | None:
        """Address of a checkpoint; the folder where it holds anything and no other was named."""
        if self._address is None and self.folder.is_dir() and any(self.folder.iterdir()):
            return str(self.folder)
        return self._address


Training = Callable[[Trial], Any]


@dataclass(frozen=True)
class Job:
    """What a worker is to do."""

    search: str
    worker: str
    folder: Path
    """Where trials keep checkpoints, a folder for each candidate."""
    lease_seconds: float = 300.0
    capacity: Mapping[str, float] = field(default_factory=dict)
    most: int | None = None
    """Trainings after which it ends; None goes on until the search has nothing more."""


@dataclass
class Tally:
    """What a worker has done."""

    told: int = 0
    failed: int = 0
    stopped: int = 0
    lost: int = 0

    @property
    def all(self) -> int:
        """Trainings in all."""
        return self.told + self.failed + self.stopped + self.lost


class TrainingError(Exception):
    """What a training in a process of its own came to, where it failed; one line."""

    def __init__(self, reason: str, failure: Failure) -> None:
        super().__init__(reason)
        self.failure: Failure = failure


def load(name: str, hours: float | None = None) -> Training:
    """The training function behind `train.py:train` or `package.module:train`, each run in its own process.

    Whatever it does there (prints, raises, exits, forks, hangs) is the end of one training at most. Its
    process prints to a log beside the trial's folder, such as `work/digits/c0007.log`.

    Args:
        name: of the function.
        hours: that a training may take; None: any number.

    Raises:
        TrialError: there is no such function.
    """
    try:
        code = asdict(named_trainer(name))
    except SpaceError as error:
        raise TrialError(f"--train {name}: {error}") from None

    return partial(_train_apart, code=code, hours=hours)


def _train_apart(trial: Trial, code: dict[str, Any], hours: float | None) -> Any:
    """What a person's function returns of a trial, run in a process of its own.

    Raises:
        Stopped: the trial is to end.
        TrainingError: the training failed.
        KilledError: its process was killed.
    """
    log = trial.folder.with_name(f"{trial.folder.name}.log")
    task = OwnTask(
        trial.candidate,
        trial.architecture.family,
        dict(trial.axes),
        trial.seed,
        trial.steps,
        str(trial.folder.absolute()),
        str(trial.folder.absolute() / ERRORS_FILE),
        code,
        "value",
        attempt=trial.attempt,
        checkpoint=trial.checkpoint,
    )
    begun = time.monotonic()
    process = OwnProcess(task, log)
    try:
        while True:
            document = process.hear(LISTEN_SECONDS)
            trial._heed()
            if document is None:
                if hours is not None and time.monotonic() - begun > 3600 * hours:
                    raise TrainingError(f"{process.too_long(hours)}; more in {log}", "failed")
            elif document["kind"] == "report":
                step, value, metrics = document["step"], document["value"], document["metrics"]
                trial.report(step, value, checkpoint=document.get("checkpoint"), **metrics)
            elif document["kind"] == "done":
                return document["value"]
            else:
                raise TrainingError(f"{document['reason']}; more in {log}", document["failure"])
    finally:
        process.end()


def work(client: Client, job: Job, train: Training, say: Callable[[str], None]) -> Tally:
    """Trains what a service asks for until the search has nothing more.

    Args:
        client: of the service.
        job: what to do.
        train: called with each trial; what it returns is the value.
        say: called with a line for each thing that happens.

    Raises:
        RefusedError: the service says no, or is not reached for as long as the client is patient.
        KeyboardInterrupt: a signal came; what was being trained was given back.
    """
    tally = Tally()
    while job.most is None or tally.all < job.most:
        try:
            lent, pause = client.ask(
                job.search, job.worker, lease_seconds=job.lease_seconds, capacity=job.capacity
            )
        except FinishedError as error:
            say(str(error))
            break
        if not lent:
            time.sleep(min(max(pause, 0.1), LONGEST_PAUSE))
            continue
        _train(client, job, lent[0], train, say, tally)
    return tally


def _train(
    client: Client, job: Job, lent: Lent, train: Training, say: Callable[[str], None], tally: Tally
) -> None:
    """Trains one candidate and tells what came of it."""
    folder = job.folder / job.search / lent.candidate
    folder.mkdir(parents=True, exist_ok=True)
    trial, begun = Trial(lent, folder), time.monotonic()
    beats = _Beats(client, lent, trial)
    say(f"{lent.candidate}  {lent.architecture}, attempt {lent.attempt}")
    try:
        with beats:
            told = _outcome(train, trial)
        seconds = time.monotonic() - begun
        if beats.lost is not None:
            tally.lost += 1
            say(f"{lent.candidate}  {beats.lost}")
        elif told is None:
            tally.stopped += 1
            say(f"{lent.candidate}  {trial._ordered}")
            if beats.given_back:
                with suppress(LeaseLostError):
                    client.give_back(lent.lease, checkpoint=trial._saved())
        else:
            client.tell(lent.lease, Told(**{**vars(told), "seconds": seconds}))
            if told.failure is None:
                tally.told += 1
                say(f"{lent.candidate}  {told.value:g} after {seconds:.1f} s")
            else:
                tally.failed += 1
                say(f"{lent.candidate}  {told.failure}: {told.reason}")
    except LeaseLostError as error:
        tally.lost += 1
        say(f"{lent.candidate}  {error}" + ("; what it came to counts nevertheless" if error.counted else ""))
    except KeyboardInterrupt:
        with suppress(RefusedError):
            client.give_back(lent.lease, checkpoint=trial._saved())
            say(f"{lent.candidate}  given back")
        raise


def _outcome(train: Training, trial: Trial) -> Told | None:
    """What a training came to; None where it was told to end."""
    try:
        value = train(trial)
    except Stopped:
        return None
    except Exception as error:
        if trial._ordered is not None:  # user code may have wrapped the order
            return None
        if isinstance(error, TrainingError):
            return Told(failure=error.failure, reason=str(error))
        if isinstance(error, KilledError):  # no fault of the candidate's, unless it happens each time
            if trial.attempt < ATTEMPTS:
                return Told(failure="preempted", reason=str(error), checkpoint=trial._saved())
            return Told(failure="failed", reason=f"{error}, as at {ATTEMPTS - 1} attempts before")
        return Told(failure=_kind(error), reason=_line(error))
    except SystemExit as error:
        return Told(failure="failed", reason=_line(error))
    try:
        number = plain_value(value)
        if isinstance(number, bool) or not isinstance(number, int | float):
            return Told(failure="failed", reason=f"a training must return a number, but got {number!r:.60}")
    except Exception as error:
        return Told(failure="failed", reason=f"a training must return a number, but {_line(error)}")
    if not math.isfinite(number):
        return Told(failure="diverged", reason=f"it returned {number}")
    return Told(value=float(number))


class _Beats:
    """A thread that says how far a training has come, while the block runs."""

    def __init__(self, client: Client, lent: Lent, trial: Trial) -> None:
        self._client, self._lent, self._trial = client, lent, trial
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="heartbeat", daemon=True)
        self.lost: str | None = None
        """What happened to the lease; None while it is held."""
        self.given_back = False
        """Whether the lease is to be given back, since the search was stopped."""

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._trial._news.set()
        self._thread.join(5.0)  # it may be waiting for a service that is not there

    def _beat(self) -> None:
        trial, left = self._trial, []
        while True:
            trial._news.wait(self._lent.heartbeat_seconds)
            trial._news.clear()
            ended = self._ended.is_set()
            left += trial._taken()
            if ended and not left:
                return
            try:
                verdict = self._client.heartbeat(self._lent.lease, left[-1_000:], checkpoint=trial._saved())
            except LeaseLostError as error:
                self.lost = None if self._ended.is_set() else str(error)
                trial._ordered = str(error)
                return
            except RefusedError:
                if ended:
                    return
                continue  # the link is lost: the training goes on, and these are told later
            left = []
            if ended:
                return
            if verdict.stop and not self._ended.is_set():
                self.given_back = "give the lease back" in verdict.reason
                trial._ordered = verdict.reason
                return


def _kind(error: BaseException) -> Any:
    """The service's word for why a training failed."""
    if isinstance(error, MemoryError) or "out of memory" in str(error).lower():
        return "out of memory"
    return "diverged" if isinstance(error, FloatingPointError | OverflowError) else "failed"


def _line(error: BaseException) -> str:
    """An error in one line, with the place in the user's own code where it was raised."""
    own = [each for each in traceback.extract_tb(error.__traceback__) if each.filename != __file__]
    outside = [each for each in own if f"{os.sep}site-packages{os.sep}" not in each.filename] or own
    where = f" ({Path(outside[-1].filename).name}:{outside[-1].lineno})" if outside else ""
    text = " ".join(str(error).split())
    line = f"{type(error).__name__}: {text}"[:400] + where
    return "".join(each for each in line if each.isprintable())
