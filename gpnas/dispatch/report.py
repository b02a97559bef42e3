"""What a worker is told of its trial, and what it tells: one record each, on one device or several.

Ray Tune takes plain values from a worker, adds its own, and flattens nested ones, so a report crosses it as
one JSON text: `to_result` and `report_of` are the only two places that know how.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from ray import tune

from gpnas.records import AxisValue, Progress
from gpnas.run.storage import Storage

Kind = Literal["progress", "done", "failed", "stopped", "aborted"]
REPORT_SECONDS = 1.0
"""How long a worker trains, or listens, between two reports; also how fast it heeds an order to stop."""


@dataclass(frozen=True, kw_only=True)
class TrialTask:
    """What a worker must know to train a candidate; its plain values are a trial's configuration in Tune."""

    id: str
    """The candidate's."""
    family: str
    axes: dict[str, AxisValue]
    seed: int
    run: str
    """Name of the run, for those who watch."""
    storage: str
    """Address of the run's storage."""
    folder: str
    """The candidate's folder in the storage."""
    correlations: bool = False
    """Whether the last report tells how the errors correlate with those of other candidates."""
    cpus: int = 1
    """CPUs that Tune reserves for the trial."""
    gpus: float = 0.0
    """The part of a GPU that Tune reserves for the trial."""


def name_of(task: Mapping[str, Any]) -> str:
    """A name for those who watch: `c0007-drn-features24-blocks4-stages2`."""
    axes = "-".join(f"{name}{value}" for name, value in task["axes"].items())
    return re.sub(r"[^\w.-]", "_", f"{task['id']}-{task['family']}-{axes}")  # names of one's own may have any


@dataclass(frozen=True)
class TrialReport:
    """One message of a worker; what `kind` says decides which of the other fields are there."""

    kind: Kind
    """`progress`: the training goes on. `done`: it has reached its last step. `failed`: the
    candidate cannot be trained. `stopped`: it was ended from outside before its last step; the newest
    checkpoint is kept. `aborted`: the machine, the network or the storage keeps this candidate, and any
    other, from being trained."""
    attempt: int
    """Number of the attempt at the candidate, from 1; 0 where none could begin."""
    progress: Progress | None = None
    """How far it is; in `progress` and `done`."""
    earlier: tuple[Progress, ...] = ()
    """Evaluations that the checkpoint knows, in the first report after a restart: whoever listened before
    may have died before it heard of them."""
    notes: tuple[str, ...] = ()
    """What the training had to do to go on, a line each."""
    correlations: Mapping[str, float] = field(default_factory=dict)
    """Correlations of a finished network's errors with those of other candidates, by name; on demand."""
    reason: str = ""
    """Why it ended, in one line; in `failed` and `aborted`."""
    common: bool = False
    """Whether each process of a training on several devices fails in the same way at the same step."""

    @property
    def last(self) -> bool:
        """Whether no other report of this attempt follows."""
        return self.kind != "progress"


def to_result(report: TrialReport) -> dict[str, Any]:
    """A report as the plain values that Ray Tune takes for a trial's result."""
    return {"done": report.last, "report": json.dumps(asdict(report))}


def report_of(result: Mapping[str, Any] | None) -> TrialReport | None:
    """The report in a result as Ray Tune hands it over; None where a trial ended without a word."""
    if not result or "report" not in result:
        return None
    document = json.loads(result["report"])
    if document["progress"] is not None:
        document["progress"] = Progress(**document["progress"])
    document["earlier"] = tuple(Progress(**progress) for progress in document["earlier"])
    document["notes"] = tuple(document["notes"])
    return TrialReport(**document)


VARIABLES = {
    "RAY_CHDIR_TO_TRIAL_DIR": "0",  # Tune's folder of a trial holds nothing
    "PL_DISABLE_FORK": "1",  # Ray's processes must not fork, as PyTorch Lightning would
}
"""The variables that a trial's process is given before anything of Tune looks at them."""


class ReportingTrial(tune.Trainable):
    """A candidate's training that tells one report per step; its process is reused."""

    _task: TrialTask
    _artefacts: Storage
    _attempt = 0

    def __init__(self, *arguments: Any, **options: Any) -> None:
        os.environ |= VARIABLES
        super().__init__(*arguments, **options)

    def setup(self, config: dict[str, Any]) -> None:
        self.reset_config(config)

    def __repr__(self) -> str:  # the dashboard shows it
        return f"trials of {self._task.run}"

    def step(self) -> dict[str, Any]:
        return to_result(self.advance())

    def advance(self) -> TrialReport:
        """Goes on for about `REPORT_SECONDS`."""
        raise NotImplementedError

    def _correlated(
        self, correlations: Callable[[Storage, str], dict[str, float]]
    ) -> tuple[dict[str, float], tuple[str, ...]]:
        """What the last report tells of correlations, and a note where they are not known."""
        if not self._task.correlations:
            return {}, ()
        try:
            return correlations(self._artefacts, self._task.folder), ()
        except Exception as error:  # files of other candidates, of which this one knows nothing
            why = " ".join(str(error).split()) or type(error).__name__
            return {}, (f"how its errors correlate with others' is not known, since {why}",)
