"""What a journal tells of a candidate besides the candidate itself."""

from __future__ import annotations

from dataclasses import dataclass

from gpnas.records import Candidate


@dataclass(frozen=True)
class Attempt:
    """One try at a candidate; a candidate whose worker died is tried again."""

    candidate: str
    number: int
    """Number of the attempt, from 1."""
    started: str
    """ISO 8601, UTC."""
    ended: str | None
    outcome: str | None
    """`observed`, `failed`, `stopped`, `killed`, …; None while it runs. An attempt whose driver was killed
    gets `interrupted` from the next driver."""


@dataclass(frozen=True)
class Moment:
    """When a candidate was proposed, and what was known then."""

    candidate: Candidate
    time: str
    """When it was committed; ISO 8601, UTC."""
    session: int
    """Number of the session that proposed it."""
    observations: int
    """How many observations, the first in the order they were committed, the engine knew."""
