"""HTTP on the wire: uvicorn's quick protocol, with bounds on what is read before a request is looked at."""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

HEAD_BYTES = 2**14
"""The most bytes of a request's address and headers."""
HEAD_SECONDS = 5.0
"""So long they may take to arrive."""
MESSAGE_BYTES = 2**23
"""The most bytes of a whole request on the wire, where each byte of a body may be a chunk of its own."""


class Protocol(HttpToolsProtocol):
    """One connection. What breaks a bound is answered 400, and the connection is closed."""

    _bytes = 0
    _in_head = True
    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._begin_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._end_head()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        self._bytes += len(data)
        super().data_received(data)
        if self._bytes > (HEAD_BYTES if self._in_head else MESSAGE_BYTES):
            self._refuse("The request is too large.")

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._begin_head()
        self._bytes = 1

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._in_head:  # what comes after a body is no one's business
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._end_head()
        if len(self.url) + sum(len(name) + len(value) for name, value in self.headers) > HEAD_BYTES:
            raise ValueError("the head is too large")  # which the parser takes for an invalid request
        super().on_headers_complete()

    def _begin_head(self) -> None:
        self._bytes, self._in_head = 0, True
        if self._timer is None:
            self._timer = self.loop.call_later(HEAD_SECONDS, self._refuse, "The request came too slowly.")

    def _end_head(self) -> None:
        self._in_head = False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _refuse(self, text: str) -> None:
        if self.transport.is_closing():
            return
        if self._bytes:
            self.send_400_response(text)
        else:  # a connection that was opened in case it is needed; nobody waits for an answer
            self.transport.close()
