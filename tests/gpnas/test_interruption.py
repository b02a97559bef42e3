"""Signals that meet code whose exceptions Python ignores."""

import ctypes
import os
import signal
import time
from collections.abc import Callable

import pytest

from gpnas.cli.interruption import interruptible


class Careless:
    """A destructor that a signal meets."""

    def __del__(self) -> None:
        os.kill(os.getpid(), signal.SIGTERM)


def destructor() -> None:
    Careless()


def callback() -> None:
    ctypes.CFUNCTYPE(None)(lambda: os.kill(os.getpid(), signal.SIGTERM))()


@pytest.mark.parametrize("place", [destructor, callback])
def test_a_signal_is_not_lost_where_exceptions_are_ignored(place: Callable[[], None]) -> None:
    before = signal.getsignal(signal.SIGTERM)

    def lasting() -> None:
        place()
        time.sleep(10)

    with pytest.raises(KeyboardInterrupt) as raised, interruptible():
        lasting()
    assert raised.value.args == (signal.SIGTERM,)
    assert signal.getsignal(signal.SIGTERM) is before
