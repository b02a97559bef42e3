"""How requests of either client travel over HTTP, and when one is worth another try."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from typing import Any, TypeVar

import httpx

from gpnas.client.calls import AGAIN, Call, RefusedError, pauses, refusal

T = TypeVar("T")
PATIENCE = 60.0
"""Seconds for which a request is tried again where nobody says how long."""


def options(url: str, token: str, certificates: str | bool) -> dict[str, Any]:
    """What httpx's clients are made with.

    Args:
        url: of the service.
        token: of a role.
        certificates: file of the authorities to trust; True is the system's.

    Raises:
        RefusedError: it is no URL of a service.
    """
    try:
        whole = httpx.URL(url).scheme in ("http", "https") and bool(httpx.URL(url).host)
    except httpx.InvalidURL:
        whole = False
    if not whole:
        raise RefusedError(
            0, f"a service must have a whole URL, but got {url!r:.80}; give one like http://127.0.0.1:8750"
        )
    verify: ssl.SSLContext | bool | str = certificates
    if isinstance(certificates, str):
        verify = ssl.create_default_context(cafile=certificates)
    return {
        "base_url": url,
        "headers": {"Authorization": f"Bearer {token}"},
        "timeout": httpx.Timeout(30.0, read=150.0),
        "verify": verify,
    }


def request(call: Call[Any]) -> dict[str, Any]:
    """What httpx sends of a call."""
    return {
        "method": call.method,
        "url": call.path,
        "json": call.body,
        "params": dict(call.query),
        "headers": {} if call.key is None else {"Idempotency-Key": call.key},
    }


class Tries:
    """Further tries of a request; that the service is not there is told once."""

    def __init__(self, patience: float, url: httpx.URL, say: Callable[[str], None]) -> None:
        self._patience, self.url, self._say = patience, str(url), say
        self._waits, self._told = pauses(patience), False

    def pause(self, came: httpx.Response | httpx.TransportError) -> float | None:
        """Seconds before the next; None where there is none."""
        pause = next(self._waits, None)
        if isinstance(came, httpx.TransportError) and pause is not None and not self._told:
            self._told = True
            self._say(f"{self.url}: no service answers ({came}); tried again for {self._patience:g} s")
        return pause


def settled(
    call: Call[T], came: httpx.Response | httpx.TransportError, tries: Tries
) -> tuple[T, None] | tuple[None, float]:
    """What an answer says, or the seconds after which the request is worth another try.

    Args:
        call: what was sent.
        came: the answer, or why there is none.
        tries: that are left.

    Raises:
        RefusedError: the service says no, or was not reached in all the tries.
    """
    worth = isinstance(came, httpx.TransportError) or came.status_code in AGAIN
    pause = tries.pause(came) if worth else None
    if isinstance(came, httpx.TransportError):
        if pause is None:
            raise RefusedError(
                0,
                f"{tries.url}: the service must be reached, but {came}; look whether `gpnas serve` runs, "
                "and at address, port and certificate",
            ) from None
        return None, pause
    retry = float(came.headers.get("retry-after", 0.0))
    if came.status_code < 400:
        return call.read(came.status_code, document(came), retry), None
    if pause is None:
        raise refusal(came.status_code, document(came))
    return None, max(pause, retry)


def document(response: httpx.Response) -> Any:
    """An answer's JSON; None where it has none."""
    try:
        return response.json() if response.content else None
    except ValueError:
        return None
