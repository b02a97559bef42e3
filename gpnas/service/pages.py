"""The live page: searches, and one search, for people; server-rendered, with one small script of our own."""

from __future__ import annotations

import asyncio
from typing import Any
from urllib.parse import parse_qs

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from jinja2 import Environment, PackageLoader, StrictUndefined

from gpnas import __version__
from gpnas.errors import GpnasError
from gpnas.files import packaged
from gpnas.records import STRATEGIES, Architecture
from gpnas.service.guard import COOKIE
from gpnas.service.problems import Problem
from gpnas.service.reading import Summary
from gpnas.service.state import Service, service_of, token_of
from gpnas.service.tokens import Token

routes = APIRouter(include_in_schema=False)
ASSETS = {
    "live.js": ("service", "text/javascript"),
    "live.css": ("service", "text/css"),
    "vega.js": ("report", "text/javascript"),
}
"""Files that pages ask for: the room that has each, which need not be loaded for that, and what it is."""
WIDTH, HEIGHT = 120, 28
"""The size of a sparkline, in pixels."""
TEMPLATES = Environment(
    loader=PackageLoader("gpnas.service", "assets"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


@routes.get("/assets/{name}")
def asset(name: str) -> Response:
    """A file that pages ask for; it tells nothing of any search."""
    if name not in ASSETS:
        raise Problem(404, f"a page asks for one of {', '.join(ASSETS)}, but got {name!r:.60}")
    room, kind = ASSETS[name]
    return Response(packaged(room, name), media_type=kind, headers={"Cache-Control": "public, max-age=300"})


@routes.get("/login")
def asked_to_log_in() -> HTMLResponse:
    """The page that asks for a token."""
    return _page("login.html", wrong=False)


@routes.post("/login")
async def log_in(request: Request) -> Response:
    """Keeps a valid token in a cookie that scripts cannot read and other sites cannot have sent."""
    service = service_of(request)
    fields = parse_qs(request.scope["state"]["body"].decode(errors="replace"), max_num_fields=4)
    text = fields.get("token", [""])[0].strip()
    token = await asyncio.to_thread(service.tokens.whose, text)
    if token is None:
        return _page("login.html", status=401, wrong=True)
    return _kept(request, text)


@routes.post("/logout")
def log_out() -> Response:
    """Forgets the token."""
    response = RedirectResponse("/login", 303)
    response.delete_cookie(COOKIE, path="/")
    return response


@routes.get("/")
def every(request: Request, token: str | None = None) -> Response:
    """All searches. A link with a token of the role `read`, and of no other, shows them to whoever has it."""
    service = service_of(request)
    if token is not None:
        return _kept(request, token)
    rows = [_row(service.reading.summary(name)) for name in service.runs.names()]
    return _page("searches.html", rows=rows, token=token_of(request), strategies=STRATEGIES)


@routes.get("/searches/{search}")
def one(request: Request, search: str) -> Response:
    """One search, which its script keeps up to date."""
    service = service_of(request)
    summary = service.reading.summary(search)
    token = token_of(request)
    if summary.state == "unreadable":
        return _page("search.html", row=_row(summary), token=token, trials=[], data={}, why="")
    cursor = service.runs.journal(search).end()  # what comes after it is told by events
    trials = [_trial(each) for each in service.reading.document(search)["candidates"]]
    data = {
        "search": search,
        "cursor": str(cursor),
        "objective": summary.objective,
    }
    return _page(
        "search.html", row=_row(summary), token=token, trials=trials, data=data, why=_why(service, search)
    )


def _why(service: Service, search: str) -> str:
    """What would be trained next, and why, where that is worked out already."""
    try:
        ahead = service.externals.known(search)
    except GpnasError:
        return ""
    if ahead is None:
        return ""
    decision = ahead.decision
    text = f"{ahead.architecture}, chosen by {decision.get('phase', 'the engine')}"
    if isinstance(decision.get("mean"), float) and isinstance(decision.get("stddev"), float):
        text += f"; {decision['mean']:.4g} ± {decision['stddev']:.2g} expected"
    return text


def _row(summary: Summary) -> dict[str, Any]:
    best = summary.best
    unit = summary.objective["unit"]
    ended = sum(summary.counts.get(state, 0) for state in ("observed", "stopped", "failed"))
    return {
        **vars(summary),
        "ended": ended,
        "running": summary.counts.get("running", 0),
        "failed": summary.counts.get("failed", 0),
        "shown": "" if best is None else f"{best['value']:.4g} {unit}".strip(),
        "architecture": "" if best is None else str(Architecture.from_json(best["architecture"])),
        "line": sparkline(summary.course),
        "width": WIDTH,
        "height": HEIGHT,
    }


def sparkline(values: tuple[float, ...]) -> str:
    """Points of a polyline of `WIDTH` by `HEIGHT` pixels through values, the best so far after each trial."""
    if len(values) < 2:
        return ""
    low, high = min(values), max(values)
    span = (high - low) or 1.0
    return " ".join(
        f"{place * WIDTH / (len(values) - 1):.1f},{2 + (HEIGHT - 4) * (1 - (value - low) / span):.1f}"
        for place, value in enumerate(values)
    )


def _trial(row: dict[str, Any]) -> dict[str, Any]:
    return {
        "id": row["id"],
        "architecture": str(Architecture.from_json(row["architecture"])),
        "state": row["state"],
        "value": "" if row["value"] is None else f"{row['value']:.4f}",
        "attempts": row["attempts"],
    }


def _kept(request: Request, text: str) -> Response:
    response = RedirectResponse("/", 303)
    response.set_cookie(
        COOKIE, text, httponly=True, samesite="strict", secure=request.url.scheme == "https", path="/"
    )
    return response


def _page(name: str, status: int = 200, token: Token | None = None, **values: Any) -> HTMLResponse:
    text = TEMPLATES.get_template(name).render(version=__version__, token=token, **values)
    return HTMLResponse(text, status)
