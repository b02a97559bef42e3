"""One trial of a person's own training, as it runs in a Ray worker: a process for each attempt.

A candidate's folder in the run's storage holds

    attempt-1/, attempt-2/…    one folder per attempt that began
    own/                       the training's own, kept over attempts: `trial.folder`
    trial.log                  whatever it printed, with tracebacks
    errors.npy                 the errors that it reported last
    seconds                    what its attempts have taken
"""

from __future__ import annotations

import json
import os
import queue
import re
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ray import tune

from gpnas.dispatch.report import TrialReport, to_result
from gpnas.files import replacing
from gpnas.own_training import OwnTask, to_line
from gpnas.records import AxisValue, Progress
from gpnas.run.own_errors import correlations_beside

REPORT_SECONDS = 1.0
"""How long a worker listens between two reports of its own; also how fast it heeds an order to stop."""
PATIENCE_SECONDS = 3.0
"""So long a training that is told to stop may take to end, before it is killed."""
LOG_FILE, OWN_FOLDER, SECONDS_FILE = "trial.log", "own", "seconds"


class KilledError(RuntimeError):
    """The training's process was killed from outside, as where memory runs out; another may do better."""


@dataclass(frozen=True)
class OwnTrialTask:
    """What a worker must know of a candidate; its plain values are a trial's configuration in Tune."""

    id: str
    family: str
    axes: dict[str, AxisValue]
    seed: int
    steps: int
    run: str
    """Name of the run, for those who watch."""
    folder: str
    """The candidate's folder, absolute."""
    code: dict[str, Any]
    """Arguments of a `Code`."""
    objective: str
    hours: float | None = None
    """Longest time of an attempt; None sets no limit."""
    correlations: bool = False
    """Whether to say how its errors correlate with those of other trainings."""
    cpus: int = 1
    gpus: float = 0.0


class OwnTrial(tune.Trainable):
    """A candidate's training by a person's own function; the worker listens to its process."""

    _process: subprocess.Popen[str] | None = None
    _newest: Progress | None = None

    def setup(self, config: dict[str, Any]) -> None:
        self.reset_config(config)

    def __repr__(self) -> str:  # the dashboard shows it
        return f"trials of {self._task.run}"

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self._end()
        self._task = OwnTrialTask(**new_config)
        self._folder = Path(self._task.folder)
        return True

    def cleanup(self) -> None:
        self._end()

    def step(self) -> dict[str, Any]:
        return to_result(self.advance())

    def advance(self) -> TrialReport:
        """Listens to the training for about `REPORT_SECONDS`.

        Raises:
            KilledError: its process was killed from outside.
        """
        if self._process is None:
            self._start()
        heard: list[Progress] = []
        deadline = time.monotonic() + REPORT_SECONDS
        last: dict[str, Any] | None = None
        while last is None and (left := deadline - time.monotonic()) > 0:
            with suppress(queue.Empty):
                document = self._heard.get(timeout=left)
                if document is None or document["kind"] != "report":
                    last = document or self._silent_end()
                else:
                    heard.append(self._progress(document))
        if heard:
            self._newest = heard[-1]
        if last is not None:
            return self._ended(last, heard)
        if self._task.hours is not None and time.monotonic() - self._begun > 3600 * self._task.hours:
            return self._too_long()
        return TrialReport("progress", self._attempt, self._newest, tuple(heard[:-1]))

    def _start(self) -> None:
        self._attempt = 1
        self._folder.mkdir(parents=True, exist_ok=True)
        while not self._claimed():
            self._attempt += 1
        (self._folder / OWN_FOLDER).mkdir(exist_ok=True)
        task = self._task
        before = self._folder / SECONDS_FILE
        self._before = float(before.read_text()) if before.exists() else 0.0
        log = open(self._folder / LOG_FILE, "a")  # noqa: SIM115 - the process's
        print(f"--- attempt {self._attempt}", file=log, flush=True)
        threads = {name: str(task.cpus) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "gpnas.own_training"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            start_new_session=True,
            env={**os.environ, **threads, "PYTHONUNBUFFERED": "1"},
        )
        log.close()
        own = OwnTask(
            task.id,
            task.family,
            task.axes,
            task.seed,
            task.steps,
            str(self._folder / OWN_FOLDER),
            task.code,
            task.objective,
            "cuda" if task.gpus else "cpu",
        )
        self._begun = time.monotonic()
        self._newest = None
        self._heard: queue.Queue[dict[str, Any] | None] = queue.Queue()
        with suppress(BrokenPipeError):
            assert self._process.stdin is not None
            self._process.stdin.write(to_line(own))
            self._process.stdin.flush()
        self._listener = threading.Thread(target=_listen, args=(self._process, self._heard), daemon=True)
        self._listener.start()

    def _claimed(self) -> bool:
        try:
            (self._folder / f"attempt-{self._attempt}").mkdir()
        except FileExistsError:
            return False
        return True

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
            among = correlations_beside(self._folder) if self._task.correlations else {}
            return TrialReport("done", number, progress, tuple(heard), correlations=among)
        if document["kind"] == "stopped":
            return TrialReport("stopped", number)
        log = self._folder / LOG_FILE
        return TrialReport("failed", number, reason=f"{document['reason']}; more in {log}")

    def _silent_end(self) -> dict[str, Any]:
        """What it means that the process ended without a last word."""
        assert self._process is not None
        code = self._process.wait()
        if code < 0:
            self._end()
            raise KilledError(f"{self._task.id}: its process was ended by signal {-code}")
        file = self._task.code["network"].rpartition(":")[0]
        return {"kind": "failed", "reason": f"{file}: it ended its process with exit code {code}"}

    def _too_long(self) -> TrialReport:
        assert self._process is not None
        log, file = self._folder / LOG_FILE, self._task.code["network"].rpartition(":")[0]
        before = log.stat().st_size
        self._process.send_signal(signal.SIGUSR1)  # has it write where it is
        time.sleep(0.5)
        with open(log, errors="replace") as text:
            text.seek(before)
            found = re.search(rf'File "{re.escape(file)}", line (\d+)', text.read())
        place = f"{file}:{found[1]}" if found else file
        reason = f"{place}: a training must end within --trial-hours {self._task.hours:g}, but went on"
        return self._ended({"kind": "failed", "reason": reason}, [])

    def _end(self) -> None:
        """Has the process stop, and ends it and all that it started."""
        process, self._process = self._process, None
        if process is None:
            return
        with suppress(OSError, ValueError):
            assert process.stdin is not None
            process.stdin.write("stop\n")
            process.stdin.flush()
        with suppress(subprocess.TimeoutExpired):
            process.wait(PATIENCE_SECONDS if self._newest is not None else 0)
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        self._listener.join()
        with suppress(OSError):
            assert process.stdin is not None
            process.stdin.close()
        with suppress(OSError), replacing(self._folder / SECONDS_FILE) as fresh:
            fresh.write_text(f"{self._seconds():.3f}")


def _listen(process: subprocess.Popen[str], heard: queue.Queue[dict[str, Any] | None]) -> None:
    assert process.stdout is not None
    with process.stdout as said:
        for line in said:
            with suppress(ValueError):
                heard.put(json.loads(line))
    heard.put(None)
