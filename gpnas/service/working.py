"""What workers and owners do: asking, telling, wishing, beginning and ending."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Request
from fastapi.responses import JSONResponse, Response

from gpnas.journal import Answer
from gpnas.records import Architecture
from gpnas.service.documents import (
    KEY_CHARACTERS,
    PROBLEMS,
    ArchitectureBody,
    AskBody,
    Candidates,
    ExtendBody,
    GiveBackBody,
    HeartbeatBody,
    ObservationBody,
    SearchBody,
    SpaceBody,
    TellBody,
    VerdictDocument,
    WhatIfBody,
)
from gpnas.service.external import External
from gpnas.service.managed import wishes_of
from gpnas.service.problems import Problem
from gpnas.service.state import needs, service_of, token_of

routes = APIRouter(prefix="/v1/searches", tags=["working"], responses=PROBLEMS)
other_routes = APIRouter(tags=["working"], responses=PROBLEMS)
NOTHING: dict[int | str, dict[str, Any]] = {
    204: {"description": "Nothing yet; `Retry-After` says when it is worth to ask again."}
}
Key = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        max_length=KEY_CHARACTERS,
        description="A request that is sent again under its key is answered as before, and done once.",
    ),
]
WORK, OWN, READ = [Depends(needs("work"))], [Depends(needs("own"))], [Depends(needs("read"))]


@routes.post("/{search}/ask", dependencies=WORK, response_model=Candidates, responses=NOTHING)
async def ask(request: Request, search: str, body: AskBody, key: Key = None) -> Response:
    """Candidates to train, each with a lease; nothing while the engine thinks or others train the rest."""
    response = await _done(request, search, key, body, lambda external: external.ask(body))
    service_of(request).externals.was_asked(search, body.count)
    return response


@other_routes.post("/v1/leases/{lease}/heartbeat", dependencies=WORK, response_model=VerdictDocument)
async def heartbeat(request: Request, lease: str, body: HeartbeatBody, key: Key = None) -> Response:
    """Renews a lease with how far its training has come; the answer says whether it goes on."""
    return await _leased(
        request, lease, key, body, lambda external, own: external.heartbeat(own, body.points, body.checkpoint)
    )


@other_routes.post("/v1/leases/{lease}/tell", dependencies=WORK)
async def tell(request: Request, lease: str, body: TellBody, key: Key = None) -> Response:
    """What a training came to. The first observation of a candidate counts; one that is late is labelled."""
    failure = body.failure
    if failure is not None and failure.kind == "preempted":
        kept = body.checkpoint
        return await _leased(
            request, lease, key, body, lambda external, own: external.give_back(own, kept, failure.kind)
        )
    if body.checkpoint is not None:
        raise Problem(422, "a `checkpoint` is told of a training that is `preempted`, but this one is not")
    if (body.value is None) == (failure is None):
        raise Problem(
            422, "a training tells either its `value` or a `failure`, but it tells both or neither; tell one"
        )
    return await _leased(request, lease, key, body, lambda external, own: external.tell(own, body))


@other_routes.post("/v1/leases/{lease}/give-back", dependencies=WORK)
async def give_back(request: Request, lease: str, body: GiveBackBody, key: Key = None) -> Response:
    """Ends a lease before its time, so that the candidate is offered again, from its checkpoint."""
    return await _leased(
        request, lease, key, body, lambda external, own: external.give_back(own, body.checkpoint)
    )


@routes.post("/{search}/observations", dependencies=WORK, status_code=201)
async def observations(request: Request, search: str, body: ObservationBody, key: Key = None) -> Response:
    """Enters a training that was made elsewhere; it takes nothing from the trials."""
    return await _wished(
        request, search, key, body, lambda external, architecture: external.entered(architecture, body)
    )


@routes.post("/{search}/wanted", dependencies=WORK, status_code=201)
async def wanted(request: Request, search: str, body: ArchitectureBody, key: Key = None) -> Response:
    """Has an architecture trained before whatever the engine thinks of; it counts as one of the trials."""
    return await _wished(request, search, key, body, External.wanted)


@routes.post("/{search}/vetoed", dependencies=WORK, status_code=201)
async def vetoed(request: Request, search: str, body: ArchitectureBody, key: Key = None) -> Response:
    """Has an architecture not be trained; a training under way goes on."""
    return await _wished(request, search, key, body, External.vetoed)


@routes.post("/{search}/what-if", dependencies=READ)
async def what_if(request: Request, search: str, body: WhatIfBody) -> dict[str, Any]:
    """What would be suggested next if this were told; writes nothing."""
    service = service_of(request)
    path = await asyncio.to_thread(service.runs.path, search)
    told = [each.model_dump() for each in body.told]
    return dict(await service.jobs.do("what_if", str(path), told, body.count))


@other_routes.post("/v1/space-check", dependencies=READ)
async def check_space(request: Request, body: SpaceBody) -> dict[str, Any]:
    """Whether a space file can be searched, and how many architectures it has; errors name the line."""
    service = service_of(request)
    told = await service.jobs.do("header", body.space, {}, service.limits.architectures)
    return {"architectures": told["architectures"]}


@routes.post("", dependencies=OWN, status_code=201)
async def begin(request: Request, body: SearchBody, key: Key = None) -> Response:
    """Begins a search."""
    service = service_of(request)
    document = body.model_dump(mode="json")
    if body.kind == "managed":
        space, wishes = wishes_of(document)
        checked = await service.jobs.do("managed", space, service.limits.architectures)

        def do(again: bool) -> Answer:
            trainer = checked["trainer"]
            told = service.managed.begin(body.id, space, wishes, trainer=trainer, again=again)
            return Answer("", 201, {**told, "architectures": checked["architectures"]})

        return await _driven(request, key, body, do)
    header, architectures = await service.externals.prepared(document)

    def enter(again: bool) -> Answer:
        service.externals.begin(body.id, header, again=again)
        return Answer("", 201, {"id": body.id, "architectures": architectures})

    return await _driven(request, key, body, enter)


@routes.post("/{search}/stop", dependencies=OWN)
async def stop(request: Request, search: str, key: Key = None) -> Response:
    """Has a search hand out nothing more, and its trainings told to stop."""
    managed = service_of(request).managed
    if await asyncio.to_thread(managed.is_managed, search):
        return await _driven(request, key, None, lambda again: Answer("", 200, managed.stop(search)))
    return await _done(request, search, key, None, lambda external: external.stop(True))


@routes.post("/{search}/go-on", dependencies=OWN)
async def go_on(request: Request, search: str, key: Key = None) -> Response:
    """Has a search that was stopped go on."""
    managed = service_of(request).managed
    if await asyncio.to_thread(managed.is_managed, search):
        return await _driven(
            request, key, None, lambda again: Answer("", 200, managed.go_on(search, again=again))
        )
    return await _done(request, search, key, None, lambda external: external.stop(False))


@routes.post("/{search}/extend", dependencies=OWN)
async def extend(request: Request, search: str, body: ExtendBody, key: Key = None) -> Response:
    """Grants a search more trials in all; the same again changes nothing."""
    managed = service_of(request).managed
    if await asyncio.to_thread(managed.is_managed, search):
        return await _driven(
            request, key, body, lambda again: Answer("", 200, managed.go_on(search, body.trials, again=again))
        )
    return await _done(request, search, key, body, lambda external: external.extend(body.trials))


@routes.delete("/{search}", dependencies=OWN, status_code=204, response_class=Response)
async def delete(request: Request, search: str) -> Response:
    """Moves a search that nobody drives to the trash folder of the service."""
    service = service_of(request)
    await asyncio.to_thread(service.runs.path, search)
    if await asyncio.to_thread(service.managed.is_managed, search):
        await asyncio.to_thread(service.managed.check_idle, search)
    await service.externals.forget(search)
    await asyncio.to_thread(service.runs.throw_away, search)
    return Response(status_code=204)


async def _done(
    request: Request, search: str, key: str | None, body: Any, do: Callable[[External], Answer]
) -> Response:
    """Does something to a search once for its key, in the search's thread, since a commit waits."""
    service, (own, asked) = service_of(request), _asked(request, key, body)
    external = service.externals.opened(search)
    if external is None:
        external = await asyncio.to_thread(service.externals.open, search)
    return _sent(await asyncio.wrap_future(external.once(own, asked, lambda: do(external))))


