"""The tables of a journal as a page, from the statements that make them and the schemas of their rows."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from typing import Any

from http_reference import _kind
from pydantic import TypeAdapter

from gpnas.journal.documents import (
    TABLES,
    VERSION,
    CandidateDocument,
    LeaseDocument,
    ObservationDocument,
    ProgressDocument,
    declaration,
)
from gpnas.journal.header import Header

ROWS: dict[str, tuple[str, Any]] = {
    "header": ("What the run is; one row, written when the run begins.", Header),
    "sessions": ("Each start of a command that writes, with what it was granted and what it runs on.", None),
    "candidates": ("What was suggested, in order, before anything of it is trained.", CandidateDocument),
    "attempts": ("Each start of a training; without an end while it runs.", None),
    "progress": (
        "What an attempt reported on its way; of what lies between evaluations, the newest.",
        ProgressDocument,
    ),
    "observations": ("What a training came to; one for each candidate that has ended.", ObservationDocument),
    "leases": ("Who may train which candidate, where others than a driver train.", LeaseDocument),
    "answers": ("Answers of the service under the keys of their requests, for a day.", None),
    "results": ("What was worked out of the rest, by name, such as the delivery.", None),
    "events": ("What people did, and what the surrogate said of stopping.", None),
}


def journal_reference() -> Iterator[str]:
    """Every table with its columns, as SQLite has them, and the fields of its documents."""
    yield "# The journal's tables\n"
    yield (
        f"`RUN/journal.sqlite` is an SQLite database in WAL mode, of version {VERSION} (`user_version`). "
        "Anyone may read it while a search writes: `sqlite3 -readonly RUN/journal.sqlite`. Write through "
        "`gpnas.journal.Journal` alone ([documents](documents.md#the-journal)). `document` is JSON, `crc32` "
        "its CRC-32; times are ISO 8601 in UTC.\n"
    )
    with sqlite3.connect(":memory:") as database:
        for table in TABLES:
            database.execute(declaration(table))
        for table in TABLES:
            meaning, schema = ROWS[table]
            yield f"## {table}\n\n{meaning}\n\n| column | type | |\n|---|---|---|"
            for _, name, kind, needed, _, key in database.execute(f"PRAGMA table_info({table})"):
                more = "part of the key" if key else "always there" if needed else "may be null"
                yield f"| `{name}` | {kind} | {more} |"
            yield ""
            if schema is not None:
                yield "Fields of its `document`:\n"
                described = TypeAdapter(schema).json_schema()
                for name, each in described["properties"].items():
                    yield f"- `{name}` ({_plain(_kind(each))})"
                yield ""


def _plain(kind: str) -> str:
    """A kind without a link, since what it would lead to is no part of the page."""
    return kind.partition("](")[0].removeprefix("[") if kind.startswith("[") else kind
