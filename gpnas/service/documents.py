"""The forms of what the service takes and gives, as its OpenAPI document describes them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, JsonValue, ValidationError

from gpnas.service.problems import MEDIA_TYPE

KEY_CHARACTERS = 200
"""Characters that an Idempotency-Key has, at most."""
PRINTABLE = r"^[^\x00-\x1f\x7f-\x9f]*$"


class Given(BaseModel):
    """Something that a caller sends: unknown keys are refused, and nothing is turned into another type."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


def given(form: type[Given], document: Any) -> Given | None:
    """A JSON document as what it should be; None where it is something else."""
    try:
        return form.model_validate(document)
    except ValidationError:
        return None


class Told(BaseModel):
    """Something that the service sends; more keys may come."""

    model_config = ConfigDict(extra="allow")


class ProblemDocument(Told):
    """An RFC 9457 problem."""

    type: str = Field(examples=["about:blank"])
    title: str = Field(examples=["Not Found"])
    status: int = Field(examples=[404])
    detail: str = Field(description="The rule, the value that broke it, what to do: one line.")


class Health(Told):
    """How the service is."""

    status: str = Field(examples=["ok"])


class ArchitectureDocument(BaseModel):
    """An architecture: a family and a value for each of its axes."""

    model_config = ConfigDict(extra="forbid", strict=True)

    family: str = Field(min_length=1, max_length=100, examples=["drn"])
    axes: dict[str, bool | int | float | str] = Field(examples=[{"features": 16, "blocks": 4, "stages": 2}])


class BestDocument(Told):
    """The best candidate so far."""

    id: str
    architecture: ArchitectureDocument
    value: float


class SearchSummary(Told):
    """A search in short."""

    id: str = Field(examples=["drn"])
    state: str = Field(
        description="`running`, `finished`, `interrupted`, or `unreadable`: its journal is damaged or "
        "of another gpnas."
    )
    kind: str = Field(description="`managed`, `external`, or `unknown` of an unreadable one.")
    driver: int | None = Field(description="Number of the process that drives it, where one does.")
    objective: dict[str, str]
    trials: int
    counts: dict[str, int]
    best: BestDocument | None
    course: list[float]
    strategy: str | None
    seed: int
    begun: str
    note: str | None


class SearchList(Told):
    """A page of searches."""

    searches: list[SearchSummary]
    next: str | None = Field(description="What to send as `after` for the next page; none after the last.")


class CandidateStatus(Told):
    """Where one candidate stands."""

    id: str
    architecture: ArchitectureDocument
    state: str
    value: float | None
    seconds: float | None
    attempts: int


class Status(Told):
    """Where a search stands."""

    run: str
    state: str
    objective: dict[str, str] = Field(description="Its `name`, `unit` and `goal`.")
    candidates: list[CandidateStatus]


class FigureName(Told):
    """A figure that can be had."""

    name: str
    heading: str
    reading: str


class Figures(Told):
    """The figures of a search."""

    figures: list[FigureName]


class Figure(FigureName):
    """A figure."""

    views: list[dict[str, Any]] = Field(description="Each with a `label` and its `charts` in Vega-Lite.")


RESERVED = ("candidate", "checkpoint", "lease", "reason", "seconds", "self", "step", "value")
"""What is said of a training besides its metrics, and therefore names none."""


def _named(name: str) -> str:
    if name in RESERVED or not name.isprintable():
        raise ValueError(f"a metric's name must be printable and none of {', '.join(RESERVED)}")
    return name


Metrics = dict[Annotated[str, Field(min_length=1, max_length=100), AfterValidator(_named)], float]
Seconds = Annotated[float, Field(ge=0, le=1e9, strict=False)]
Number = Annotated[float, Field(strict=False)]
Checkpoint = Annotated[str, Field(min_length=1, max_length=1_000, pattern=PRINTABLE)]


class AskBody(Given):
    """Who asks for how many candidates."""

    worker: str = Field(
        min_length=1, max_length=200, pattern=PRINTABLE, examples=["desk-7"], description="A name for people."
    )
    count: int = Field(default=1, ge=1, le=64)
    lease_seconds: float = Field(
        default=300.0,
        ge=1,
        le=604_800,
        strict=False,
        description="So long a lease lasts without a heartbeat.",
    )
    capacity: dict[Literal["parameters", "gmacs", "memory", "seconds"], float] = Field(
        default={},
        examples=[{"gmacs": 100.0, "memory": 8e9}],
        description="The most that this worker can train: parameters, GMACs at 120×120 LR pixels, bytes that "
        "a training step holds, seconds that a training is expected to take by those that were told. What is "
        "not known of a candidate is no reason to leave it to others.",
    )


class Point(Given):
    """One evaluation on the way."""

    step: int = Field(ge=0, lt=2**53)
    value: Number | None = None
    metrics: Metrics = Field(default={}, max_length=50)


class HeartbeatBody(Given):
    """How far a training has come."""

    points: list[Point] = Field(default=[], max_length=1_000, examples=[[{"step": 100, "value": 27.9}]])
    checkpoint: Checkpoint | None = None


