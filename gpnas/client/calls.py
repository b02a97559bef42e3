"""What a client sends, and how it reads what comes back; nothing here knows how it travels."""

from __future__ import annotations

import random
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, Literal, TypeVar
from urllib.parse import quote

from gpnas.errors import GpnasError
from gpnas.records import Architecture

T = TypeVar("T")
Failure = Literal["diverged", "out of memory", "infeasible", "preempted", "failed"]
AGAIN = (408, 429, 500, 502, 503, 504, 507)
"""Answers after which the same request is worth another try."""
FIRST_PAUSE, LONGEST_PAUSE = 0.25, 30.0
"""Seconds between tries: each about twice the one before."""


class RefusedError(GpnasError):
    """The service says no, and why."""

    def __init__(self, status: int, detail: str) -> None:
        super().__init__(detail)
        self.status = status
        """The status of HTTP; 0 where the service could not be reached."""


class LeaseLostError(RefusedError):
    """The lease is another's by now, or its candidate is observed."""

    def __init__(self, detail: str, counted: bool | None) -> None:
        super().__init__(409, detail)
        self.counted = counted
        """Whether what was told counts nevertheless; None where nothing was told."""


class FinishedError(RefusedError):
    """The search has nothing more to train."""

    def __init__(self, detail: str) -> None:
        super().__init__(410, detail)


@dataclass(frozen=True)
class Lent:
    """A candidate to train, and the lease on it."""

    candidate: str
    """Its name, such as `c0007`."""
    architecture: Architecture
    seed: int
    steps: int
    attempt: int
    """The number of the attempt, the first 1; also the fencing number, which rises with every lease."""
    lease: str
    heartbeat_seconds: float
    """A heartbeat is due after so long."""
    checkpoint: str | None
    """Address of what the attempts before have trained; None where they named none."""
    decision: Mapping[str, Any]
    """Why it was chosen, plain JSON."""
    costs: Mapping[str, float]
    """What is known before training."""

    @classmethod
    def read(cls, document: Mapping[str, Any]) -> Lent:
        """What a service tells of it."""
        return cls(
            document["candidate"],
            Architecture.from_json(document["architecture"]),
            document["seed"],
            document["steps"],
            document["attempt"],
            document["lease"],
            document["heartbeat_seconds"],
            document["checkpoint"],
            document.get("decision", {}),
            document.get("costs", {}),
        )


@dataclass(frozen=True)
class Point:
    """One evaluation on the way."""

    step: int
    value: float | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Verdict:
    """Whether a training goes on."""

    word: Literal["continue", "stop"]
    chance: float | None
    reason: str
    next: float | None
    """Seconds until the next heartbeat is due."""

    @property
    def stop(self) -> bool:
        return self.word == "stop"


@dataclass(frozen=True)
class Told:
    """What a training came to: a value, or a failure."""

    value: float | None = None
    standard_error: float | None = None
    seconds: float | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)
    failure: Failure | None = None
    reason: str = ""
    """The reason of a failure, one line."""
    checkpoint: str | None = None
    """Where a training that was preempted may go on."""


@dataclass(frozen=True)
class Call(Generic[T]):
    """One request, and how its answer is read."""

    method: str
    path: str
    read: Callable[[int, Any, float], T]
    """What reads an answer: its status, document and the seconds of `Retry-After`."""
    body: Any = None
    query: Mapping[str, str] = field(default_factory=dict)
    key: str | None = None


def path_of(search: str, what: str = "") -> str:
    """The path of a search, or of what it has under a name."""
    path = f"/v1/searches/{quote(search, safe='')}"
    return f"{path}/{what}" if what else path


def look(path: str, **query: str) -> Call[dict[str, Any]]:
    """Anything that can be looked at, as plain JSON."""
    return Call("GET", path, _read, query=query)


def begin(body: Mapping[str, Any]) -> Call[dict[str, Any]]:
    """Begins a search."""
    return _post("/v1/searches", body, _read)


def ask(
    search: str, worker: str, count: int, lease_seconds: float, capacity: Mapping[str, float] | None
) -> Call[tuple[list[Lent], float]]:
    """Candidates, or none, and the seconds after which it is worth to ask again."""
    body: dict[str, Any] = {"worker": worker, "count": count, "lease_seconds": lease_seconds}
    body["capacity"] = dict(capacity or {})

    def read(status: int, document: Any, retry: float) -> tuple[list[Lent], float]:
        lent = [] if status == 204 else [Lent.read(each) for each in document["candidates"]]
        return lent, retry

    return _post(path_of(search, "ask"), body, read)


def heartbeat(lease: str, points: Sequence[Point], checkpoint: str | None) -> Call[Verdict]:
    """Renews a lease."""
    body = {"points": [_given(vars(each)) for each in points], **_given({"checkpoint": checkpoint})}

    def read(status: int, document: Any, retry: float) -> Verdict:
        return Verdict(document["verdict"], document["chance"], document["reason"], document["next"])

    return _post(f"/v1/leases/{quote(lease, safe=':')}/heartbeat", body, read)


def tell(lease: str, told: Told) -> Call[bool]:
    """What a training came to; whether it counts."""
    names = ("value", "standard_error", "seconds", "checkpoint")
    body = _given({name: getattr(told, name) for name in names})
    body["metrics"] = dict(told.metrics)
    if told.failure is not None:
        body["failure"] = {"kind": told.failure, "reason": told.reason[:500]}

    def read(status: int, document: Any, retry: float) -> bool:
        return bool(document.get("counted", True))

    return _post(f"/v1/leases/{quote(lease, safe=':')}/tell", body, read)


def give_back(lease: str, checkpoint: str | None) -> Call[None]:
    """Ends a lease before its time."""
    return _post(
        f"/v1/leases/{quote(lease, safe=':')}/give-back",
        _given({"checkpoint": checkpoint}),
        lambda status, document, retry: None,
    )


def wish(search: str, what: str, architecture: Architecture, **more: float) -> Call[dict[str, Any]]:
    """`observations`, `wanted` or `vetoed`."""
    return _post(path_of(search, what), {"architecture": architecture.to_json(), **more}, _read)


def refusal(status: int, document: Any) -> RefusedError:
    """The error that an answer stands for that is no success."""
    told = document if isinstance(document, dict) else {}
    detail = str(told.get("detail") or f"the service answered {status} without saying why")
    if status == 409 and "fencing" in told:
        return LeaseLostError(detail, told.get("counted"))
    return FinishedError(detail) if status == 410 else RefusedError(status, detail)


def pauses(patience: float) -> Iterator[float]:
    """Seconds between tries, until so many have passed in all; a little by chance, so that clients spread."""
    pause, passed = FIRST_PAUSE, 0.0
    while passed < patience:
        shaken = pause * random.uniform(0.75, 1.25)
        yield shaken
        passed += shaken
        pause = min(2 * pause, LONGEST_PAUSE)


def _post(path: str, body: Any, read: Callable[[int, Any, float], T]) -> Call[T]:
    return Call("POST", path, read, body, key=secrets.token_urlsafe(16))


def _read(status: int, document: Any, retry: float) -> dict[str, Any]:
    return dict(document)


def _given(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}
