"""Why a search ends before its last trial, and the deadline that is one of the reasons."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from gpnas.errors import GpnasError


@dataclass
class Halt:
    """The orders to end a search in good order; there is one of it for each command.

    Signal handlers, the deadline, the conductor and whoever looks after Ray write it. Once there is an order,
    running trials write a checkpoint and none is started.
    """

    signal: int | None = None
    """Number of the first signal that came."""
    out_of_time: bool = False
    """Whether the time budget is used up."""
    error: GpnasError | None = None
    """The first error after which no trial can run; Ray Tune would wrap it in a traceback."""
    lost: bool = False
    """Whether processes of the Ray that was started here have died; a new one clears it."""

    @property
    def ordered(self) -> bool:
        """Whether the trials are to end."""
        return self.lost or self.final

    @property
    def final(self) -> bool:
        """Whether no new Ray would help."""
        return self.signal is not None or self.out_of_time or self.error is not None

    def fail(self, error: GpnasError) -> None:
        """Orders the end because of an error; the first one counts."""
        self.error = self.error or error


@contextmanager
def deadline(halt: Halt, hours: float | None) -> Iterator[None]:
    """Gives the order to end when a search's hours are used up; None sets no limit."""
    if hours is None:
        yield
        return
    timer = threading.Timer(hours * 3600, setattr, (halt, "out_of_time", True))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
