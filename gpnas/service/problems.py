"""Errors as RFC 9457 problems: the rule, the value that broke it, what to do."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from starlette.responses import JSONResponse

from gpnas.errors import GpnasError

MEDIA_TYPE = "application/problem+json"


class Problem(GpnasError):
    """A request that is not answered as it hoped."""

    def __init__(self, status: int, detail: str, *, retry: float | None = None, **more: Any) -> None:
        """States a problem.

        Args:
            status: of HTTP.
            detail: one line: the rule, the value, what to do.
            retry: seconds after which it is worth to ask again.
            more: members of the problem's own, plain JSON.
        """
        super().__init__(detail)
        self.status, self.retry, self.more = status, retry, more

    def response(self) -> JSONResponse:
        """The problem as it is sent."""
        headers = {}
        if self.retry is not None:
            headers["Retry-After"] = str(max(1, round(self.retry)))
        if self.status == 401:
            headers["WWW-Authenticate"] = 'Bearer realm="gpnas"'
        document = {
            "type": "about:blank",
            "title": HTTPStatus(self.status).phrase,
            "status": self.status,
            "detail": str(self),
            **self.more,
        }
        return JSONResponse(document, self.status, headers, MEDIA_TYPE)


def another_request() -> Problem:
    """A key that served another request before."""
    return Problem(
        422, "an Idempotency-Key serves one request, but this one came with another; make a new key"
    )


def told(error: GpnasError) -> Problem:
    """What a caller is told of an error that gpnas raised while it served a request."""
    if isinstance(error, Problem):
        return error
    text = str(error)
    if "the disk must have room" in text:
        return Problem(507, text)
    return Problem(422, text)
