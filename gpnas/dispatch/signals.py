"""Signals: the first one ends a search in good order, a second one at once.

While trials run, a signal is an order to stop them (`signals`). Before and after, it is a
`KeyboardInterrupt`, which undoes what is half done (`interruptible`); the command line makes it one.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from gpnas.dispatch.halt import Halt
from gpnas.dispatch.private_ray import has_died, kill
from gpnas.errors import TrialError

ORDERLY_SECONDS = 30.0
"""How long Ray may take to end in good order; then the process ends without it, losing nothing."""
DEAD_SECONDS = 5.0
"""The same where Ray's own processes have ended, as after a signal to every process of a service."""


class Interrupted(TrialError):
    """A search that ended in good order before its last trial; the same command goes on."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


@contextmanager
def interruptible(so_far: Callable[[], str]) -> Iterator[None]:
    """Makes an interruption before or after the trials end as one while they run does.

    Args:
        so_far: says in a line what has been reached by then.

    Raises:
        Interrupted: the block ended with a `KeyboardInterrupt`; with its signal, where it names one.
    """
    try:
        yield
    except KeyboardInterrupt as error:
        number = error.args[0] if error.args else signal.SIGINT
        raise Interrupted(f"interrupted: {so_far()}", 128 + number) from None


@contextmanager
def signals(halt: Halt, say: Callable[[str], None], give_up: Callable[[], None]) -> Iterator[None]:
    """Turns SIGINT and SIGTERM into an order to end; a second one ends the process at once.

    Args:
        halt: gets the order.
        say: called with a line about the first one.
        give_up: called from another thread before the process ends because Ray does not.
    """
    over = threading.Event()

    def handle(number: int, frame: FrameType | None) -> None:
        if halt.signal is not None:
            end(number)
        halt.signal = number
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
        kill(keep_logs=False)
        os._exit(128 + number)

    if threading.current_thread() is not threading.main_thread():
        yield  # signals are the main thread's business
        return
    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        over.set()
        for number, handler in before.items():
            signal.signal(number, handler)
