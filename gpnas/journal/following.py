"""A journal's rows in the order in which they came, from wherever a reader left off."""

from __future__ import annotations

import re
import sqlite3
from dataclasses import dataclass, fields, replace
from typing import Any

from gpnas.journal.documents import decode_result

ENDED = "ended"
"""Kind of the events that tell of attempts that ended without an observation."""
FORM = re.compile(r"[0-9]{1,18}(\.[0-9]{1,18}){5}")
ROWS = {
    "sessions": ("session", "time, number", ""),
    "candidates": ("candidate", "time, id, document, crc32", "{id}"),
    "attempts": ("attempt", "started AS time, candidate, number", ""),
    "progress": ("progress", "candidate, attempt, step, document, crc32", "progress of {candidate}"),
    "observations": ("observation", "time, candidate, document, crc32", "{candidate}"),
    "events": ("event", "time, kind, document, crc32", "{kind}"),
}
"""Table to the kind of its entries, the columns that they tell, of which `document` stands for what it holds,
and what an error calls a row that has one."""


@dataclass(frozen=True)
class Cursor:
    """How far a reader has come: the newest row that it has seen of each table, 0 before the first."""

    sessions: int = 0
    candidates: int = 0
    attempts: int = 0
    progress: int = 0
    observations: int = 0
    events: int = 0

    def __str__(self) -> str:
        return ".".join(str(getattr(self, each.name)) for each in fields(self))

    @classmethod
    def parse(cls, text: str) -> Cursor:
        """A cursor as `str` writes it.

        Raises:
            ValueError: it is none.
        """
        if not FORM.fullmatch(text):
            raise ValueError(f"a place in a journal must be six numbers with dots, but got {text!r:.80}")
        return cls(*map(int, text.split(".")))


@dataclass(frozen=True)
class Entry:
    """One row of a journal."""

    cursor: Cursor
    """Where whoever has read this one and those before it goes on."""
    kind: str
    """`session`, `candidate`, `attempt`, `progress`, `observation`, `event`, or `ended` for an attempt that
    brought no observation."""
    document: dict[str, Any]


def entries_after(connection: sqlite3.Connection, cursor: Cursor, most: int) -> list[Entry]:
    """The rows that came after a place, at most so many.

    Of attempts these are their starts, and among the events how those ended that brought no observation; of
    progress the evaluations.

    Rows of one table come in the order they were written, tables in the order of `Cursor`. Rows are only
    added, and evaluations never thinned out, so whoever goes on from the last cursor misses none.

    Raises:
        DamageError: a row is not as it was written.
    """
    entries: list[Entry] = []
    for table, (kind, columns, where) in ROWS.items():
        more = "AND evaluated" if table == "progress" else ""
        rows = connection.execute(
            f"SELECT rowid, {columns} FROM {table} WHERE rowid > ? {more} ORDER BY rowid LIMIT ?",
            (getattr(cursor, table), most - len(entries)),
        )
        names = [name for name, *_ in rows.description]
        for number, *values in rows:
            cursor = replace(cursor, **{table: number})
            told = dict(zip(names[1:], values, strict=True))
            word = told.get("kind", "")
            if where:
                text, crc32 = told.pop("document"), told.pop("crc32")
                told |= decode_result(word, text, crc32, where.format(**told))
            if word == ENDED:
                del told["kind"]
            entries.append(Entry(cursor, ENDED if word == ENDED else kind, told))
    return entries


def end_of(connection: sqlite3.Connection) -> Cursor:
    """The place after the newest row."""

    def newest(table: str) -> int:
        where = "WHERE evaluated" if table == "progress" else ""
        return int(connection.execute(f"SELECT coalesce(max(rowid), 0) FROM {table} {where}").fetchone()[0])

    return Cursor(*(newest(each.name) for each in fields(Cursor)))
