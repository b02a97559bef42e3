"""Commands that a signal ends in good order."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

RETRY_SECONDS = 0.01
"""Pause before an interruption that was lost is raised again."""


@contextmanager
def interruptible() -> Iterator[None]:
    """SIGTERM ends the block as Ctrl-C does, by a `KeyboardInterrupt` with its number: what is half done is
    undone. A second signal ends the process at once.

    Where the signal meets code whose exceptions Python ignores (a callback of a C library, a destructor), it
    is raised again as soon as that code is done.
    """
    received: list[int] = []

    def end(number: int, frame: object) -> None:
        if received:
            os._exit(128 + number)
        received.append(number)
        raise KeyboardInterrupt(number)

    def again() -> None:
        if received:  # the block goes on
            signal.pthread_kill(threading.main_thread().ident or 0, received.pop())

    def ignored(unraisable: sys.UnraisableHookArgs) -> None:
        if received and isinstance(unraisable.exc_value, KeyboardInterrupt):
            threading.Timer(RETRY_SECONDS, again).start()
        else:
            hook(unraisable)

    if threading.current_thread() is not threading.main_thread():
        yield  # signals are the main thread's business
        return
    before = {number: signal.signal(number, end) for number in (signal.SIGINT, signal.SIGTERM)}
    hook, sys.unraisablehook = sys.unraisablehook, ignored
    try:
        yield
    finally:
        received.clear()
        sys.unraisablehook = hook
        for number, handler in before.items():
            signal.signal(number, handler)
