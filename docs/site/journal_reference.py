"""The tables of a journal as a page, from the statements that make them and the schemas of their rows."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from fields import Schema, kind, meanings, sentence
from pydantic import TypeAdapter

from gpnas import records
from gpnas.journal import answers, documents, header
from gpnas.journal.documents import TABLES, VERSION, declaration


@dataclass(frozen=True)
class Ended:
    """How an attempt ended without an observation."""

    candidate: str
    """The candidate's name."""
    number: int
    """Number of the attempt."""
    outcome: str
    """How it ended, in a word."""


@dataclass(frozen=True)
class SessionDocument:
    """A session as it is written."""

    pid: int
    """Number of the process that began it."""
    header: dict[str, Any]
    """What the header said then of `trials`, `concurrent`, `early_stopping`, `stop_below`, `versions` and
    `machine`, which alone may differ from one session to the next."""


ROWS: dict[str, tuple[str, dict[str, Any]]] = {
    "header": ("What the run is; one row, written when the run begins.", {"": header.Header}),
    "sessions": (
        "Each start of a command that writes, with what it was granted and what it runs on.",
        {"": SessionDocument},
    ),
    "candidates": (
        "What was suggested, in order, before anything of it is trained.",
        {"": documents.CandidateDocument},
    ),
    "attempts": ("Each start of a training; without an end while it runs. It has no document.", {}),
    "progress": (
        "What an attempt reported on its way; of what lies between evaluations, the newest.",
        {"": documents.ProgressDocument},
    ),
    "observations": (
        "What a training came to; one for each candidate that has ended.",
        {"": documents.ObservationDocument},
    ),
    "leases": (
        "Who may train which candidate, where others than a driver train.",
        {"": documents.LeaseDocument},
    ),
    "answers": (
        "Answers of the service under the keys of their requests, for a day.",
        {"": answers.Answer},
    ),
    "results": (
        "What was worked out of the rest, by name.",
        {
            "delivery": documents.DeliveryDocument,
            "own delivery": None,
            "ensemble": documents.EnsembleDocument,
            "prospect": records.Prospect,
        },
    ),
    "events": (
        "What people did, what went wrong, and what the surrogate said of stopping.",
        {
            "wanted": documents.WordDocument,
            "vetoed": documents.WordDocument,
            "late": documents.LateDocument,
            "ended": Ended,
            "recovered": documents.NoteDocument,
            "prospect": records.Prospect,
            "stopped": None,
            "gone on": None,
        },
    ),
}
"""Every table: what it holds, and the form of its documents, each by the key or the kind of its rows."""
FORMS = {
    "delivery": "what a search of gpnas's own trainings, or a final training, delivered: all that `gpnas "
    "search --json` prints, of which these are read again",
    "own delivery": "what a search of trainings of one's own delivered, as `gpnas search --json` prints it",
    "ensemble": "what the errors of trained networks have in common, so that it is not counted again",
    "prospect": "what the surrogate makes of the search after so many observations",
    "wanted": "a person wants an architecture to be trained",
    "vetoed": "a person does not want an architecture to be trained",
    "late": "a training was told of after its lease had ended",
    "ended": "an attempt ended without an observation",
    "recovered": "the journal was brought back from its backup",
    "stopped": "a person stopped the search; the document is empty",
    "gone on": "a person had a stopped search go on; the document is empty",
}
"""What the rows of a key or a kind are."""
COLUMNS = {
    "number": "in the order of writing, from 1",
    "time": "when the row was written",
    "session": "number of the session that wrote it",
    "candidate": "name of the candidate",
    "attempt": "number of the attempt, from 1",
    "document": "what stands in the row, as JSON",
    "crc32": "CRC-32 of the document's text",
    "header.number": "always 1",
    "candidates.id": "the candidate's name, such as `c0007`",
    "attempts.number": "number of the attempt, from 1",
    "attempts.started": "when it began",
    "attempts.ended": "when it ended; null while it runs",
    "attempts.outcome": "how it ended: `observed`, `failed`, `stopped`, `killed`, `interrupted`, or of a "
    "lease `lost`, `given back`, `overtaken`, `observed late`; null while it runs",
    "progress.step": "optimiser steps done",
    "progress.evaluated": "1 where the step was validated, else 0",
    "leases.id": "name of the lease, which nobody can guess",
    "answers.key": "SHA-256 of the request's key",
    "results.key": "name of the result",
    "events.kind": "what happened, in a word",
}
"""What a column holds, in every table or in one."""
MORE = {
    "Header.objective": "What a search makes as good as it can.",
    "Header.seed": "Seed of choices and trainings.",
    "Objective.goal": "Whether larger or smaller values are better.",
    "Search.strategy": "How architectures are chosen: `mi+kg`, `mi+nei`, `published` or `random`.",
    "Source.name": "Name of the other search.",
    "Answer.status": "Status of HTTP.",
}
"""What is said of fields that the source leaves to their names."""
HOMES: tuple[ModuleType, ...] = (documents, header, records, answers)
"""Where the classes are whose schemas others name."""


