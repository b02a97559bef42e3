"""One trial of a person's own training, as it runs in a Ray worker: a process for each attempt.

A candidate's folder in the run's storage holds

    attempt-1/, attempt-2/…    one folder per attempt that began
    own/                       the training's own, kept over attempts: `trial.folder`
    trial.log                  whatever it printed, with tracebacks
    errors.npy                 the errors that it reported last
    seconds                    what its attempts have taken

In an object store, `own` is a file of each attempt, `attempt-1/own.tar`, into which it is packed with the
errors: see `gpnas.run.own_folder`.
"""

from __future__ import annotations

import logging
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from gpnas.dispatch.report import REPORT_SECONDS, ReportingTrial, TrialReport, TrialTask
from gpnas.own_process import KilledError, OwnProcess
from gpnas.own_training import OwnTask
from gpnas.records import Progress
from gpnas.run.layout import claim_attempt
from gpnas.run.own_errors import ERRORS_FILE, correlations_beside
from gpnas.run.own_folder import LOG_FILE, OWN_FOLDER, SECONDS_FILE, begun
from gpnas.run.storage import open_storage, unusable

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class OwnTrialTask(TrialTask):
    """What a worker must know to train a candidate by a person's own function."""

    steps: int
    code: dict[str, Any]
    """Arguments of a `Code`."""
    objective: str
    hours: float | None = None
    """Longest time of an attempt; None sets no limit."""


class OwnTrial(ReportingTrial):
    """A candidate's training by a person's own function; the worker listens to its process."""

    _task: OwnTrialTask
    _process: OwnProcess | None = None
    _newest: Progress | None = None

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self.cleanup()
        self._task = OwnTrialTask(**new_config)
        return True

    def advance(self) -> TrialReport:
        """Listens to the training for about `REPORT_SECONDS`.

        Raises:
            KilledError: its process was killed from outside.
        """
        try:
            return self._advance()
        except OSError as error:
            with suppress(OSError):
                self._end()
            return TrialReport("aborted", self._attempt, reason=unusable(self._task.storage, error))

    def _advance(self) -> TrialReport:
        process = self._process or self._start()
        heard: list[Progress] = []
        deadline = time.monotonic() + REPORT_SECONDS
        last: dict[str, Any] | None = None
        while last is None and (left := deadline - time.monotonic()) > 0:
            try:
                document = process.hear(left)
            except KilledError:
                self._end()
                raise
            if document is not None and document["kind"] == "report":
                heard.append(self._progress(document))
            else:
                last = document
        if heard:
            self._newest = heard[-1]
        if last is not None:
            return self._ended(last, heard)
        hours = self._task.hours
        if hours is not None and time.monotonic() - self._begun > 3600 * hours:
            return self._ended({"kind": "failed", "reason": process.too_long(hours)}, [])
        self._folder.keep(self._seconds())
        return TrialReport("progress", self._attempt, self._newest, tuple(heard[:-1]))

    def _start(self) -> OwnProcess:
        task, self._attempt = self._task, 0
        self._artefacts = open_storage(task.storage)
        self._attempt = attempt = claim_attempt(self._artefacts, task.folder)
        self._folder = begun(self._artefacts, task.folder, attempt)
        before = self._folder.path / SECONDS_FILE
        self._before = float(before.read_text()) if before.exists() else 0.0
        self._begun = time.monotonic()
        self._newest = None
        own = OwnTask(
            task.id,
            task.family,
            task.axes,
            task.seed,
            task.steps,
            str(self._folder.path / OWN_FOLDER),
            str(self._folder.path / ERRORS_FILE),
            task.code,
            task.objective,
            "cuda" if task.gpus else "cpu",
            attempt,
            snapshot=self._folder.snapshot,
        )
        threads = {name: str(task.cpus) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")}
        self._process = OwnProcess(own, self._folder.path / LOG_FILE, threads)
        return self._process

    def _seconds(self) -> float:
        return self._before + time.monotonic() - self._begun

    def _progress(self, document: dict[str, Any]) -> Progress:
        value = document["value"]
        metrics = {**document["metrics"], **({} if value is None else {self._task.objective: value})}
        return Progress(self._attempt, document["step"], value, metrics, self._seconds())

    def _ended(self, document: dict[str, Any], heard: list[Progress]) -> TrialReport:
        seconds, number = self._seconds(), self._attempt
        self._end()
        if document["kind"] == "done":
            own = {self._task.objective: document["value"]}
            metrics = {**(self._newest.metrics if self._newest else {}), **own}
            progress = Progress(number, self._task.steps, document["value"], metrics, seconds)
            among, notes = self._correlated(correlations_beside)
            return TrialReport("done", number, progress, tuple(heard), notes, among)
        if document["kind"] == "stopped":
            return TrialReport("stopped", number)
        return TrialReport("failed", number, reason=f"{document['reason']}; more in {self._folder.log}")

    def cleanup(self) -> None:
        """Ends the training, if there is one; whoever comes next in this worker is not to blame for it."""
        try:
            self._end()
        except OSError as error:
            logger.warning("%s: what was kept before serves, since %s", self._folder.log, error)

    def _end(self) -> None:
        """Has the process stop, ends it and all that it started, and keeps what it left.

        Raises:
            OSError: the storage cannot be written.
        """
        process, self._process = self._process, None
        if process is None:
            return
        process.end()
        try:
            self._folder.keep(self._seconds(), last=True)
        finally:
            self._folder.close()
