"""What may be looked at: GET requests about searches."""

from __future__ import annotations

import asyncio
import json
import re
import secrets
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import FileResponse, HTMLResponse, JSONResponse, StreamingResponse
from starlette.background import BackgroundTask

from gpnas.files import SERVICE
from gpnas.journal import Cursor, Journal
from gpnas.service.documents import PROBLEMS, Figure, Figures, Health, SearchList, SearchSummary, Status
from gpnas.service.problems import Problem
from gpnas.service.state import cursor_of, needs, service_of

WORD = re.compile(r"[a-z][a-z-]{0,39}")
REPORT_POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:; "
    "frame-ancestors 'none'; sandbox allow-scripts allow-downloads"
)
"""The policy of a report, which hashes its own scripts besides; its origin is nobody's, so it reaches no
cookie."""

open_routes = APIRouter(tags=["health"])
routes = APIRouter(
    prefix="/v1/searches", tags=["looking"], dependencies=[Depends(needs("read"))], responses=PROBLEMS
)
metric_routes = APIRouter(tags=["health"], dependencies=[Depends(needs("read"))], responses=PROBLEMS)


@open_routes.get("/healthz", response_model=Health)
def healthz() -> dict[str, str]:
    """Whether the process answers."""
    return {"status": "ok"}


@open_routes.get("/readyz", response_model=Health, responses=PROBLEMS)
def readyz(request: Request) -> dict[str, str]:
    """Whether the folder of the runs and the file of tokens can be read."""
    service = service_of(request)
    service.runs.names()
    service.tokens.all()
    return {"status": "ok"}


@metric_routes.get("/metrics", response_class=StreamingResponse)
def metrics(request: Request) -> Any:
    """What the service counts, for Prometheus."""
    service = service_of(request)
    service.metrics.searches.clear()
    for name in service.runs.names():
        service.metrics.searches.labels(service.reading.summary(name).state).inc()
    return StreamingResponse(iter([service.metrics.text()]), media_type="text/plain; version=0.0.4")


@routes.get("", response_model=SearchList)
def searches(
    request: Request,
    after: Annotated[str, Query(max_length=64, description="The last name of the page before.")] = "",
    limit: Annotated[int, Query(ge=1, le=1_000)] = 100,
) -> dict[str, Any]:
    """All searches of the folder, in the order of their names; those that cannot be read as such."""
    service = service_of(request)
    names = [name for name in service.runs.names() if name > after]
    page = [asdict(service.reading.summary(name)) for name in names[:limit]]
    return {"searches": page, "next": names[limit - 1] if len(names) > limit else None}


@routes.get("/{search}", response_model=SearchSummary)
def one(request: Request, search: str) -> dict[str, Any]:
    """A search in short."""
    return asdict(service_of(request).reading.summary(search))


@routes.get("/{search}/status", response_model=Status)
def status(request: Request, search: str) -> JSONResponse:
    """Where a search stands: every candidate with its state, as `gpnas status --json` tells it."""
    return JSONResponse(service_of(request).reading.document(search))


@routes.get("/{search}/explain")
async def explain_all(request: Request, search: str) -> dict[str, Any]:
    """Every candidate in short and what was learned, as `gpnas explain --json` tells it."""
    return dict(await service_of(request).thought(search, "explained", ""))


@routes.get("/{search}/explain/{candidate}")
async def explain(request: Request, search: str, candidate: str) -> dict[str, Any]:
    """Why a candidate was chosen, or `best`, recomputed as of that moment."""
    service = service_of(request)
    journal = await asyncio.to_thread(service.runs.journal, search)
    if candidate != "best":
        known = await asyncio.to_thread(lambda: {each.id for each in journal.candidates()})
        if candidate not in known:
            raise Problem(404, f"a candidate must be one of this search, but got {candidate!r:.80}")
    return dict(await service.thought(search, "explained", candidate))


@routes.get("/{search}/posterior")
async def posterior(request: Request, search: str) -> dict[str, Any]:
    """What is believed of the 200 architectures with the best predictions; at first none."""
    return dict(await service_of(request).thought(search, "posterior"))


