"""What would be trained next, worked out before anyone asks, by a process for each search that is asked.

A request takes what was worked out; it never waits for a fit. While results arrive, what was worked out
before is refreshed. Whoever asks faster than that gets what an engine said that knew fewer observations, and
the candidate's decision says how many.
"""

from __future__ import annotations

import asyncio
import logging
import math
import os
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from gpnas.errors import GpnasError
from gpnas.service.external import External, Foreseen
from gpnas.service.jobs import Helper
from gpnas.service.limits import Limits
from gpnas.service.tasks import candidate_of, document_of

log = logging.getLogger("gpnas.service")
READY, PART = 4, 4
"""Candidates that are worked out before anyone asks where few do, and those that are at once."""
DEMAND_SECONDS = 10.0
"""So long a look back says how many are asked for."""
PAUSE_SECONDS = 5.0
"""Before a search whose engine failed is thought about again."""


class Thinkers:
    """Processes that each know one search that is asked, at most as many as cores.

    The one that was asked for longest ago learns another search where all know one.
    """

    def __init__(self, limits: Limits, most: int | None = None) -> None:
        self._limits = limits
        self._spare = [Helper() for _ in range(most or os.cpu_count() or 1)]
        self._all = tuple(self._spare)
        self._slots = asyncio.Semaphore(len(self._spare))
        self._known: OrderedDict[str, Helper] = OrderedDict()
        self._busy: set[str] = set()

    async def do(self, name: str, task: str, *arguments: Any) -> Any:
        """What the process of a search makes of a task, one at a time; errors as of `Helper.do`."""
        async with self._slots:
            if name not in self._known:
                if not self._spare:
                    self.forget(next(each for each in self._known if each not in self._busy))
                self._known[name] = self._spare.pop()
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
            self._spare.append(helper)

    async def close(self) -> None:
        """Ends every process."""
        for helper in self._all:
            await helper.end()


class Ahead:
    """Keeps what would be trained next of one search."""

    def __init__(self, search: External, thinkers: Thinkers, limits: Limits) -> None:
        self._search, self._thinkers, self._most = search, thinkers, limits.ahead
        self._wanted = asyncio.Event()
        self._asked: deque[float] = deque(maxlen=256)
        self._seconds = 1.0
        self._observed = -1
        loop = asyncio.get_running_loop()
        search.changed = lambda: _soon(loop, self._wanted.set)
        self._wanted.set()
        self.task: asyncio.Task[None] = loop.create_task(self._work())

    def was_asked(self, count: int) -> None:
        """Takes note of candidates that someone asked for."""
        now = time.monotonic()
        self._asked.extend([now] * count)

    async def close(self) -> None:
        """Thinks no more."""
        self.task.cancel()
        with suppress(asyncio.CancelledError):
            await self.task

    def _expected(self, seconds: float) -> int:
        """Candidates that will be asked for within a time, judged by as long a time before."""
        since = time.monotonic() - max(seconds, 1.0)
        return math.ceil(1.5 * sum(each > since for each in self._asked))

    async def _work(self) -> None:
        while True:
            await self._wanted.wait()
            self._wanted.clear()
            try:
                await self._refresh()
            except GpnasError as error:
                log.error("%s: %s", self._search.run.name, error)
                await asyncio.sleep(PAUSE_SECONDS)

    async def _refresh(self) -> None:
        """Works out what comes after those that will be asked for meanwhile, which stay as they are."""
        search = self._search
        kept, number = await asyncio.to_thread(self._wish)
        if number < 1:
            return
        begun = time.monotonic()
        documents = [document_of(each.candidate) for each in kept]
        told = await self._thinkers.do(search.run.name, "foreseen", str(search.run), documents, number)
        self._seconds = time.monotonic() - begun
        await asyncio.to_thread(self._install, kept, told)

    def _wish(self) -> tuple[list[Foreseen], int]:
        """What stays as it is, and how many more are worked out: few while what is there is old."""
        search = self._search
        with search.moment() as journal:
            if search.stopped:
                return [], 0
            fresh = self._observed == journal.observed() and bool(search.ahead)
            kept = list(search.ahead)
            if not fresh:
                kept = kept[: self._expected(self._seconds)]
            wanted = min(max(READY, 2 * self._expected(DEMAND_SECONDS)), self._most)
            return kept, min(wanted - len(kept), PART, search.left - len(kept))

    def _install(self, kept: list[Foreseen], told: dict[str, Any]) -> None:
        search = self._search
        new = [Foreseen(candidate_of(each["candidate"]), each["costs"]) for each in told["candidates"]]
        with search.moment() as journal:
            search.learned_size(told["architectures"])
            search.costs.update(told["costs"])
            since = journal.candidates(told["count"])
            foreseen = [*kept, *new]
            same = len(since) <= len(foreseen) and all(
                each.architecture == other.candidate.architecture
                for each, other in zip(since, foreseen, strict=False)
            )
            if same:
                search.ahead = deque(foreseen[len(since) :])
                self._observed = told["observed"]
                if new:
                    search.changed()  # goes on until there are enough
            if not same or (new and not search.ahead):  # all of it was handed out meanwhile
                search.changed()


def _soon(loop: asyncio.AbstractEventLoop, do: Callable[[], None]) -> None:
    with suppress(RuntimeError):  # the service has ended
        loop.call_soon_threadsafe(do)
