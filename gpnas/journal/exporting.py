"""A journal as one JSON document, and what a bundle tells of the search that it came from."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

from gpnas.journal.documents import VERSION, decode, plain
from gpnas.journal.journal import Journal

TABLES = {
    "sessions": ("number, time", "number"),
    "candidates": ("time, session, id", "number"),
    "leases": ("candidate, attempt", "candidate, attempt"),
    "observations": ("time, candidate", "number"),
    "results": ("key, time, session", "key"),
    "events": ("time, session, kind", "number"),
}
"""Tables with documents: the columns beside these, and the order."""


def export(journal: Journal) -> dict[str, Any]:
    """Everything, as one JSON document."""
    with journal.reading() as connection:
        tables = {}
        for table, (columns, order) in TABLES.items():
            rows = connection.execute(f"SELECT {columns}, document, crc32 FROM {table} ORDER BY {order}")
            tables[table] = [
                dict(zip(columns.split(", "), rest, strict=True)) | {"document": decode(text, crc32, table)}
                for *rest, text, crc32 in rows
            ]
        return {
            "format": "gpnas journal",
            "version": VERSION,
            "header": plain(journal.first_header.to_json()),
            **tables,
            "attempts": [asdict(attempt) for attempt in journal.attempts()],
            "progress": {
                entry["id"]: [asdict(row) for row in journal.progress(entry["id"])]
                for entry in tables["candidates"]
            },
        }


def excerpt(journal: Journal, candidates: Iterable[str]) -> dict[str, Any]:
    """What a bundle tells of the search that it came from.

    Args:
        journal: of the search.
        candidates: names of those whose decision, training and observation are told.
    """
    wanted = set(candidates)
    document = export(journal)
    return {
        "candidates": len(document["candidates"]),
        "observations": len(document["observations"]),
        "chosen": [entry for entry in document["candidates"] if entry["id"] in wanted],
        "observed": [entry for entry in document["observations"] if entry["candidate"] in wanted],
    }
