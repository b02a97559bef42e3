"""Commands that a signal ends in good order."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def interruptible() -> Iterator[None]:
    """SIGTERM ends the block as Ctrl-C does, by a `KeyboardInterrupt` with its number: what is half done is
    undone. A second signal ends the process at once."""
    received: list[int] = []

    def end(number: int, frame: object) -> None:
        if received:
            os._exit(128 + number)
        received.append(number)
        raise KeyboardInterrupt(number)

    if threading.current_thread() is not threading.main_thread():
        yield  # signals are the main thread's business
        return
    before = {number: signal.signal(number, end) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
