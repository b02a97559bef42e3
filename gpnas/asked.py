"""What whoever trains is handed, and the words that are exchanged with it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from gpnas.errors import TrialError
from gpnas.journal import Lease
from gpnas.records import Architecture, AxisValue, Candidate, plain_value


@dataclass(frozen=True)
class Asked:
    """A candidate that was handed out, with the lease on it."""

    candidate: Candidate
    lease: Lease
    checkpoint: str | None
    """Address of what the attempts before have trained; None where they named none."""

    @property
    def id(self) -> str:
        """The candidate's name, such as `c0007`."""
        return self.candidate.id

    @property
    def architecture(self) -> Architecture:
        return self.candidate.architecture

    @property
    def axes(self) -> Mapping[str, AxisValue]:
        """The architecture's axes, such as the arguments of a training."""
        return self.candidate.architecture.axes

    @property
    def seed(self) -> int:
        """The seed of the training's randomness; 0 … 2³¹-1."""
        return self.candidate.seed

    @property
    def attempt(self) -> int:
        """The number of the attempt; the first is 1."""
        return self.lease.attempt

    def to_json(self) -> dict[str, Any]:
        """The form that `gpnas ask` prints."""
        return {
            "candidate": self.id,
            "architecture": self.architecture.to_json(),
            "name": str(self.architecture),
            "seed": self.seed,
            "steps": self.candidate.fidelity.steps,
            "attempt": self.attempt,
            "lease": self.lease.id,
            "expires": datetime.fromtimestamp(self.lease.expires, UTC).isoformat(timespec="seconds"),
            "checkpoint": self.checkpoint,
            "decision": dict(self.candidate.decision),
        }


@dataclass(frozen=True)
class Verdict:
    """Whether a training goes on."""

    word: Literal["continue", "stop"]
    chance: float | None
    """That the training ends among the best, in [0, 1]; None while too little is known."""
    reason: str
    """One line."""

    @property
    def stop(self) -> bool:
        return self.word == "stop"


def number(value: Any, what: str, advice: str = "tell a failed training as failed") -> float:
    """A finite number, as Python has it.

    Args:
        value: of Python or NumPy.
        what: it is, for the error.
        advice: what to do where it is none.

    Raises:
        TrialError: it is none.
    """
    plain = plain_value(value)
    kind = type(plain)
    if kind.__module__.partition(".")[0] == "torch":
        raise TrialError(f"{what} must be a finite number, but is a {kind.__name__}; take its `.item()`")
    if isinstance(plain, bool) or not isinstance(plain, int | float) or not _is_finite(plain):
        raise TrialError(f"{what} must be a finite number, but got {plain!r:.60}; {advice}")
    return float(plain)


def whole(step: Any) -> int:
    """A step, as Python has it.

    Raises:
        TrialError: it is no whole number of at least 0.
    """
    plain = plain_value(step)
    if isinstance(plain, bool) or not isinstance(plain, int) or not 0 <= plain < 2**63:
        raise TrialError(f"a step must be a whole number of at least 0, but got {plain!r:.40}")
    return plain


def _is_finite(value: float) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # a whole number beyond all floats
        return False
