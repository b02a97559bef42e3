"""Asking, telling and heartbeats, served without FastAPI's way to them, which takes longer than they do.

The routes are FastAPI's, which describes them; a request that is not as they want it goes its way after all,
and is told there what is wrong.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import Response
from starlette.datastructures import Headers
from starlette.types import Receive, Scope, Send

from gpnas.errors import GpnasError
from gpnas.service import working
from gpnas.service.documents import (
    KEY_CHARACTERS,
    AskBody,
    GiveBackBody,
    Given,
    HeartbeatBody,
    TellBody,
    given,
)
from gpnas.service.tokens import Token

PATH = re.compile(r"/v1/(searches|leases)/([^/]+)/(ask|heartbeat|tell|give-back)")


@dataclass(frozen=True)
class _Route:
    """A route, by which requests are counted."""

    path: str
    serve: Callable[[Request, str, Any, str | None], Awaitable[Response]]
    form: type[Given]


ROUTES = {
    ("searches", "ask"): _Route("/v1/searches/{search}/ask", working.ask, AskBody),
    ("leases", "heartbeat"): _Route("/v1/leases/{lease}/heartbeat", working.heartbeat, HeartbeatBody),
    ("leases", "tell"): _Route("/v1/leases/{lease}/tell", working.tell, TellBody),
    ("leases", "give-back"): _Route("/v1/leases/{lease}/give-back", working.give_back, GiveBackBody),
}


class Direct:
    """The application, with a shorter way to the routes that machines call again and again."""

    def __init__(self, app: FastAPI, broken: Callable[[Request, Exception], Response]) -> None:
        """Puts the shorter way before an application.

        Args:
            app: which serves everything else.
            broken: says what went wrong, as the application would.
        """
        self._app, self._broken = app, broken

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        found = PATH.fullmatch(scope["path"]) if scope.get("method") == "POST" else None
        route = ROUTES.get((found[1], found[3])) if found else None
        body = _body(scope, route.form) if route else None
        if found is None or route is None or body is None:
            await self._app(scope, receive, send)
            return
        scope["app"], scope["route"] = self._app, route
        request = Request(scope, receive)
        try:
            response = await route.serve(request, found[2], body, _key(scope))
        except GpnasError as error:
            response = self._broken(request, error)
        await response(scope, receive, send)


def _body(scope: Scope, form: type[Given]) -> Given | None:
    """The body of a request that may have its answer; None where anything is not as it should be."""
    state = scope["state"]
    token: Token | None = state.get("token")
    if token is None or not token.may("work") or len(_key(scope) or "") > KEY_CHARACTERS:
        return None
    return given(form, state.get("document"))


def _key(scope: Scope) -> str | None:
    return Headers(scope=scope).get("idempotency-key")
