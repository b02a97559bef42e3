"""What would be trained next, worked out before anyone asks, by a process for each search that is asked.

A request takes what was worked out; it never waits for a fit. While results arrive, what was worked out
before is refreshed. Whoever asks faster than that gets what an engine said that knew fewer observations, and
the candidate's decision says how many.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from contextlib import suppress
from itertools import islice
from typing import Any

from gpnas.errors import GpnasError
from gpnas.service.external import External, Foreseen
from gpnas.service.jobs import Helper, Helpers
from gpnas.service.limits import Limits
from gpnas.service.tasks import candidate_of

log = logging.getLogger("gpnas.service")
READY, MOST = 4, 256
"""Candidates that are worked out at once, at least and at most; the least is ready before anyone asks."""
LONG_SECONDS, SHORT_SECONDS = 2.0, 0.5
"""Where working out some took longer, it is fewer the next time; where shorter, more."""
DEMAND_SECONDS = 10.0
"""So long a look back says how many are asked for, and for so long it suffices what is ready."""
FORGOTTEN_SECONDS = 600.0
"""After so long half as many are kept ready as were once asked for."""
REST_SECONDS = 0.02
"""Pause between looks at what is ready."""
PAUSE_SECONDS = 5.0
"""Before a search whose engine failed is thought about again."""


class Thinkers(Helpers):
    """Processes that each know one search that is asked, at most as many as cores.

    The one that was asked for longest ago learns another search where all know one.
    """

    def __init__(self, limits: Limits) -> None:
        super().__init__(limits)
        self._known: OrderedDict[str, Helper] = OrderedDict()
        self._busy: set[str] = set()

    async def do(self, name: str, task: str, *arguments: Any) -> Any:
        """What the process of a search makes of a task, one at a time; errors as of `Helper.do`."""
        async with self._slots:
            if name not in self._known:
                if not self._free:
                    self.forget(next(each for each in self._known if each not in self._busy))
                self._known[name] = self._free.pop()
            self._known.move_to_end(name)
            self._busy.add(name)
            try:
                return await self._known[name].do(task, arguments, self._limits.job_seconds)
            finally:
                self._busy.discard(name)

    def forget(self, name: str) -> None:
        """Lets the process of a search learn another."""
        helper = self._known.pop(name, None)
        if helper is not None:
            self._free.append(helper)


class Ahead:
    """Keeps what would be trained next of one search."""

    def __init__(self, search: External, thinkers: Thinkers, limits: Limits) -> None:
        self._search, self._thinkers, self._most = search, thinkers, limits.ahead
        self._wanted = asyncio.Event()
        self.demand = Demand()
        self._seconds, self._part = 1.0, READY
        self._observed = -1
        loop = asyncio.get_running_loop()
        search.changed = lambda: _soon(loop, self._wanted.set)
        self._wanted.set()
        self.task: asyncio.Task[None] = loop.create_task(self._work())

    async def close(self) -> None:
        """Thinks no more."""
        self.task.cancel()
        with suppress(asyncio.CancelledError):
            await self.task

    async def _work(self) -> None:
        while True:
            await self._wanted.wait()
            self._wanted.clear()
            try:
                await self._refresh()
                await asyncio.sleep(REST_SECONDS)  # what comes meanwhile is looked at together
            except Exception as error:  # whatever it is, those who ask wait for the next try
                known = isinstance(error, GpnasError)
                log.error("%s: %s", self._search.run.name, error, exc_info=None if known else error)
                await asyncio.sleep(PAUSE_SECONDS)
                self._wanted.set()

    async def _refresh(self) -> None:
        """Works out what comes after those that will be asked for meanwhile, which stay as they are."""
        search = self._search
        timed = search.by_seconds
        kept, number, unknown = await asyncio.to_thread(self._wish)
        if number < 1 and not unknown:
            return
        begun = time.monotonic()
        names = [[each.candidate.id, each.answer] for each in kept]
        told = await self._thinkers.do(search.run.name, "foreseen", str(search.run), names, number, timed)
        self._seconds = time.monotonic() - begun
        if number == self._part and self._seconds < SHORT_SECONDS:
            self._part = min(2 * self._part, MOST)
        elif self._seconds > LONG_SECONDS:
            self._part = max(self._part // 2, READY)
        if timed == search.by_seconds:
            await asyncio.to_thread(self._install, kept, told)
        else:
            search.changed()

    def _wish(self) -> tuple[list[Foreseen], int, bool]:
        """What stays as it is, how many more are worked out, and whether the costs of any that is pending are
        not known."""
        search = self._search
        with search.moment() as memory:
            if memory.stopped:
                return [], 0, False
            kept = list(search.ahead)
            if self._observed != len(memory.observations):
                kept = kept[: self._lasting(len(kept))]
            wanted = min(max(READY, self.demand.ready()), self._most)
            number = min(wanted - len(kept), self._part, search.left - len(kept))
            return kept, max(0, number), any(name not in search.costs for name in memory.pending)

    def _lasting(self, count: int) -> int:
        """How many stay that are old: those that will be asked for before newer ones are there, or all where
        more are asked for than can be worked out."""
        rate = self.demand.rate()
        if rate * self._seconds > self._part:
            return max(0, min(count, self._most - self._part))
        return math.ceil(1.5 * rate * self._seconds)

    def _install(self, kept: list[Foreseen], told: dict[str, Any]) -> None:
        search = self._search
        new = [
            Foreseen(candidate_of(each["candidate"]), each["costs"], told["answer"])
            for each in told["candidates"]
        ]
        with search.moment() as memory:
            search.size = told["architectures"]
            costs = {**search.costs, **told["costs"]}
            search.costs = {name: costs[name] for name in memory.pending if name in costs}
            since = [*islice(memory.candidates.values(), told["count"], None)]
            foreseen = [*kept[: told["kept"]], *new]
            same = len(since) <= len(foreseen) and all(
                each.architecture == other.candidate.architecture
                for each, other in zip(since, foreseen, strict=False)
            )
            if same:
                search.ahead = deque(foreseen[len(since) :])
                self._observed = told["observed"]
            if new or not same:  # goes on until there are enough; or others were handed out meanwhile
                search.changed()


class Demand:
    """How many candidates are asked for."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._times: deque[float] = deque()
        self._peak, self._then = 0.0, clock()

    def note(self, count: int) -> None:
        """Takes note of some that someone asked for now."""
        self._times.extend([self._clock()] * count)
        self._forget()
        self._peak = max(self._peak, float(len(self._times)))

    def rate(self) -> float:
        """How many a second are asked for."""
        self._forget()
        return len(self._times) / DEMAND_SECONDS

    def ready(self) -> int:
        """How many to have ready: what was asked for at once before may be asked for at once again."""
        now = self._clock()
        self._peak *= 0.5 ** ((now - self._then) / FORGOTTEN_SECONDS)
        self._then = now
        return math.ceil(1.5 * self._peak)

    def _forget(self) -> None:
        since = self._clock() - DEMAND_SECONDS
        while self._times and self._times[0] < since:
            self._times.popleft()


def _soon(loop: asyncio.AbstractEventLoop, do: Callable[[], None]) -> None:
    with suppress(RuntimeError):  # the service has ended
        loop.call_soon_threadsafe(do)