def journal_reference() -> Iterator[str]:
    """Every table with its columns, as SQLite has them, and the fields of its documents."""
    yield "# The journal's tables\n"
    yield (
        f"`RUN/journal.sqlite` is an SQLite database in WAL mode, of version {VERSION} (`user_version`). "
        "Any process of the same machine may read it while a search writes: `sqlite3 -readonly "
        "RUN/journal.sqlite`. Write through "
        "`gpnas.journal.Journal` alone ([documents](documents.md#the-journal)). `document` is JSON, `crc32` "
        "its CRC-32; times are ISO 8601 in UTC.\n"
    )
    with sqlite3.connect(":memory:") as database:
        for table in TABLES:
            database.execute(declaration(table))
        for table in TABLES:
            meaning, forms = ROWS[table]
            yield f"## {table}\n\n{meaning}\n\n| column | type | | meaning |\n|---|---|---|---|"
            for _, name, form, needed, _, key in database.execute(f"PRAGMA table_info({table})"):
                more = "part of the key" if key else "always there" if needed else "may be null"
                text = COLUMNS.get(f"{table}.{name}") or COLUMNS[name]
                yield f"| `{name}` | {form} | {more} | {text} |"
            yield ""
            for each, form in forms.items():
                if each:
                    yield f"### {table}: {each}\n\n{sentence(FORMS[each])}\n"
                if form is not None:
                    yield "Fields of its `document`:\n"
                    yield from fields_of(form)
                    yield ""


def fields_of(form: type[Any]) -> Iterator[str]:
    """The fields of a document as a list, with those of documents in it beneath."""
    schema = TypeAdapter(form).json_schema()
    yield from _fields(form, schema, schema.get("$defs", {}), 0)


def _fields(form: type[Any], schema: Schema, named: Schema, depth: int) -> Iterator[str]:
    texts = meanings(form)
    for name, each in schema["properties"].items():
        text = re.sub(r"\bNone\b", "null", MORE.get(f"{form.__name__}.{name}") or texts[name])
        yield f"{'    ' * depth}- `{name}`, {kind(each, _unnamed)}: {sentence(text)}"
        within = "DecisionDocument" if name == "decision" else next(_named(each), None)
        if within is not None:
            inner = next(getattr(home, within) for home in HOMES if hasattr(home, within))
            beneath = named.get(within) or TypeAdapter(inner).json_schema()
            yield from _fields(inner, beneath, named, depth + 1)


def _unnamed(name: str) -> str:
    """What stands for another schema, whose own fields follow."""
    return "anything" if name == "JsonValue" else "mapping"


def _named(schema: Schema) -> Iterator[str]:
    """The names of other schemas in one."""
    if "$ref" in schema:
        yield str(schema["$ref"]).rpartition("/")[2]
    for each in [*schema.get("anyOf", ()), *([schema["items"]] if "items" in schema else [])]:
        yield from _named(each)
