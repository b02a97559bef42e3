"""Memory that the search itself takes."""

from __future__ import annotations

import ctypes
from contextlib import suppress


def give_back() -> None:
    """Gives freed memory back to the system, where the C library keeps it.

    glibc keeps up to 64 MiB of freed memory once blocks as large as the surrogate's matrices were freed
    (`mallopt(3)`, "M_TRIM_THRESHOLD"). Another C library, which does not know the call, is left alone.
    """
    with suppress(AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
