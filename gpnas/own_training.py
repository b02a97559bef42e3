"""A training of one's own: what `def train(trial)` is handed, and the process in which it runs.

The function runs in a process of its own, which is started for each attempt: whatever it does to that
process, prints, forks, or never ends, the search goes on. `run_child` is that process: it takes its task and
orders from stdin and says what happens on what was its stdout, a JSON document a line; whatever the function
prints goes to the trial's log.
"""

from __future__ import annotations

import faulthandler
import json
import os
import shutil
import signal
import sys
import threading
import traceback
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, SupportsFloat, TextIO

from gpnas.asked import number, whole
from gpnas.errors import TrialError
from gpnas.records import Architecture, AxisValue, plain_value
from gpnas.run.own_errors import keep_errors
from gpnas.run.own_folder import Snapshots
from gpnas_trainers.own import Code, OwnError, defined, entry_of, in_words, place_of

DIVERGED = "lower a rate, or raise an error that says why"
"""What to do about a value that is no number."""


class Stopped(BaseException):
    """The training is to stop: it will not matter, or the search ends. No `except Exception` catches it."""


@dataclass(frozen=True)
class OwnTask:
    """What a training of one's own must know, as plain values."""

    id: str
    """The candidate's."""
    family: str
    axes: dict[str, AxisValue]
    seed: int
    steps: int
    folder: str
    """Kept over attempts."""
    errors: str
    """Path of the file with the errors that it reports."""
    code: dict[str, Any]
    """Arguments of a `Code`: the source that the run began with."""
    objective: str
    """Its name."""
    device: str = ""
    """`cuda` or `cpu`; empty where PyTorch is asked."""
    attempt: int = 1
    checkpoint: str | None = None
    snapshot: str = ""
    """Path of the file into which the folder is packed; its own folder goes with the worker. Empty where the
    folder lies where it stays."""


@dataclass(eq=False)
class Assignment:
    """What a training is to do."""

    candidate: str
    """Its name, such as `c0007`."""
    architecture: Architecture
    """What to train: `family`, and `axes` by name."""
    seed: int
    """The seed of the training's randomness; 0 … 2³¹-1."""
    steps: int
    """Steps granted: the space file's `recipe.steps`."""
    folder: Path
    """The candidate's own, kept over attempts: for checkpoints. Where the run's storage is an object store,
    it is a copy, which is taken whenever the training reports, at most each few seconds."""
    attempt: int
    """The number of the attempt; the first is 1."""
    checkpoint: str | None
    """Address of what an attempt before has trained, as it named it; None where none did."""

    @property
    def axes(self) -> Mapping[str, AxisValue]:
        """The architecture's axes by name."""
        return self.architecture.axes

    @cached_property
    def device(self) -> str:
        """`cuda` where PyTorch finds a GPU, else `cpu`."""
        import torch

        return "cuda" if torch.cuda.is_available() else "cpu"


@dataclass
class Trial(Assignment):
    """One training, as its function sees it."""

    _task: OwnTask
    _said: TextIO
    _ordered: threading.Event = field(default_factory=threading.Event)
    _process: int = field(default_factory=os.getpid)
    _snapshots: Snapshots | None = None

    @property
    def device(self) -> str:
        """`cuda` where the trial is lent a GPU or a part of one, or its machine has one, else `cpu`."""
        return self._task.device or super().device

    def report(
        self,
        step: int,
        value: SupportsFloat | None = None,
        *,
        errors: Any = None,
        checkpoint: str | None = None,
        **metrics: SupportsFloat,
    ) -> None:
        """Says how far the training has come.

        Args:
            step: steps done; at least 0.
            value: of the objective after them; None where it was not measured.
            errors: what the outputs miss of the truth on a fixed validation set, in the same order in each
                training: outputs minus values, or class probabilities minus one-hot labels. The newest count:
                the portfolio is chosen by products of them.
            checkpoint: address of what is trained so far, for `gpnas worker`: the next attempt is told it.
            metrics: what was measured besides.

        Raises:
            Stopped: the training is to stop here.
            TrialError: a number is not finite, or another process reports.
        """
        if os.getpid() != self._process:
            raise TrialError("a training must report from the process that it began in, but another does")
        step = whole(step)
        measured = (
            None if value is None else number(value, f"the {self._task.objective} at step {step}", DIVERGED)
        )
        rest = {name: number(each, f"`{name}` at step {step}", DIVERGED) for name, each in metrics.items()}
        if errors is not None:
            keep_errors(Path(self._task.errors), errors)
        if self._snapshots is not None:
            self._snapshots.take()
        document = {"kind": "report", "step": step, "value": measured, "metrics": rest}
        self._say(document | ({} if checkpoint is None else {"checkpoint": str(checkpoint)}))
        if self._ordered.is_set():
            raise Stopped

    def _say(self, document: Mapping[str, Any]) -> None:
        self._said.write(json.dumps(document) + "\n")
        self._said.flush()


