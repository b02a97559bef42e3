"""Rows that are gathered to strips, for formats whose encoders take a strip at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

STRIP_BYTES = 1 << 18
"""Bytes of pixels that are encoded at once, if a format's least strip has not more."""


class Strips:
    """A buffer of rows (n, width, 3) of uint8 or uint16, which hands each full strip to an encoder.

    The encoder may change it.
    """

    def __init__(
        self, rows: int, width: int, kind: type[np.generic], encode: Callable[[NDArray[Any]], None]
    ) -> None:
        self._strip, self._filled, self._encode = np.empty((rows, width, 3), kind), 0, encode

    def write(self, levels: NDArray[Any]) -> None:
        """The next rows, (n, width, 3)."""
        while len(levels):
            taken = min(len(levels), len(self._strip) - self._filled)
            self._strip[self._filled : self._filled + taken] = levels[:taken]
            self._filled, levels = self._filled + taken, levels[taken:]
            if self._filled == len(self._strip):
                self.flush()

    def flush(self) -> None:
        """Ends a strip, where one is begun."""
        if self._filled:
            self._encode(self._strip[: self._filled])
            self._filled = 0
