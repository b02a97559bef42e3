"""What stands in a journal: its tables, and the JSON documents in their rows.

Every document carries a CRC-32, since SQLite notices a torn page but not a changed digit.
"""

from __future__ import annotations

import json
import math
import numbers
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import lru_cache
from typing import Any, TypeVar

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    TypeAdapter,
    ValidationError,
    field_validator,
    model_validator,
)

from gpnas.journal.header import SESSION, Header, Session
from gpnas.records import Architecture, Candidate, Fidelity, Observation, Progress, Stop

VERSION = 2
"""Version of the tables below, with leases and answers, as SQLite's `user_version`; raised as they change."""
APPLICATION = 0x67706E61
"""SQLite's `application_id` of a journal: "gpna" in ASCII."""

TABLES = {
    "header": "number INTEGER PRIMARY KEY, document TEXT NOT NULL, crc32 INTEGER NOT NULL",
    "sessions": "number INTEGER PRIMARY KEY, time TEXT NOT NULL, document TEXT NOT NULL, "
    "crc32 INTEGER NOT NULL",
    "candidates": "number INTEGER PRIMARY KEY, time TEXT NOT NULL, session INTEGER NOT NULL, "
    "id TEXT NOT NULL UNIQUE, document TEXT NOT NULL, crc32 INTEGER NOT NULL",
    "attempts": "candidate TEXT NOT NULL REFERENCES candidates(id), number INTEGER NOT NULL, "
    "session INTEGER NOT NULL, started TEXT NOT NULL, ended TEXT, outcome TEXT, "
    "PRIMARY KEY (candidate, number)",
    "progress": "candidate TEXT NOT NULL REFERENCES candidates(id), attempt INTEGER NOT NULL, "
    "step INTEGER NOT NULL, evaluated INTEGER NOT NULL, document TEXT NOT NULL, crc32 INTEGER NOT NULL, "
    "PRIMARY KEY (candidate, attempt, step)",
    "observations": "number INTEGER PRIMARY KEY, time TEXT NOT NULL, "
    "candidate TEXT NOT NULL UNIQUE REFERENCES candidates(id), document TEXT NOT NULL, "
    "crc32 INTEGER NOT NULL",
    "leases": "id TEXT PRIMARY KEY, candidate TEXT NOT NULL REFERENCES candidates(id), "
    "attempt INTEGER NOT NULL, document TEXT NOT NULL, crc32 INTEGER NOT NULL, UNIQUE (candidate, attempt)",
    "answers": "key TEXT PRIMARY KEY, time TEXT NOT NULL, document TEXT NOT NULL, crc32 INTEGER NOT NULL",
    "results": "key TEXT PRIMARY KEY, time TEXT NOT NULL, session INTEGER NOT NULL, "
    "document TEXT NOT NULL, crc32 INTEGER NOT NULL",
    "events": "number INTEGER PRIMARY KEY, time TEXT NOT NULL, session INTEGER NOT NULL, "
    "kind TEXT NOT NULL, document TEXT NOT NULL, crc32 INTEGER NOT NULL",
}
"""Name of each table to its columns. Rows are only added, except that an attempt gets its end, a lease is
renewed, a result may be replaced, answers are thrown away after a day or when there are too many, and
progress is thinned out."""


R = TypeVar("R")


def declaration(table: str) -> str:
    """The statement that makes a table; SQLite keeps it word for word."""
    return f"CREATE TABLE {table} ({TABLES[table]}) STRICT"


class DamageError(Exception):
    """What was read is not what was written; the message completes "the file is damaged: …"."""


