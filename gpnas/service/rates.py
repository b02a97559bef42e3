"""How often someone may ask: token buckets by name."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable

NAMES = 10_000
"""Names that are remembered, those that asked last."""


class Rates:
    """A bucket for each name, which fills steadily and from which each request takes one."""

    def __init__(self, rate: float, burst: float, clock: Callable[[], float] = time.monotonic) -> None:
        """Fills every bucket.

        Args:
            rate: requests a second; above 0.
            burst: requests at once; at least 1.
            clock: seconds that never go back.
        """
        self._rate, self._burst, self._clock = rate, burst, clock
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def allow(self, name: str) -> bool:
        """Whether a name may ask once more, now."""
        now = self._clock()
        level, then = self._buckets.pop(name, (self._burst, now))
        level = min(self._burst, level + (now - then) * self._rate)
        allowed = level >= 1
        self._buckets[name] = (level - allowed, now)
        while len(self._buckets) > NAMES:
            self._buckets.popitem(last=False)
        return allowed
