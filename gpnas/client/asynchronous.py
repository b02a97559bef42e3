"""The client for asyncio's programs."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, TypeVar, cast

import httpx

from gpnas.client import calls
from gpnas.client.calls import Call, Lent, Point, Told, Verdict
from gpnas.client.travelling import PATIENCE, Tries, document, options, request, settled
from gpnas.records import Architecture

T = TypeVar("T")


class AsyncClient(AbstractAsyncContextManager["AsyncClient"]):
    """A service, as a coroutine sees it; an asynchronous context manager, with the methods of `Client`.

    What any method raises: `RefusedError` where the service says no or is not reached within the patience,
    `LeaseLostError` where a lease is another's by now, `FinishedError` where a search has nothing left.
    """

    def __init__(
        self,
        url: str,
        token: str,
        *,
        patience: float = PATIENCE,
        certificates: str | bool = True,
        say: Callable[[str], None] = lambda _: None,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        """Connects when it is first needed; its arguments are those of `Client`."""
        self._patience, self._say = patience, say
        self._http = httpx.AsyncClient(transport=transport, **options(url, token, certificates))

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Closes its connections."""
        await self._http.aclose()

    async def searches(self) -> list[dict[str, Any]]:
        """The coroutine of `Client.searches`."""
        found: list[dict[str, Any]] = []
        after: str | None = ""
        while after is not None:
            page = await self._send(calls.look("/v1/searches", after=after, limit="1000"))
            found, after = found + page["searches"], page["next"]
        return found

    async def look(self, search: str, what: str = "") -> dict[str, Any]:
        """The coroutine of `Client.look`."""
        return await self._send(calls.look(calls.path_of(search, what)))

    async def begin(self, search: str, space: str | Mapping[str, Any], **more: Any) -> dict[str, Any]:
        """The coroutine of `Client.begin`."""
        return await self._send(calls.begin({"id": search, "space": space, **more}))

    async def ask(
        self,
        search: str,
        worker: str,
        *,
        count: int = 1,
        lease_seconds: float = 300.0,
        capacity: Mapping[str, float] | None = None,
    ) -> tuple[list[Lent], float]:
        """The coroutine of `Client.ask`."""
        return await self._send(calls.ask(search, worker, count, lease_seconds, capacity))

    async def heartbeat(
        self, lease: str, points: Sequence[Point] = (), *, checkpoint: str | None = None
    ) -> Verdict:
        """The coroutine of `Client.heartbeat`."""
        return await self._send(calls.heartbeat(lease, points, checkpoint))

    async def tell(self, lease: str, told: Told) -> bool:
        """The coroutine of `Client.tell`."""
        return await self._send(calls.tell(lease, told))

    async def give_back(self, lease: str, *, checkpoint: str | None = None) -> None:
        """The coroutine of `Client.give_back`."""
        await self._send(calls.give_back(lease, checkpoint))

    async def observe(self, search: str, architecture: Architecture, value: float) -> str:
        """The coroutine of `Client.observe`."""
        entered = await self._send(calls.wish(search, "observations", architecture, value=value))
        return str(entered["candidate"])

    async def want(self, search: str, architecture: Architecture) -> str:
        """The coroutine of `Client.want`."""
        return str((await self._send(calls.wish(search, "wanted", architecture)))["candidate"])

    async def veto(self, search: str, architecture: Architecture) -> None:
        """The coroutine of `Client.veto`."""
        await self._send(calls.wish(search, "vetoed", architecture))

    async def journal(self, search: str, after: str = "") -> AsyncIterator[dict[str, Any]]:
        """The rows of a journal, each with `id`, `kind` and `document`, after the one of this `id`."""
        path = calls.path_of(search, "journal")
        async with self._http.stream("GET", path, params={"after": after}) as response:
            if response.status_code >= 400:
                await response.aread()
                raise calls.refusal(response.status_code, document(response))
            async for line in response.aiter_lines():
                yield json.loads(line)

    async def _send(self, call: Call[T]) -> T:
        """Sends a request, again and again where that is worth it, and reads its answer."""
        tries = Tries(self._patience, self._http.base_url, self._say)
        while True:
            try:
                came: httpx.Response | httpx.TransportError = await self._http.request(**request(call))
            except httpx.TransportError as error:
                came = error
            found, pause = settled(call, came, tries)
            if pause is None:
                return cast(T, found)
            await asyncio.sleep(pause)