class _Document(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class _Result(_Document):
    """The part of a document that is read again; it may hold more."""

    model_config = ConfigDict(extra="ignore")


class DecisionDocument(_Result):
    """A candidate's `decision` as it is written: these, and whatever else was worth a note."""

    phase: str | None = None
    """How it was chosen, such as `mutual information` or `knowledge gradient`."""
    observations: int | None = Field(default=None, ge=0)
    """How many observations the engine knew then, the first in the order of their table."""
    engine: int | None = Field(default=None, ge=1)
    """Version of the engine that chose."""
    score: float | None = None
    """The score by which it was chosen, in the unit of the phase; none where chance or a person decided."""
    mean: float | None = None
    """Posterior mean of the architecture before it was trained, in the objective's unit."""
    stddev: float | None = None
    """Posterior standard deviation of that mean."""


class CandidateDocument(_Document):
    """A `Candidate` as it is written."""

    id: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")
    """The candidate's name, such as `c0007`; also the name of a folder, hence the pattern."""
    family: str = Field(min_length=1)
    """The architecture's family."""
    axes: dict[str, bool | int | float | str]
    """The architecture's axes, each with its value."""
    steps: int = Field(ge=1)
    """Optimiser steps granted to the training."""
    seed: int = Field(ge=0, lt=2**31)
    """Seed of the training."""
    decision: dict[str, JsonValue]
    """Why it was chosen, and what was foretold of it: these keys, each where it is known, and others."""

    @field_validator("decision")
    @classmethod
    def _is_a_decision(cls, decision: dict[str, JsonValue]) -> dict[str, JsonValue]:
        DecisionDocument.model_validate(decision)
        return decision


class ObservationDocument(_Document):
    """An `Observation` as it is written; its candidate's name stands in the same row."""

    value: float | None
    """What the training came to, in the objective's unit; of a stopped one the final value that its curve
    predicted; null where it failed."""
    failure: str | None
    """Why the training failed, in one line; null where it did not."""
    seconds: float = Field(ge=0)
    """Seconds of training and validation, over all attempts."""
    metrics: dict[str, float]
    """What was measured besides, by name."""
    stopped: Stop | None
    """Why the training was ended early; null where it was not."""


class ProgressDocument(_Document):
    """A `Progress` as it is written; attempt and step stand in the same row."""

    value: float | None
    """The objective at this step, in its unit; null where it was not evaluated."""
    metrics: dict[str, float]
    """What was measured besides, by name, such as the loss and the learning rate."""
    seconds: float = Field(ge=0)
    """Seconds of training and validation until then, over all attempts."""


class RankedDocument(_Result):
    """A network of a delivery's ranking."""

    id: str
    """The candidate's name."""
    psnr: float
    """Its PSNR on the validation images, in dB."""
    ssim: float
    """Its SSIM on the same images, at most 1."""


class DiagnosticsDocument(_Result):
    """What a delivery says of its surrogate."""

    observations: int = Field(ge=0)
    """How many observations it rests on."""
    summary: str
    """How far its predictions can be trusted, in a sentence."""
    warning: str | None
    """What speaks against trusting them; null where nothing does."""


class ValuesDocument(_Result):
    """What a delivery says of its portfolio, in the unit of the objective."""

    bicubic: float
    """Value of bicubic upsampling."""
    best: float
    """Value of the network that is best alone."""
    average: float
    """Value of the portfolio's weighted average."""


class DeliveryDocument(_Result):
    """What a run delivered."""

    ranking: list[RankedDocument] = Field(min_length=1)
    """Networks that were trained to the end, best first."""
    unusable: dict[str, str]
    """Why a network cannot be used, by the name of its candidate."""
    shares: dict[str, float] = Field(min_length=1)
    """Weight of each member of the portfolio, by the name of its candidate; they add up to 1."""
    psnr: ValuesDocument
    """What the portfolio is worth, and what it is compared with."""
    diagnostics: DiagnosticsDocument | None
    """How far the surrogate's predictions can be trusted; null in a final training."""


class EnsembleDocument(_Result):
    """Mean products of the residuals of networks, as a portfolio was judged by them."""

    candidates: list[str]
    """Names of the candidates, in the order of the products' rows."""
    products: list[list[list[float]]]
    """A matrix for each validation image: the mean products of the residuals of each two candidates."""

    @model_validator(mode="after")
    def _is_square(self) -> EnsembleDocument:
        n = len(self.candidates)
        if any(len(image) != n or any(len(row) != n for row in image) for image in self.products):
            raise ValueError(f"products must be {n} × {n} for each image")
        return self


class LeaseDocument(_Document):
    """A `Lease` as it is written; its name, its candidate and its attempt stand in the same row."""

    holder: str = Field(min_length=1, max_length=200)
    """Name of whoever trains."""
    process: str | None = Field(max_length=200)
    """The process of this machine whose end ends the lease; null where time alone ends it."""
    seconds: float = Field(gt=0)
    """So long it lasts without a renewal."""
    expires: float
    """When it runs out, in seconds since 1970."""
    ticks: float
    """When it runs out, in seconds of the monotonic clock of the boot that granted or renewed it."""
    boot: str
    """Which boot of which machine that was; empty where that is not known."""
    checkpoint: str | None = Field(max_length=2000)
    """Address where the holder keeps what it has trained so far; null where it named none."""


class LateDocument(_Result):
    """What whoever had lost a lease told nevertheless."""

    candidate: str
    """The candidate's name."""
    attempt: int = Field(ge=1)
    """Number of the attempt."""
    holder: str
    """Name of whoever had the lease."""
    outcome: str
    """What had become of the lease."""
    counted: bool
    """Whether it was the first observation of the candidate, which is the one that counts."""
    value: float | None
    """What was told, in the objective's unit; null where the training failed."""
    failure: str | None
    """Why the training failed; null where it did not."""


class WordDocument(_Result):
    """An architecture that a person wants, or does not want, to be trained."""

    family: str = Field(min_length=1)
    """The architecture's family."""
    axes: dict[str, bool | int | float | str]
    """The architecture's axes, each with its value."""


class NoteDocument(_Result):
    """An event that is one line for people."""

    note: str
    """What happened, in one line."""


FORMS: dict[str, type[BaseModel]] = {
    "delivery": DeliveryDocument,
    "ensemble": EnsembleDocument,
    "recovered": NoteDocument,
    "late": LateDocument,
    "wanted": WordDocument,
    "vetoed": WordDocument,
}
"""Key of a result, or kind of an event, to what it must hold; of another, any JSON will do."""

_OBJECT: TypeAdapter[dict[str, JsonValue]] = TypeAdapter(dict[str, JsonValue])
_adapter: Callable[[Any], TypeAdapter[Any]] = lru_cache(TypeAdapter)


def plain(value: Any) -> Any:
    """A value as JSON has it: dict, list, str, int, float, bool or None.

    Numbers that JSON lacks (nan, ±inf) become None; what UTF-8 lacks (lone surrogates, as in the
    names of odd files) becomes `?`.

    Raises:
        TypeError: it holds something else, such as a tensor.
    """
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return str(value).encode("utf-8", "replace").decode()
    if isinstance(value, numbers.Integral):
        return int(value)
    if isinstance(value, numbers.Real):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {plain(str(key)): plain(entry) for key, entry in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, bytes | bytearray):
        return [plain(entry) for entry in value]
    raise TypeError(f"a document must hold plain JSON values, but got {type(value).__name__}")


def encode(document: Mapping[str, Any]) -> tuple[str, int]:
    """A document's text and its CRC-32, in the order of the columns; a TypeError as of `plain`."""
    text = json.dumps(plain(document), allow_nan=False, separators=(",", ":"))
    return text, zlib.crc32(text.encode())


def decode(text: Any, crc32: Any, where: str) -> dict[str, Any]:
    """The document that a row holds.

    Args:
        text, crc32: the row's columns.
        where: names the row, for the error.

    Raises:
        DamageError: it is not what was written.
    """
    try:
        return dict(_OBJECT.validate_json(_intact(text, crc32, where)))
    except ValidationError as error:
        raise DamageError(f"{where}: {explain(error)}") from None


def read_record(record: type[R], document: Mapping[str, Any], where: str) -> R:
    """The record that a document holds, by the types of its fields.

    Args:
        record: a dataclass whose `__pydantic_config__` says how strictly.
        document: plain JSON values.
        where: names the document, for the error.

    Raises:
        DamageError: it holds something else.
    """
    try:
        read: R = _adapter(record).validate_json(json.dumps(plain(document)))
    except ValueError as error:
        raise DamageError(f"{where}: {explain(error)}") from None
    return read


def decode_header(text: Any, crc32: Any) -> Header:
    """The header of a row; a DamageError where it is not what was written."""
    return read_record(Header, decode(text, crc32, "header"), "header")


def decode_session(header: Header, number: int, time: str, text: Any, crc32: Any) -> Session:
    """A session of a row, with the header as it had it; a DamageError where it is not what was written."""
    where = f"session {number}"
    document = decode(text, crc32, where)
    own = document.pop("header", None)
    if not isinstance(own, dict) or {"stop_below", *own} != set(SESSION):  # which former sessions lack
        raise DamageError(f"{where}: `header` must hold {', '.join(SESSION)}, but got {own!r:.60}")
    pid = document.pop("pid", None)
    if document or not isinstance(pid, int):
        raise DamageError(f"{where} must hold `header` and a number `pid` alone")
    return Session(number, time, pid, read_record(Header, plain(header.to_json()) | own, where))


def encode_candidate(candidate: Candidate) -> tuple[str, int]:
    """The document's text and CRC-32, checked against the schema: a ValueError where it breaks it."""
    document = {
        "id": candidate.id,
        "family": candidate.architecture.family,
        "axes": candidate.architecture.axes,
        "steps": candidate.fidelity.steps,
        "seed": candidate.seed,
        "decision": candidate.decision,
    }
    return _encoded(CandidateDocument, document)


def decode_candidate(name: str, text: Any, crc32: Any) -> Candidate:
    """The candidate of a row of `candidates`; a DamageError where it is not what was written."""
    where = f"candidate {name}"
    try:
        read = CandidateDocument.model_validate_json(_intact(text, crc32, where))
        architecture = Architecture(read.family, read.axes)
        candidate = Candidate(read.id, architecture, Fidelity(read.steps), read.seed, read.decision)
    except ValueError as error:
        raise DamageError(f"{where}: {explain(error)}") from None
    if candidate.id != name:
        raise DamageError(f"{where} stands under another's name")
    return candidate


def encode_observation(observation: Observation) -> tuple[str, int]:
    """The document's text and CRC-32, checked against the schema: a ValueError where it breaks it."""
    document = {
        "value": observation.value,
        "failure": observation.failure,
        "seconds": observation.seconds,
        "metrics": _finite(observation.metrics),
        "stopped": None if observation.stopped is None else asdict(observation.stopped),
    }
    return _encoded(ObservationDocument, document)


def decode_observation(candidate: Candidate, text: Any, crc32: Any) -> Observation:
    """The observation of a candidate; a DamageError where it is not what was written."""
    where = f"observation of {candidate.id}"
    try:
        read = ObservationDocument.model_validate_json(_intact(text, crc32, where))
        return Observation(candidate, **dict(read))
    except ValueError as error:
        raise DamageError(f"{where}: {explain(error)}") from None


def decode_result(key: str, text: Any, crc32: Any, where: str) -> dict[str, Any]:
    """The document of a row of `results` or `events`; a DamageError where it is not what was written."""
    document = decode(text, crc32, where)
    try:
        if key in FORMS:
            FORMS[key].model_validate_json(text)
    except ValidationError as error:
        raise DamageError(f"{where}: {explain(error)}") from None
    return document


def encode_progress(progress: Progress) -> tuple[str, int]:
    """The document's text and CRC-32, checked against the schema: a ValueError where it breaks it."""
    document = {
        "value": plain(progress.value),
        "metrics": _finite(progress.metrics),
        "seconds": progress.seconds,
    }
    return _encoded(ProgressDocument, document)


def decode_progress(candidate: str, attempt: Any, step: Any, text: Any, crc32: Any) -> Progress:
    """The progress of a row; a DamageError where it is not what was written."""
    where = f"progress of {candidate} at step {step}"
    try:
        read = ProgressDocument.model_validate_json(_intact(text, crc32, where))
        return Progress(int(attempt), int(step), read.value, read.metrics, read.seconds)
    except ValueError as error:
        raise DamageError(f"{where}: {explain(error)}") from None


def encode_lease(document: Mapping[str, Any]) -> tuple[str, int]:
    """The document's text and CRC-32, checked against the schema: a ValueError where it breaks it."""
    return _encoded(LeaseDocument, document)


def decode_lease(name: str, text: Any, crc32: Any) -> LeaseDocument:
    """The document of a lease; a DamageError where it is not what was written."""
    where = f"lease {name}"
    try:
        return LeaseDocument.model_validate_json(_intact(text, crc32, where))
    except ValueError as error:
        raise DamageError(f"{where}: {explain(error)}") from None


def _encoded(form: type[BaseModel], document: Mapping[str, Any]) -> tuple[str, int]:
    text, crc32 = encode(document)
    form.model_validate_json(text)
    return text, crc32


def _finite(metrics: Mapping[str, float]) -> dict[str, float]:
    """Metrics without those that are not finite: these tell nothing and have no JSON form."""
    return {name: value for name, value in metrics.items() if math.isfinite(value)}


def explain(error: Exception) -> str:
    """What is wrong with a document, in one line."""
    if isinstance(error, ValidationError):
        first = error.errors()[0]
        place = ".".join(str(step) for step in first["loc"])
        return " ".join(f"`{place}`: {first['msg']}, but got {str(first['input'])[:60]!r}".split())
    return " ".join(str(error).split())


def _intact(text: Any, crc32: Any, where: str) -> str:
    if not isinstance(text, str) or zlib.crc32(text.encode()) != crc32:
        raise DamageError(f"the checksum of {where} does not match")
    return text
