"""Server-sent events: a journal's rows as they come, each with the place from which to go on.

All who watch a search share one look at its journal, and where they have come as far, one reading of it.
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Query, Request
from fastapi.responses import StreamingResponse

from gpnas.errors import GpnasError
from gpnas.journal import Cursor, Entry
from gpnas.service.documents import PROBLEMS
from gpnas.service.folder import Runs
from gpnas.service.problems import Problem
from gpnas.service.state import Service, needs, service_of

routes = APIRouter(
    prefix="/v1/searches", tags=["looking"], dependencies=[Depends(needs("read"))], responses=PROBLEMS
)
LOOK_SECONDS = 0.1
"""Pause between looks at a journal."""
ALIVE_SECONDS = 15.0
"""After so long without an event a comment is sent, so that no proxy takes the stream for dead."""
PART = 200
"""Rows that are read at once."""


class Feed:
    """The rows of one search, for all who watch it."""

    def __init__(self, runs: Runs, name: str, stopping: threading.Event) -> None:
        self._runs, self._name, self._stopping = runs, name, stopping
        self._version: Any = None
        self._changed = asyncio.Event()
        self._read: dict[Cursor, asyncio.Future[list[Entry]]] = {}
        self.watchers = 0
        self._task: asyncio.Task[None] | None = None

    async def rows(self, cursor: Cursor) -> AsyncIterator[list[Entry]]:
        """Rows after a place, in parts, for ever; an empty part where nothing came for a while.

        Ends where the search is gone or the service stops.
        """
        self.watchers += 1
        if self._task is None:
            self._task = asyncio.create_task(self._look())
        try:
            while not self._stopping.is_set():
                changed = self._changed
                part = await self._part(cursor)
                if part:
                    cursor = part[-1].cursor
                    yield part
                    continue
                try:
                    async with asyncio.timeout(ALIVE_SECONDS):
                        await changed.wait()
                except TimeoutError:
                    yield []
        finally:
            self.watchers -= 1
            if not self.watchers and self._task is not None:
                self._task.cancel()
                self._task = None

    async def _part(self, cursor: Cursor) -> list[Entry]:
        """Rows after a place; who has come as far waits for the same reading."""
        reading = self._read.get(cursor)
        if reading is None:
            reading = asyncio.ensure_future(asyncio.to_thread(self._after, cursor))
            self._read[cursor] = reading
        return await asyncio.shield(reading)

    def _after(self, cursor: Cursor) -> list[Entry]:
        return self._runs.journal(self._name).after(cursor, PART)

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
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()


class Feeds:
    """A feed for each search that is watched."""

    def __init__(self, runs: Runs, most: int, stopping: threading.Event) -> None:
        self._runs, self._most, self._stopping = runs, most, stopping
        self._feeds: dict[str, Feed] = {}
        self.open = 0

    async def rows(self, name: str, cursor: Cursor) -> AsyncIterator[list[Entry]]:
        """The rows that `Feed.rows` gives."""
        feed = self._feeds.setdefault(name, Feed(self._runs, name, self._stopping))
        self.open += 1
        try:
            async for part in feed.rows(cursor):
                yield part
        finally:
            self.open -= 1
            if not feed.watchers:
                self._feeds.pop(name, None)

    def check(self) -> None:
        """Raises a `Problem` where as many watch as may."""
        if self.open >= self._most:
            raise Problem(503, f"{self._most} event streams may be open, and are", retry=5.0)


@routes.get("/{search}/events", response_class=StreamingResponse)
async def events(
    request: Request,
    search: str,
    last: Annotated[str | None, Header(alias="Last-Event-ID", max_length=140)] = None,
    after: Annotated[str, Query(max_length=140, description="The `id` of an event to go on after.")] = "",
) -> StreamingResponse:
    """A journal's rows as they come, as server-sent events; `Last-Event-ID` goes on where a link was lost."""
    service = service_of(request)
    await asyncio.to_thread(service.runs.journal, search)
    service.feeds.check()
    try:
        cursor = Cursor.parse(last or after) if last or after else Cursor()
    except ValueError as error:
        raise Problem(422, str(error)) from None
    return StreamingResponse(_sent(service, search, cursor), media_type="text/event-stream")


async def _sent(service: Service, search: str, cursor: Cursor) -> AsyncIterator[str]:
    yield "retry: 1000\n\n"
    with service.metrics.streams.track_inprogress():
        try:
            async for part in service.feeds.rows(search, cursor):
                yield "".join(map(_event, part)) or ": nothing new\n\n"
        except GpnasError as error:
            document = {"detail": str(error).replace(f"{service.runs.folder}/", "")}
            yield f"event: gone\ndata: {json.dumps(document)}\n\n"


def _event(entry: Entry) -> str:
    return f"id: {entry.cursor}\nevent: {entry.kind}\ndata: {json.dumps(entry.document)}\n\n"
