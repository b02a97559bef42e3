"""What every route of the service shares."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fastapi import Request

from gpnas.journal import Cursor, is_driven
from gpnas.service.externals import Externals
from gpnas.service.folder import Runs
from gpnas.service.jobs import Jobs
from gpnas.service.limits import Limits
from gpnas.service.managed import Managed
from gpnas.service.metrics import Metrics
from gpnas.service.problems import Problem
from gpnas.service.reading import Reading
from gpnas.service.requests import Requests
from gpnas.service.tokens import Role, Token, Tokens

if TYPE_CHECKING:
    from gpnas.service.events import Feeds


@dataclass
class Service:
    """One service on one folder of runs."""

    runs: Runs
    reading: Reading
    tokens: Tokens
    limits: Limits
    metrics: Metrics
    jobs: Jobs
    externals: Externals
    managed: Managed
    feeds: Feeds
    requests: Requests

    async def thought(self, name: str, task: str, *arguments: Any) -> Any:
        """What a helper says of a search; errors as of `Runs.journal` and `Jobs.answer`."""

        def version() -> Any:
            journal = self.runs.journal(name)
            return journal, journal.version(), is_driven(journal)

        path = str(self.runs.folder / name)
        return await self.jobs.answer(await asyncio.to_thread(version), task, path, *arguments)


def service_of(request: Request) -> Service:
    """The service that a request came to."""
    service: Service = request.app.state.service
    return service


def token_of(request: Request) -> Token:
    """The token that a request brought; a `Problem` where it brought none."""
    token: Token | None = request.scope["state"].get("token")
    if token is None:
        raise Problem(
            401, "a request must bring a valid token of this service as `Authorization: Bearer TOKEN`"
        )
    return token


def cursor_of(text: str) -> Cursor:
    """A place in a journal as a request names it; an empty text is its beginning."""
    try:
        return Cursor.parse(text) if text else Cursor()
    except ValueError as error:
        raise Problem(422, str(error)) from None


def needs(role: Role) -> Callable[[Request], Awaitable[None]]:
    """A dependency that turns away whoever may not do what needs a role."""

    async def check(request: Request) -> None:  # a function that is not would be called in a thread
        token = token_of(request)
        if not token.may(role):
            raise Problem(403, f"this needs a token of the role `{role}`, but this one may `{token.role}`")

    return check