def train(task: OwnTask, said: TextIO, ordered: threading.Event) -> dict[str, Any]:
    """Runs a person's function, and says in a document what came of it.

    Args:
        task: what is trained.
        said: gets a line for each report.
        ordered: set once the training is to stop.
    """
    code = Code(**task.code)
    trial = Trial(
        task.id,
        Architecture(task.family, task.axes),
        task.seed,
        task.steps,
        Path(task.folder),
        task.attempt,
        task.checkpoint,
        task,
        said,
        ordered,
        _snapshots=Snapshots(Path(task.snapshot)) if task.snapshot else None,
    )
    document = _called(code, trial)
    if trial._snapshots is not None:
        trial._snapshots.take(last=True)
    return document


def _called(code: Code, trial: Trial) -> dict[str, Any]:
    """What came of a person's function."""
    call, value = f"{code.entry}(trial)", None
    try:
        function = entry_of(code)
        value = function(trial)
        if os.getpid() != trial._process:
            os._exit(0)  # a process that the function forked, and that came back from it
        return {
            "kind": "done",
            "value": number(value, f"{defined(code, function)}: what {call} returns", DIVERGED),
        }
    except Stopped:
        return {"kind": "stopped"}
    except (Exception, SystemExit, KeyboardInterrupt) as error:
        traceback.print_exc()
        if os.getpid() != trial._process:
            os._exit(1)
        if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
            return failed("out of memory; a smaller batch fits", "out of memory")
        own = isinstance(error, OwnError) or (isinstance(error, TrialError) and place_of(error) == "")
        where = "" if own else f"{place_of(error, code.file)}: "
        diverged = isinstance(error, FloatingPointError | OverflowError) or isinstance(
            plain_value(value), float
        )
        reason = f"{where}{in_words(error).removeprefix('TrialError: ')}"
        return failed(reason, "diverged" if diverged else "failed")


def failed(reason: str, failure: str = "failed") -> dict[str, Any]:
    """What is said of a training that failed."""
    return {"kind": "failed", "reason": reason, "failure": failure}


def run_child() -> None:
    """A process that trains once: see the module."""
    said = os.fdopen(os.dup(1), "w", encoding="utf-8")
    orders = os.fdopen(os.dup(0), "r", encoding="utf-8")
    os.dup2(2, 1)  # what is printed goes to the log, also from C
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    sys.stdin, sys.stdout = os.fdopen(0, encoding="utf-8", closefd=False), sys.stderr
    faulthandler.enable()
    faulthandler.register(signal.SIGUSR1)
    task = OwnTask(**json.loads(orders.readline()))
    ordered, own = threading.Event(), os.getpid()

    def heed() -> None:
        for _ in orders:
            ordered.set()
        if os.getpid() == own:  # whoever began this process is gone
            if task.snapshot:
                shutil.rmtree(Path(task.snapshot).parent, ignore_errors=True)
            os.killpg(os.getpgrp(), signal.SIGKILL)

    threading.Thread(target=heed, daemon=True).start()
    document = train(task, said, ordered)
    sys.stderr.flush()
    said.write(json.dumps(document) + "\n")
    said.flush()
    os._exit(0)  # whatever threads the function has left


def to_line(task: OwnTask) -> str:
    """A task as the first line that `run_child` reads."""
    return json.dumps(asdict(task)) + "\n"


if __name__ == "__main__":
    run_child()
