"""Server-sent events: a journal's rows as they come, each with the place from which to go on; and searches
as they change.

All who watch a search share one look at its journal, and where they have come as far, one reading of it.
"""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from typing import Annotated, Any, TypeVar

from fastapi import APIRouter, Depends, Header, Query, Request
from fastapi.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from gpnas.errors import GpnasError
from gpnas.journal import Cursor, Entry
from gpnas.service.documents import PROBLEMS
from gpnas.service.folder import Runs
from gpnas.service.problems import Problem
from gpnas.service.reading import Reading
from gpnas.service.state import Service, cursor_of, needs, service_of

routes = APIRouter(tags=["looking"], dependencies=[Depends(needs("read"))], responses=PROBLEMS)
LOOK_SECONDS, LIST_SECONDS = 0.1, 0.1
"""Pauses between looks at a journal, and at the files of all."""
SYNC_SECONDS = 10.0
"""So long after a file was written its journal is looked at again, since what is written counts once it is
synced."""
ALIVE_SECONDS = 15.0
"""After so long without an event a comment is sent, so that no proxy takes the stream for dead."""
P = TypeVar("P")
PART = 200
"""Rows that are read at once."""


class Watched:
    """Something that one task looks at for all who watch it, as long as anyone does."""

    def __init__(self, stopping: threading.Event) -> None:
        self._stopping = stopping
        self._changed = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self.watchers = 0

    async def _texts(self, newer: Callable[[P], Awaitable[tuple[str, P]]], place: P) -> AsyncIterator[str]:
        """What is new to one who watches, for ever; an empty text where nothing came for a while.

        Ends where the service stops.

        Args:
            newer: what has come after a place, or an empty text, and the place after that.
            place: where it begins.
        """
        self.watchers += 1
        if self._task is None:
            self._begin()
            self._task = asyncio.create_task(self._look())
        try:
            while not self._stopping.is_set():
                changed = self._changed
                text, place = await newer(place)
                if text:
                    yield text
                    continue
                try:
                    async with asyncio.timeout(ALIVE_SECONDS):
                        await changed.wait()
                except TimeoutError:
                    yield ""
        finally:
            self.watchers -= 1
            if not self.watchers and self._task is not None:
                self._task.cancel()
                self._task = None

    def _begin(self) -> None:
        """Comes before the first look."""

    async def _look(self) -> None:
        """Wakes who watches whenever something has changed, until the service stops."""
        raise NotImplementedError

    def _wake(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()


class Feed(Watched):
    """The rows of one search, for all who watch it."""

    def __init__(self, runs: Runs, name: str, stopping: threading.Event) -> None:
        super().__init__(stopping)
        self._runs, self._name = runs, name
        self._version: object = None
        self._read: dict[Cursor, asyncio.Future[tuple[str, Cursor]]] = {}

    def parts(self, cursor: Cursor) -> AsyncIterator[str]:
        """Rows after a place as events, several in one text, for ever; an empty text where nothing came for a
        while.

        Ends where the search is gone or the service stops.
        """
        return self._texts(self._part, cursor)

    async def _part(self, cursor: Cursor) -> tuple[str, Cursor]:
        """Rows after a place, and the place after them; who has come as far waits for the same reading."""
        reading = self._read.get(cursor)
        if reading is None:
            reading = asyncio.ensure_future(asyncio.to_thread(self._after, cursor))
            self._read[cursor] = reading
        return await asyncio.shield(reading)

    def _after(self, cursor: Cursor) -> tuple[str, Cursor]:
        part = self._runs.journal(self._name).after(cursor, PART)
        return "".join(map(_event, part)), part[-1].cursor if part else cursor

    async def _look(self) -> None:
        """Has everyone read on whenever the journal has changed."""
        while not self._stopping.is_set():
            try:
                journal = await asyncio.to_thread(self._runs.journal, self._name)
                version = (journal, await asyncio.to_thread(journal.version))
            except GpnasError:
                version = None  # gone or damaged: who reads on is told so
            if version is None or version != self._version:
                self._version = version
                self._wake()
            await asyncio.sleep(LOOK_SECONDS)
        self._wake()

    def _wake(self) -> None:
        self._read.clear()
        super()._wake()


@dataclass
class _Seen:
    """What was seen of a search's files, and when: the first time so, and at the last look."""

    written: object
    since: float
    looked: float


class Overview(Watched):
    """All searches in short, for all who watch their list."""

    def __init__(self, reading: Reading, runs: Runs, stopping: threading.Event) -> None:
        super().__init__(stopping)
        self._reading, self._runs = reading, runs
        self._seen: dict[str, _Seen] = {}
        self._told: dict[str, tuple[int, str]] = {}
        self._number = 0

    def parts(self) -> AsyncIterator[str]:
        """Every search as an event, then those that change, several in one text, for ever; an empty text
        where nothing changed for a while."""
        return self._texts(self._newer, 0)

    async def _newer(self, number: int) -> tuple[str, int]:
        told = [each for each in self._told.values() if each[0] > number]
        return "".join(text for _, text in told), max((each for each, _ in told), default=number)

    def _begin(self) -> None:
        self._seen, self._told = {}, {}

    async def _look(self) -> None:
        while not self._stopping.is_set():
            texts = await asyncio.to_thread(self._changes)
            if texts:
                self._number += 1
                self._told |= {name: (self._number, text) for name, text in texts.items()}
                self._wake()
            await asyncio.sleep(LIST_SECONDS)
        self._wake()

    def _changes(self) -> dict[str, str]:
        """Events of the searches that are not as they were at the last look, by their names."""
        texts: dict[str, str] = {}
        with suppress(GpnasError):
            names = self._runs.names()
            for name in self._seen.keys() - names:
                del self._seen[name]
                texts[name] = _message("gone", {"id": name})
            for name in names:
                if self._may_differ(name):
                    text = self._summary(name)
                    if self._told.get(name, (0, ""))[1] != text:
                        texts[name] = text
        return texts

    def _may_differ(self, name: str) -> bool:
        """Whether a search may be another than at the last look."""
        now, written = time.monotonic(), self._runs.written(name)
        known = self._seen.get(name)
        if known is None or known.written != written:
            self._seen[name] = _Seen(written, now, now)
            return True
        if now - known.looked > ALIVE_SECONDS:  # one that is trained may cease to be, though nobody writes
            known.looked = now
            return True
        return now - known.since < SYNC_SECONDS

    def _summary(self, name: str) -> str:
        try:
            return _message("search", asdict(self._reading.summary(name)))
        except GpnasError:  # gone by now
            return _message("gone", {"id": name})


class Feeds:
    """A feed for each search that is watched, and one for their list."""

    def __init__(self, runs: Runs, reading: Reading, most: int, stopping: threading.Event) -> None:
        self._runs, self._most, self._stopping = runs, most, stopping
        self._feeds: dict[str, Feed] = {}
        self.overview = Overview(reading, runs, stopping)
        self.open = 0

    async def rows(self, name: str, cursor: Cursor) -> AsyncIterator[str]:
        """The rows of a search that `Feed.parts` gives."""
        feed = self._feeds.setdefault(name, Feed(self._runs, name, self._stopping))
        try:
            async for part in feed.parts(cursor):
                yield part
        finally:
            if not feed.watchers:
                self._feeds.pop(name, None)

    @contextmanager
    def place(self) -> Iterator[None]:
        """A place among those who watch; a `Problem` where as many have one as may."""
        if self.open >= self._most:
            raise Problem(503, f"{self._most} event streams may be open, and are", retry=5.0)
        self.open += 1
        try:
            yield
        finally:
            self.open -= 1


class Stream(StreamingResponse):
    """Events as they are sent; it has a place among the streams from before its first byte to its end."""

    def __init__(self, service: Service, parts: AsyncIterator[str]) -> None:
        super().__init__(_sent(service, parts), media_type="text/event-stream")
        self._feeds = service.feeds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self._feeds.place():
            await super().__call__(scope, receive, send)


@routes.get("/v1/searches/{search}/events", response_class=StreamingResponse)
async def events(
    request: Request,
    search: str,
    last: Annotated[str | None, Header(alias="Last-Event-ID", max_length=140)] = None,
    after: Annotated[str, Query(max_length=140, description="The `id` of an event to go on after.")] = "",
) -> StreamingResponse:
    """A journal's rows as they come, as server-sent events; `Last-Event-ID` goes on where a link was lost."""
    service = service_of(request)
    await asyncio.to_thread(service.runs.journal, search)
    return Stream(service, service.feeds.rows(search, cursor_of(last or after)))


@routes.get("/v1/events", response_class=StreamingResponse)
async def searches(request: Request) -> StreamingResponse:
    """Every search in short, then those that change, as server-sent events: `search`, or `gone` with `id`."""
    service = service_of(request)
    return Stream(service, service.feeds.overview.parts())


async def _sent(service: Service, parts: AsyncIterator[str]) -> AsyncIterator[str]:
    yield "retry: 1000\n\n"
    with service.metrics.streams.track_inprogress():
        try:
            async for part in parts:
                yield part or ": nothing new\n\n"
        except GpnasError as error:
            yield _message("gone", {"detail": str(error).replace(f"{service.runs.folder}/", "")})


def _message(kind: str, document: Mapping[str, Any]) -> str:
    return f"event: {kind}\ndata: {json.dumps(document)}\n\n"


def _event(entry: Entry) -> str:
    return f"id: {entry.cursor}\n{_message(entry.kind, entry.document)}"
