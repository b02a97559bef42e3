"""How requests of either client travel over HTTP, and when one is worth another try."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from typing import Any, TypeVar

import httpx

from gpnas.client.calls import AGAIN, Call, RefusedError, refusal

T = TypeVar("T")
PATIENCE = 60.0
"""Seconds for which a request is tried again where nobody says how long."""


def options(url: str, token: str, certificates: str | bool) -> dict[str, Any]:
    """What httpx's clients are made with.

    Args:
        url: of the service.
        token: of a role.
        certificates: file of the authorities to trust; True is the system's.
    """
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


def settled(
    call: Call[T], came: httpx.Response | httpx.TransportError, waits: Iterator[float], url: object
) -> tuple[T, None] | tuple[None, float]:
    """What an answer says, or the seconds after which the request is worth another try.

    Args:
        call: what was sent.
        came: the answer, or why there is none.
        waits: seconds before each further try.
        url: of the service, for the error.

    Raises:
        RefusedError: the service says no, or was not reached in all the tries.
    """
    pause = next(waits, None) if isinstance(came, httpx.TransportError) or came.status_code in AGAIN else None
    if isinstance(came, httpx.TransportError):
        if pause is None:
            raise RefusedError(0, f"{url}: the service must be reached, but {came}") from None
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
