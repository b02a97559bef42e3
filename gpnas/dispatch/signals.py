"""Signals: the first one ends a search in good order, a second one at once."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from gpnas.dispatch.cluster import has_died, kill
from gpnas.dispatch.conductor import stop

ORDERLY_SECONDS = 30.0
"""So long Ray may take to end in good order; then the process ends without it, losing nothing."""
DEAD_SECONDS = 5.0
"""So long where Ray's own processes have ended, as after a signal to every process of a service."""


@contextmanager
def signals(say: Callable[[str], None], give_up: Callable[[], None]) -> Iterator[list[int]]:
    """Turns SIGINT and SIGTERM into an orderly stop; a second one ends the process at once.

    Args:
        say: told of the first one.
        give_up: called before the process ends since Ray does not, from another thread.

    Yields:
        The signals that came, filled when they do.
    """
    received: list[int] = []
    over = threading.Event()

    def handle(number: int, frame: FrameType | None) -> None:
        if received:
            end(number)
        received.append(number)
        stop.set()
        say("stopping: running trials write a checkpoint; once more to end at once")
        threading.Thread(target=insist, args=(number,), name="insist", daemon=True).start()

    def insist(number: int) -> None:
        # Ray may wait for ever for a process that the same signal has ended; the journal is complete
        last = time.monotonic() + ORDERLY_SECONDS
        while not over.wait(0.2):
            if has_died():
                last = min(last, time.monotonic() + DEAD_SECONDS)
            if time.monotonic() > last:
                give_up()
                end(number)

    def end(number: int) -> None:
        kill()
        os._exit(128 + number)

    if threading.current_thread() is not threading.main_thread():
        yield received  # signals are the main thread's business
        return
    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield received
    finally:
        over.set()
        for number, handler in before.items():
            signal.signal(number, handler)
