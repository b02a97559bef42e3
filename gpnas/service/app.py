"""The service as an ASGI application."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from starlette.exceptions import HTTPException

from gpnas import __version__
from gpnas.errors import GpnasError
from gpnas.run.memory import give_back
from gpnas.service import events, looking, pages, working
from gpnas.service.direct import Direct
from gpnas.service.documents import ProblemDocument
from gpnas.service.events import Feeds
from gpnas.service.externals import Externals
from gpnas.service.folder import Runs
from gpnas.service.guard import Guard
from gpnas.service.jobs import Jobs
from gpnas.service.limits import Limits
from gpnas.service.managed import Managing
from gpnas.service.metrics import Metrics
from gpnas.service.problems import Problem, told
from gpnas.service.reading import Reading
from gpnas.service.requests import Requests
from gpnas.service.state import Service
from gpnas.service.tokens import Tokens

LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})
"""Names by which a service on this machine may always be called."""
TIDY_SECONDS = 20.0
"""Pause between looks for memory that can be given back."""


def application(
    folder: Path,
    tokens: Tokens,
    *,
    limits: Limits | None = None,
    hosts: frozenset[str] = LOOPBACK,
    ending: threading.Event | None = None,
    managing: Managing | None = None,
) -> Guard:
    """The service on a folder of runs; whoever serves it holds the folder's lock (`folder.alone`).

    Args:
        folder: of the runs.
        tokens: of those who may ask.
        limits: of what they may ask.
        hosts: names, without ports, under which it may be called.
        ending: set when the service is to end, so that event streams end too.
        managing: how searches are driven that Ray trains.
    """
    managing = managing or Managing()
    ending = ending or threading.Event()
    limits, metrics = limits or Limits(), Metrics()

    @asynccontextmanager
    async def life(app: FastAPI) -> AsyncIterator[None]:
        runs = Runs(folder)
        looking.sweep(folder)
        jobs = Jobs(limits)
        externals = Externals(runs, jobs, limits)
        reading = Reading(runs)
        feeds = Feeds(runs, reading, limits.streams, ending)
        managed, requests = managing.of(runs), Requests(folder)
        service = Service(runs, reading, tokens, limits, metrics, jobs, externals, managed, feeds, requests)
        app.state.service = service
        try:
            async with _tidied():
                yield
        finally:
            ending.set()
            await externals.close()
            await jobs.close()
            requests.close()
            runs.close()

    app = FastAPI(
        title="gpnas",
        summary="Bayesian architecture search that people and machines share.",
        version=__version__,
        lifespan=life,
        docs_url=None,  # its scripts come from elsewhere
        redoc_url=None,
        redirect_slashes=False,
    )
    for routes in (
        looking.open_routes,
        looking.metric_routes,
        looking.routes,
        events.routes,
        working.routes,
        working.other_routes,
        pages.routes,
    ):
        app.include_router(routes)
    app.add_exception_handler(GpnasError, _broken)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _refused)
    app.openapi = lambda: _described(app)
    return Guard(Direct(app, _broken), tokens=tokens, limits=limits, hosts=hosts, metrics=metrics)


@asynccontextmanager
async def _tidied() -> AsyncIterator[None]:
    """Gives memory back that requests and backups have freed, now and then."""

    async def tidy() -> None:
        while True:
            await asyncio.sleep(TIDY_SECONDS)
            await asyncio.to_thread(give_back)

    task = asyncio.create_task(tidy())
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


def _broken(request: Request, error: Exception) -> Response:
    assert isinstance(error, GpnasError)
    problem = told(error)
    folder = request.app.state.service.runs.folder
    # where the runs lie is nobody's business; a search is known by its name
    problem.args = (str(problem).replace(f"{folder}/", ""), *problem.args[1:])
    return problem.response()


def _invalid(request: Request, error: Exception) -> Response:
    """A request whose parameters or body are of another form, in one line."""
    assert isinstance(error, RequestValidationError)
    lines = []
    for each in error.errors()[:3]:
        place = ".".join(str(part) for part in each["loc"])
        lines.append(f"`{place}`: {each['msg']}, but got {each.get('input')!r:.60}")
    return Problem(422, "; ".join(lines) or "the request breaks a rule").response()


def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if error.status_code == 404:
        text = "there is nothing here; GET /openapi.json describes what there is"
    elif error.status_code == 405:
        allowed = (error.headers or {}).get("Allow", "another method")
        text = f"what is here takes {allowed}, but got {request.method}; GET /openapi.json describes it"
    else:
        text = str(error.detail)
    response = Problem(error.status_code, text).response()
    for name, value in (error.headers or {}).items():
        response.headers[name] = value
    return response


def _described(app: FastAPI) -> dict[str, Any]:
    """The OpenAPI document, made once."""
    if app.openapi_schema is not None:
        return app.openapi_schema
    document = FastAPI.openapi(app)  # which keeps it
    parts = document.setdefault("components", {})
    schema = ProblemDocument.model_json_schema(ref_template="#/components/schemas/{model}")
    parts.setdefault("schemas", {})["ProblemDocument"] = schema
    parts["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
    document["security"] = [{"token": []}]
    return document