class GiveBackBody(Given):
    """Where a training that is given back may go on."""

    checkpoint: Checkpoint | None = None


class FailureBody(Given):
    """Why a training has no value."""

    kind: Literal["diverged", "out of memory", "infeasible", "preempted", "failed"]
    reason: str = Field(default="", max_length=500, pattern=PRINTABLE)


class TellBody(Given):
    """What a training came to: a value, or a failure."""

    value: Number | None = Field(default=None, examples=[28.61])
    standard_error: Annotated[float, Field(ge=0, strict=False)] | None = None
    seconds: Seconds | None = None
    metrics: Metrics = Field(default={}, max_length=50)
    failure: FailureBody | None = None
    checkpoint: Checkpoint | None = Field(
        default=None, description="Where one that was `preempted` may go on."
    )


class ObservationBody(Given):
    """A training that was made elsewhere."""

    architecture: ArchitectureDocument
    value: Number = Field(examples=[28.4])
    seconds: Seconds | None = None
    metrics: Metrics = Field(default={}, max_length=50)


class ArchitectureBody(Given):
    """An architecture that someone wants, or does not want."""

    architecture: ArchitectureDocument


class ExtendBody(Given):
    """Trials that a search is granted in all."""

    trials: int = Field(ge=1, le=10_000)


class WhatIfTold(Given):
    """A value that a candidate might have."""

    candidate: str = Field(max_length=64)
    value: Number


class WhatIfBody(Given):
    """What might be told."""

    told: list[WhatIfTold] = Field(max_length=100, examples=[[{"candidate": "c0007", "value": 28.6}]])
    count: int = Field(default=1, ge=1, le=10)


class ObjectiveBody(Given):
    """What a search makes as good as it can."""

    name: str = Field(min_length=1, max_length=40, pattern=PRINTABLE, examples=["accuracy"])
    unit: str = Field(default="", max_length=20, pattern=PRINTABLE, examples=["%"])
    goal: Literal["maximise", "minimise"] = "maximise"


class SearchBody(Given):
    """A search that is to begin."""

    id: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$", examples=["digits"])
    space: str | dict[str, JsonValue] = Field(
        description="A space file, as YAML text or the same in JSON; it may name no other file and no code.",
        examples=[{"scale": 2, "families": {"mlp": {"width": [16, 32], "depth": {"low": 1, "high": 4}}}}],
    )
    kind: Literal["external", "managed"] = "external"
    trials: int | None = Field(default=None, ge=1, le=10_000, examples=[20])
    strategy: Literal["mi+kg", "mi+nei", "published", "random"] | None = None
    seed: int = Field(default=0, ge=0, lt=2**31)
    steps: int | None = Field(default=None, ge=1, lt=2**53)
    early_stopping: bool | None = None
    objective: ObjectiveBody | None = None


class SpaceBody(Given):
    """A space file to be looked at."""

    space: str = Field(max_length=1_000_000)


class Lent(Told):
    """A candidate with a lease."""

    candidate: str = Field(examples=["c0007"])
    architecture: ArchitectureDocument
    seed: int
    steps: int
    attempt: int
    lease: str = Field(examples=["digits:9f86d081884c7d65"])
    fencing: int = Field(description="Higher with each holder of the candidate, for storages that fence.")
    expires: str
    lease_seconds: float
    heartbeat_seconds: float = Field(description="Seconds between two heartbeats that keep the lease.")
    checkpoint: str | None = Field(description="Where an earlier holder left off.")
    objective: dict[str, str] = Field(description="Its `name`, `unit` and `goal`.")
    prediction: dict[str, float] | None = Field(description="`mean` and `stddev` of what it will come to.")
    reason: str = Field(description="How it was chosen.")
    costs: dict[str, float] = Field(description="What is known of it before it is trained.")
    decision: dict[str, Any] = Field(description="What the engine noted when it chose it.")


class Candidates(Told):
    """Candidates with leases."""

    candidates: list[Lent]


class VerdictDocument(Told):
    """Whether a training goes on."""

    verdict: str = Field(examples=["continue"])
    chance: float | None
    reason: str
    next: float | None = Field(description="Seconds until the next heartbeat is due.")


PROBLEMS: dict[int | str, dict[str, Any]] = {
    status: {
        "description": text,
        "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/ProblemDocument"}}},
    }
    for status, text in (
        (400, "The request is no request of this service, such as JSON that repeats a key."),
        (401, "No valid token."),
        (403, "The token's role does not suffice, or a page of another site asks."),
        (404, "There is no such thing."),
        (405, "This method is none of this path's."),
        (408, "The body did not arrive in time."),
        (409, "It is another's by now, or in another state; the detail says what happened."),
        (410, "There is nothing more to train."),
        (413, "The body is too large."),
        (415, "The body is not application/json."),
        (421, "The request's Host is none of this service's names."),
        (422, "The request breaks a rule."),
        (429, "Too many requests."),
        (500, "The service failed; its log tells more."),
        (503, "There is too much to do, or it took too long; ask again later."),
        (507, "The disk is full."),
    )
}
"""Answers of every route that are no success."""
