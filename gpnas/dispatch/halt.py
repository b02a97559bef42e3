"""Why a search ends before its last trial, and the deadline that is one of the reasons."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Any

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


class Deadline:
    """Gives the order to end when a search's hours are used up; a context manager."""

    def __init__(self, halt: Halt, hours: float | None) -> None:
        self._halt = halt
        self._timer = threading.Timer(hours * 3600, self._end) if hours is not None else None

    def _end(self) -> None:
        self._halt.out_of_time = True

    def __enter__(self) -> None:
        if self._timer is not None:
            self._timer.daemon = True
            self._timer.start()

    def __exit__(self, *_: Any) -> None:
        if self._timer is not None:
            self._timer.cancel()