async def _leased(
    request: Request, lease: str, key: str | None, body: Any, do: Callable[[External, str], Answer]
) -> Response:
    """The same of what is done to a lease, by its name within its search."""
    search, colon, own = lease.rpartition(":")
    if not colon:
        raise Problem(404, f"a lease must be one that an ask was answered with, but got {lease!r:.80}")
    return await _done(request, search, key, body, lambda external: do(external, own))


async def _wished(
    request: Request, search: str, key: str | None, body: Any, do: Callable[[External, Architecture], Answer]
) -> Response:
    """The same with a request's architecture; a `Problem` where it is none of the search's space."""
    service = service_of(request)
    document = body.architecture.model_dump(mode="json")
    path = await asyncio.to_thread(service.runs.path, search)
    await service.jobs.do("contains", str(path), document)
    architecture = Architecture.from_json(document)
    return await _done(request, search, key, body, lambda external: do(external, architecture))


async def _driven(request: Request, key: str | None, body: Any, do: Callable[[bool], Answer]) -> Response:
    """Begins a search, or does something to a driver, once for its key."""
    own, asked = _asked(request, key, body)
    return _sent(await asyncio.to_thread(service_of(request).requests.once, own, asked, do))


def _asked(request: Request, key: str | None, body: Any) -> tuple[str | None, dict[str, Any]]:
    """A request's key, its token's own, so that no one meets another's by chance, and what it asks."""
    asked = {"path": request.scope["path"], "body": None if body is None else body.model_dump(mode="json")}
    return None if key is None else f"{token_of(request).id} {key}", asked


def _sent(answer: Answer) -> Response:
    """An answer as it is sent."""
    if answer.status >= 400:
        more = dict(answer.body)
        return Problem(answer.status, more.pop("detail"), **more).response()
    headers = {} if answer.retry is None else {"Retry-After": str(max(1, round(answer.retry)))}
    if answer.status == 204:
        return Response(status_code=204, headers=headers)
    return JSONResponse(answer.body, answer.status, headers)
