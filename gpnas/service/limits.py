"""What the service lets one caller, one request and one answer take."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """Bounds of everything that someone else decides the size of."""

    body: int = 2**20
    """Bytes of a request's body."""
    body_seconds: float = 10.0
    """So long a body may take to arrive."""
    rate: float = 500.0
    """Requests a second of one token."""
    burst: float = 1_000.0
    """Requests of one token at once."""
    strangers: float = 10.0
    """Requests a second that name no valid token, of one address."""
    streams: int = 400
    """Event streams that are open at once."""
    job_seconds: float = 120.0
    """So long a fit, a figure or a report may take."""
    jobs: int = 32
    """Fits, figures and reports that wait at once."""
    ahead: int = 2_048
    """Candidates of a search that are worked out before anyone asks, at most."""
    architectures: int = 1_000_000
    """Size of a space that someone asks to search."""