@routes.get("/{search}/portfolio")
async def portfolio(request: Request, search: str) -> dict[str, Any]:
    """Which networks belong together, as `gpnas portfolio --json` tells it, once the search has delivered."""
    return dict(await service_of(request).thought(search, "portfolio"))


@routes.get("/{search}/figures", response_model=Figures)
async def figures(request: Request, search: str) -> dict[str, Any]:
    """Every figure for which the search has numbers."""
    return {"figures": await service_of(request).thought(search, "figure_names")}


@routes.get("/{search}/figures/{name}", response_model=Figure)
async def figure(
    request: Request,
    search: str,
    name: str,
    form: Annotated[
        Literal["vega-lite", "data"], Query(description="Charts, or their numbers alone.")
    ] = "vega-lite",
) -> JSONResponse:
    """A figure as Vega-Lite specifications, or the tables that they draw."""
    document = None
    if WORD.fullmatch(name):
        document = await service_of(request).thought(search, "figure", name)
    if document is None:
        raise Problem(404, f"a figure must be one that this search has numbers for, but got {name!r:.60}")
    if form == "data":
        views = [
            {"label": view["label"], "data": [_tables(chart) for chart in view["charts"]]}
            for view in document["views"]
        ]
        document = {**document, "views": views}
    return JSONResponse(document)


@routes.get("/{search}/report", response_class=HTMLResponse)
async def report(request: Request, search: str) -> HTMLResponse:
    """The report of a search, one page that asks no network for anything."""
    text = await service_of(request).thought(search, "report")
    return HTMLResponse(text, headers={"Content-Security-Policy": REPORT_POLICY})


def sweep(runs: Path) -> None:
    """Removes the bundles that a service which was killed had made to be sent."""
    for path in (runs / SERVICE).glob("bundle-*.zip"):
        path.unlink(missing_ok=True)


@routes.get("/{search}/bundle", response_class=FileResponse)
async def bundle(request: Request, search: str) -> FileResponse:
    """The bundle that a search has delivered, checked, as a .zip file."""
    service = service_of(request)
    path = await asyncio.to_thread(service.runs.path, search)
    if not (path / "bundle" / "manifest.json").exists():
        raise Problem(
            404,
            f"{search} has no bundle: one that trains on Ray has it once its last trial has ended; "
            "GET …/report shows what there is",
        )
    target = service.runs.folder / SERVICE / f"bundle-{secrets.token_hex(8)}.zip"
    try:
        await service.jobs.do("bundle", str(path), str(target))
    except BaseException:
        target.unlink(missing_ok=True)
        raise
    return FileResponse(
        target,
        media_type="application/zip",
        filename=f"{search}.zip",
        background=BackgroundTask(target.unlink, missing_ok=True),
    )


@routes.get("/{search}/journal", response_class=StreamingResponse)
def journal(
    request: Request,
    search: str,
    after: Annotated[
        str, Query(max_length=140, description="Where to go on: an `id` of a line before.")
    ] = "",
) -> StreamingResponse:
    """The journal's rows as JSON lines, each with its `id`, `kind` and `document`."""
    service = service_of(request)
    kept = service.runs.journal(search)  # which checks it
    lines = _lines(kept.run, cursor_of(after))
    return StreamingResponse(lines, media_type="application/jsonl")


def _lines(run: Path, cursor: Cursor) -> Iterator[str]:
    with Journal.read(run, check=False) as kept:  # its own, since the shared one may be closed meanwhile
        while entries := kept.after(cursor):
            cursor = entries[-1].cursor
            yield "".join(
                json.dumps({"id": str(each.cursor), "kind": each.kind, "document": each.document}) + "\n"
                for each in entries
            )


def _tables(chart: dict[str, Any]) -> dict[str, Any]:
    """The numbers of a chart, by the name that it gives them; a chart may hold them as text."""
    tables = chart.get("datasets", {})
    return {name: json.loads(rows) if isinstance(rows, str) else rows for name, rows in tables.items()}
