"""What every request goes through before it is served, and every answer before it is sent.

One ASGI middleware: hosts and origins, who asks, rates, bodies, headers, what is counted and what is noted.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import logging
import secrets
import time
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qs

from starlette.requests import cookie_parser
from starlette.responses import RedirectResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gpnas.errors import GpnasError
from gpnas.service.limits import Limits
from gpnas.service.metrics import Metrics
from gpnas.service.problems import Problem, told
from gpnas.service.rates import Rates
from gpnas.service.tokens import Token, Tokens

log = logging.getLogger("gpnas.service")
audit = logging.getLogger("gpnas.service.audit")
COOKIE = "gpnas"
OPEN = ("/healthz", "/readyz", "/openapi.json", "/login", "/logout", "/assets/", "/favicon.ico")
"""What is served to everyone: it tells nothing of any search."""
SAFE = ("GET", "HEAD", "OPTIONS")
ONCE = ("host", "authorization", "origin", "content-type", "idempotency-key", "last-event-id")
"""Headers of which one that is repeated may mean either."""
DEEPEST = 32
"""Levels of a JSON document."""
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
HEADERS = [
    (b"content-security-policy", POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"same-origin"),  # without any, a browser would call its own origin null
    (b"cache-control", b"no-store"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"permissions-policy", b"camera=(), geolocation=(), microphone=()"),
]


class LogIn(Exception):
    """Raised where a person has to say who they are first."""


class Guard:
    """The middleware around the service's application."""

    def __init__(
        self, app: ASGIApp, *, tokens: Tokens, limits: Limits, hosts: frozenset[str], metrics: Metrics
    ) -> None:
        """Puts a guard before an application.

        Args:
            app: to be guarded.
            tokens: of those who may ask.
            limits: of what they may ask.
            hosts: names, without ports, under which the service may be called.
            metrics: where requests are counted.
        """
        self._app, self._tokens, self._limits, self._hosts = app, tokens, limits, hosts
        self._metrics = metrics
        self._name, self._numbers = secrets.token_hex(4), itertools.count()
        self._callers = Rates(limits.rate, limits.burst)
        self._strangers = Rates(limits.strangers, 5 * limits.strangers)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            if scope["type"] == "websocket":
                await receive()
                await send({"type": "websocket.close", "code": 1008})
            else:
                await self._app(scope, receive, send)
            return
        begun, number = time.perf_counter(), f"{self._name}{next(self._numbers):08x}"
        sent: list[int] = []

        async def answer(message: Message) -> None:
            if message["type"] == "http.response.start":
                sent.append(message["status"])
                message["headers"] = _with_headers(message["headers"], number)
            await send(message)

        scope.setdefault("state", {})["number"] = number
        try:
            receive = await self._admitted(scope, receive)
            await self._app(scope, receive, answer)
        except LogIn:
            await RedirectResponse("/login", 303)(scope, receive, answer)
        except GpnasError as error:
            if not sent:
                await told(error).response()(scope, receive, answer)
        except Exception:
            log.exception("request %s failed", number)
            if not sent:
                text = f"the service must answer, but failed; its log tells more under request {number}"
                await Problem(500, text).response()(scope, receive, answer)
        finally:
            self._note(scope, sent[0] if sent else 499, time.perf_counter() - begun)

    async def _admitted(self, scope: Scope, receive: Receive) -> Receive:
        """Lets a request in, with its body, or raises a `Problem`."""
        headers = _headers(scope)
        host = headers.get("host", "")
        if _name(host) not in self._hosts:
            raise Problem(
                421,
                f"a request's Host must be a name of this service, but got {host!r:.100}; start it with "
                "--host-name to add one",
            )
        unsafe = scope["method"] not in SAFE
        origin = headers.get("origin")
        if origin is not None and unsafe and origin.partition("://")[2] != host:
            raise Problem(
                403, f"a write must come from this service's own pages, but came from {origin!r:.100}"
            )
        client = (scope.get("client") or ("", 0))[0]
        token = self._caller(scope, headers, origin, client)
        scope["state"]["token"] = token
        is_open = scope["path"].startswith(OPEN)
        if token is None and (unsafe or not is_open):  # whoever logs in may guess, too
            if scope["method"] == "GET" and "text/html" in headers.get("accept", ""):
                raise LogIn
            if not self._strangers.allow(client):
                raise Problem(429, "too many requests without a valid token", retry=1.0)
            if not is_open:
                raise Problem(
                    401,
                    "a request must bring a valid token of this service as `Authorization: Bearer TOKEN`; "
                    "`gpnas token make` makes one, which `gpnas worker` reads by --token-file",
                )
        if token is not None and not self._callers.allow(token.id):
            raise Problem(
                429,
                f"a token may ask {self._limits.rate:g} times a second, but this one asks more often",
                retry=1.0,
            )
        return await self._with_body(scope, headers, receive) if unsafe else receive

    def _caller(self, scope: Scope, headers: dict[str, str], origin: str | None, client: str) -> Token | None:
        """Whose valid token a request brings: in its header, or in the cookie of the service's own pages."""
        link = (
            parse_qs(scope["query_string"].decode("latin-1")).get("token") if scope["path"] == "/" else None
        )
        if link is not None and scope["method"] == "GET":
            token = self._tokens.whose(link[0])
            # a link is passed on and kept in histories, so it may show and do no more
            return token if token is not None and token.role == "read" else None
        kind, _, text = headers.get("authorization", "").partition(" ")
        if kind.lower() != "bearer":
            text = cookie_parser(headers.get("cookie", "")).get(COOKIE, "")
            # another site's page can have a browser send the cookie, but not that page's own origin
            if scope["method"] not in SAFE and origin is None:
                text = ""
        return self._tokens.whose(text.strip()) if text else None

    async def _with_body(self, scope: Scope, headers: dict[str, str], receive: Receive) -> Receive:
        """What gives a request's whole body, which was checked to be JSON without a repeated key."""
        most = self._limits.body
        length = headers.get("content-length", "0")
        if length.isdecimal() and int(length) > most:
            raise _too_large(most)
        try:
            async with asyncio.timeout(self._limits.body_seconds):
                body = await _read(receive, most)
        except TimeoutError:
            text = f"a body must arrive within {self._limits.body_seconds:g} s, but this one did not"
            raise Problem(408, text) from None
        if body and scope["path"] != "/login":
            kind = headers.get("content-type", "").partition(";")[0].strip().lower()
            if kind != "application/json":
                raise Problem(415, f"a body must be application/json, but is {kind!r:.60}")
            scope["state"]["document"] = check_json(body)
        scope["state"]["body"] = body
        given = False

        async def replay() -> Message:
            nonlocal given
            if given:
                return await receive()
            given = True
            return {"type": "http.request", "body": body, "more_body": False}

        return replay

    def _note(self, scope: Scope, status: int, seconds: float) -> None:
        route = scope.get("route")
        path = getattr(route, "path", "other")
        self._metrics.answered(scope["method"], path, status, seconds)
        token: Token | None = scope["state"].get("token")
        if scope["method"] not in SAFE:
            line = {
                "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
                "request": scope["state"]["number"],
                "token": token.id if token else None,
                "role": token.role if token else None,
                "client": (scope.get("client") or ("", 0))[0],
                "method": scope["method"],
                "path": scope["path"][:200],
                "status": status,
                "milliseconds": round(1e3 * seconds, 1),
            }
            audit.info("%s", json.dumps(line))


