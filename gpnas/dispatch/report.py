"""What a worker tells of its trial: one record, on one device or several.

Ray Tune takes plain values from a worker, adds its own, and flattens nested ones, so a report crosses it as
one JSON text: `to_result` and `report_of` are the only two places that know how.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from gpnas.records import Progress

Kind = Literal["progress", "done", "failed", "stopped", "aborted"]


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
