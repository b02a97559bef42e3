"""The forms of what the service takes and gives, as its OpenAPI document describes them."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from gpnas.service.problems import MEDIA_TYPE


class Given(BaseModel):
    """Something that a caller sends: unknown keys are refused, and nothing is turned into another type."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


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
    state: str = Field(description="`running`, `finished`, `interrupted`, or `damaged`.")
    kind: str = Field(description="`managed`, `external`, or `unknown` of a damaged one.")
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


def _problem(text: str) -> dict[str, Any]:
    schema = {"$ref": "#/components/schemas/ProblemDocument"}
    return {"description": text, "content": {MEDIA_TYPE: {"schema": schema}}}


PROBLEMS: dict[int | str, dict[str, Any]] = {
    400: _problem("The request is no request of this service, such as JSON that repeats a key."),
    401: _problem("No valid token."),
    403: _problem("The token's role does not suffice, or a page of another site asks."),
    404: _problem("There is no such thing."),
    408: _problem("The body did not arrive in time."),
    413: _problem("The body is too large."),
    415: _problem("The body is not application/json."),
    421: _problem("The request's Host is none of this service's names."),
    422: _problem("The request breaks a rule."),
    429: _problem("Too many requests."),
    500: _problem("The service failed; its log tells more."),
    503: _problem("There is too much to do, or it took too long; ask again later."),
    507: _problem("The disk is full."),
}
"""Answers of every route that are no success."""