def check_json(body: bytes) -> Any:
    """The document of a body.

    Raises:
        Problem: it is no JSON in UTF-8, repeats a key, holds a number that is not finite or is too deep.
    """

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        document = dict(pairs)
        if len(document) != len(pairs):
            names = [name for name, _ in pairs]
            twice = next(name for name in names if names.count(name) > 1)
            raise Problem(400, f"a key must stand once in a JSON object, but {twice!r:.60} is repeated")
        return document

    def no_number(text: str) -> Any:
        raise Problem(400, f"a number must be finite, but got {text}")

    try:
        document = json.loads(body.decode(), object_pairs_hook=once, parse_constant=no_number)
    except (ValueError, RecursionError) as error:
        text = str(error) if isinstance(error, ValueError) else "it is too deep"
        raise Problem(400, f"a body must be JSON in UTF-8, but {text:.200}") from None
    if _depth(document) > DEEPEST:
        raise Problem(400, f"a JSON document must have at most {DEEPEST} levels")
    return document


def _depth(document: Any) -> int:
    deepest, waiting = 0, [(document, 1)]
    while waiting:
        each, level = waiting.pop()
        deepest = max(deepest, level)
        if isinstance(each, dict | list):
            waiting.extend(
                (child, level + 1) for child in (each.values() if isinstance(each, dict) else each)
            )
    return deepest


async def _read(receive: Receive, most: int) -> bytes:
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise Problem(400, "a body must arrive as a whole, but the link was lost")
        body += message.get("body", b"")
        if len(body) > most:
            raise _too_large(most)
        if not message.get("more_body", False):
            return bytes(body)


def _too_large(most: int) -> Problem:
    return Problem(413, f"a body may have {most:,} bytes, but this one has more")


def _headers(scope: Scope) -> dict[str, str]:
    """A request's headers; of one that is repeated where it must not be, none."""
    headers: dict[str, str] = {}
    for name, value in scope["headers"]:
        key = name.decode("latin-1").lower()
        if key in ONCE and key in headers:
            raise Problem(400, f"the header {key} must stand once, but is repeated")
        headers[key] = value.decode("latin-1")
    return headers


def _name(host: str) -> str:
    """The name in a Host header, without its port."""
    name = host.rpartition(":")[0] if not host.endswith("]") and ":" in host else host
    return name.strip("[]").lower()


def _with_headers(headers: list[tuple[bytes, bytes]], number: str) -> list[tuple[bytes, bytes]]:
    """An answer's headers with those that every answer has, where it has none of its own."""
    own = {name.lower() for name, _ in headers}
    more = [each for each in HEADERS if each[0] not in own]
    return [*headers, *more, (b"x-request-id", number.encode())]
